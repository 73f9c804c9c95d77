"""Neighbours that mean ill, or do not care: each does one thing to a live run until it is stopped.

Adversaries and what the run looks at enter, a `Siege` leaves: what became of the run. They reach it
only as a neighbour could: by its ports, its keys' folder, its signals and what reads its log.
"""

import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import av
import zmq
from rich.table import Table

from benchmarks.support.common import Check, MemoryWatch, at_least, at_most, program
from denseav.export.outside_files import ffmpeg_name
from denseav.stream.feed import keys
from denseav.stream.feed.client import HeatmapSubscriber
from tests.support.ports import free_port

LINES = 300  # idle connections at a time, to each port
PREFIXES, PREFIX_BYTES = 2_000, 1_000
_POST = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
_GET = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n"
LIES = (
    _POST + b"Content-Length: 1000000000000\r\n\r\n" + bytes(60_000),
    _POST + b"Content-Length: 10\r\n\r\n",  # and never come
    _POST + b"Content-Length: -1\r\n\r\n" + bytes(60_000),
    _POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n" + bytes(60_000),
    _GET + b"X: " + b"y" * 200_000,  # a header without end
    _GET + b"".join(b"X%d: %s\r\n" % (index, b"y" * 60_000) for index in range(90)),
    b"\0" * 60_000,
)
DRIPS, DRIP_S = 10, 0.2
ASLEEP_S, AWAKE_S = 1.5, 15.0
SETTLED_S = 10.0  # buffers fill and arenas form before
SILENCE_S = 1.0  # a robot stops for less
GROWTH_MB, DESCRIPTORS, RECORDED = 30.0, 150, 0.9
DISK_FULL = "disk full"
FILM = "film.mp4"


@dataclass(frozen=True)
class Target:
    """A run: its process, where it publishes, serves figures and a page, and its keys' folder."""

    process: subprocess.Popen[str]
    endpoint: str
    metrics_port: int
    page_port: int
    keys: Path


def churn_keys(target: Target, stop: Event) -> int:
    """Add and revoke clients as fast as it goes."""
    times = 0
    file = target.keys.with_name("churned.client")
    while not stop.is_set():
        keys.add_client(target.keys, "churned", file)
        keys.revoke(target.keys, "churned")
        file.unlink()
        times += 1
    return times


def flood_connections(target: Target, stop: Event) -> int:
    """Open idle connections to the feed, the figures and the page, hundreds at a time."""
    feed, times = int(target.endpoint.rsplit(":", 1)[1]), 0
    ports = (feed, target.metrics_port, target.page_port)
    while not stop.is_set():
        with ExitStack() as held:
            for _ in range(LINES):
                for port in ports:
                    with suppress(OSError):
                        held.enter_context(socket.create_connection(("127.0.0.1", port), 1))
                        times += 1
            stop.wait(1)
    return times


def lie_in_requests(target: Target, stop: Event) -> int:
    """Send the figures and the page requests that are not what they say, and dawdle."""
    times = 0
    while not stop.is_set():
        with ExitStack() as held:
            lines = []
            for lie in LIES:
                for port in (target.metrics_port, target.page_port):
                    with suppress(OSError):
                        line = held.enter_context(socket.create_connection(("127.0.0.1", port), 1))
                        line.sendall(lie)
                        lines.append(line)
                        times += 1
            for _ in range(DRIPS):
                stop.wait(DRIP_S)
                for line in lines:
                    with suppress(OSError):
                        line.sendall(b"x")
    return times


def flood_prefixes(target: Target, stop: Event) -> int:
    """Subscribe to thousands of long topics, without a key and again and again."""
    times = 0
    while not stop.is_set():
        with zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
            subscriber.linger = 0
            subscriber.connect(target.endpoint)
            for index in range(PREFIXES):
                subscriber.subscribe(b"%08d" % index + bytes(PREFIX_BYTES))
            times += PREFIXES
            stop.wait(1)
    return times


def suspend(target: Target, stop: Event) -> int:
    """Stop the process for a while, as a machine that sleeps does, and let it go on."""
    times = 0
    while not stop.wait(AWAKE_S):
        target.process.send_signal(signal.SIGSTOP)
        time.sleep(ASLEEP_S)
        target.process.send_signal(signal.SIGCONT)
        times += 1
    return times


def close_log(target: Target, stop: Event) -> int:
    """Go away as the reader of its log."""
    assert target.process.stderr is not None
    target.process.stderr.close()
    stop.wait()
    return 1


def fill_disk(target: Target, stop: Event) -> int:
    """Let no file of the process grow any more, as on a disk that is full."""
    if stop.wait(SETTLED_S):
        return 0
    resource.prlimit(target.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    stop.wait()
    return 1


Adversary = Callable[[Target, Event], int]
"""Does its one thing to a run until it is stopped, and returns how often."""

ADVERSARIES: Mapping[str, Adversary] = {
    "keys churned": churn_keys,
    "idle connections": flood_connections,
    "lying requests": lie_in_requests,
    "prefixes subscribed": flood_prefixes,
    "log without a reader": close_log,
    "suspended": suspend,
    DISK_FULL: fill_disk,
}


@dataclass(frozen=True, kw_only=True)
class Siege:
    """What became of a run: what was done to it how often, and what of it suffered."""

    done: Mapping[str, int]
    messages: int
    silence_s: float
    restarts: int
    memory_growth_mb: float | None
    descriptor_growth: int
    recorded_s: float
    ran_s: float
    code: int


def besiege(
    adversaries: Mapping[str, Adversary],
    seconds: float,
    source: Sequence[str] = ("--demo",),
    environment: Mapping[str, str] | None = None,
) -> Siege:
    """Run for so long with a feed, figures, a page and a recording, under all of these at once.

    Parameters
    ----------
    source : what is looked at and listened to, as `denseav-live` takes it.
    environment : what the program's has besides this one's.
    """
    with TemporaryDirectory() as place:
        folder, port = Path(place), free_port()
        target = _begin(folder, f"tcp://127.0.0.1:{port}", source, environment or {})
        try:
            return _besieged(folder, target, adversaries, seconds)
        finally:
            with suppress(ProcessLookupError):
                target.process.send_signal(signal.SIGCONT)
            target.process.kill()
            target.process.wait()


def _begin(
    folder: Path, endpoint: str, source: Sequence[str], environment: Mapping[str, str]
) -> Target:
    store, metrics_port, page_port = folder / "keys", free_port(), free_port()
    keys.init(store)
    keys.add_client(store, "reader", folder / "reader.client")
    command = [program("denseav-live"), *source, "--headless", "--device", "cpu"]
    command += ["--publish", endpoint, "--publish-keys", str(store), "--record", FILM]
    command += ["--prometheus", str(metrics_port), "--serve", str(page_port)]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    if not any("READY" in line for line in process.stderr):
        raise SystemExit(f"denseav-live ended with code {process.wait()}")
    return Target(process, endpoint, metrics_port, page_port, store)


def _besieged(
    folder: Path, target: Target, adversaries: Mapping[str, Adversary], seconds: float
) -> Siege:
    came_s: list[float] = []
    stop, watch = Event(), MemoryWatch(target.process.pid)
    begun_s = time.monotonic()
    with (
        HeatmapSubscriber(
            target.endpoint, folder / "reader.client", tap=lambda _: came_s.append(time.monotonic())
        ) as feed,
        ThreadPoolExecutor(len(adversaries)) as pool,
    ):
        doing = {name: pool.submit(act, target, stop) for name, act in adversaries.items()}
        stop.wait(seconds)
        stop.set()
        done = {name: future.result() for name, future in doing.items()}
        restarts = feed.restarts
    ran_s = time.monotonic() - begun_s
    target.process.send_signal(signal.SIGTERM)
    code = target.process.wait(60)
    watch.stop()
    settled = [sight.descriptors for sight in watch.sights if sight.seconds >= SETTLED_S]
    return Siege(
        done=done,
        messages=len(came_s),
        silence_s=max((late - early for early, late in pairwise(came_s)), default=seconds),
        restarts=restarts,
        memory_growth_mb=watch.growth_mb(SETTLED_S),
        descriptor_growth=settled[-1] - settled[0] if settled else 0,
        recorded_s=_length_s(next(folder.glob("film*.mp4"))),
        ran_s=ran_s,
        code=code,
    )


def _length_s(film: Path) -> float:
    with av.open(ffmpeg_name(film)) as container:
        times = [frame.time or 0.0 for frame in container.decode(video=0)]
    return times[-1] - times[0]


def siege_table(sieges: Mapping[str, Siege]) -> Table:
    """Return a row for each."""
    columns = ("adversary", "times", "messages", "longest silence s", "new runs")
    more = ("memory MB", "descriptors", "recorded of s", "exit code")
    table = Table(*columns, *more, title="under attack")
    for name, siege in sieges.items():
        table.add_row(
            name,
            ", ".join(f"{times:,}" for times in siege.done.values()),
            f"{siege.messages:,}",
            f"{siege.silence_s:.2f}",
            str(siege.restarts),
            f"{siege.memory_growth_mb}",
            f"{siege.descriptor_growth:+d}",
            f"{siege.recorded_s:.0f} of {siege.ran_s:.0f}",
            str(siege.code),
        )
    return table


def siege_checks(name: str, siege: Siege, silent_s: float = 0.0) -> list[Check]:
    """Hold a run against what it promises; it may be silent while it or its camera is away."""
    full = DISK_FULL in siege.done
    code, recorded_s = (7, SETTLED_S / 4) if full else (0, RECORDED * siege.ran_s)
    asleep_s = ASLEEP_S if "suspended" in siege.done else silent_s
    return [
        at_most(f"{name}: longest silence, s", siege.silence_s, SILENCE_S + asleep_s),
        at_most(f"{name}: memory growth, MB", siege.memory_growth_mb, GROWTH_MB),
        at_most(f"{name}: descriptors more", siege.descriptor_growth, DESCRIPTORS),
        at_least(f"{name}: recorded, s", siege.recorded_s, recorded_s),
        at_most(f"{name}: exit code beside {code}", abs(siege.code - code), 0),
    ]
