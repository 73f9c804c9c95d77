"""How fresh the feed is, and what subscribers do to the pipeline.

    python -m benchmarks.live.feed_latency [--seconds N]

Real publishers and subscribers, the latter in processes of their own, on loopback. Prints a table,
and on the last line the figures as JSON. `age` is from giving a heatmap to the publisher until a
subscriber has decoded its message, with a preview also its JPEG; `wire` is from the making of the
message; `handled` is the age when a subscriber's own loop gets to see it.
"""

import argparse
import json
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import zmq

from denseav.export.runtime.bundle import Head
from denseav.stream.feed import keys as feed_keys
from denseav.stream.feed.client import (
    FeedRefusedError,
    FeedStaleError,
    HeatmapSubscriber,
    read_keys,
)
from denseav.stream.feed.message import Origin
from denseav.stream.feed.publisher import CameraFeed, Publisher
from denseav.stream.stats.stats import Stats
from denseav.stream.types import Frame, Heatmap

PORT = 25_557
SPAWN = multiprocessing.get_context("spawn")
HEADS = tuple(Head(name=name, threshold=0.9, ceiling=1.0) for name in ("speech", "sound"))
ORIGIN = Origin(camera_id="bench", heads=HEADS, model="0" * 64, backend="cpu", precision="fp32")


class Pipeline:
    """Stands for the seeing thread: heatmaps at a steady rate, each call to the feed timed."""

    def __init__(self, publisher: Publisher, fps: float) -> None:
        rng = np.random.default_rng(0)
        self._image_HW3 = rng.integers(0, 255, (90, 160, 3), np.uint8)
        self._image_HW3 = np.kron(self._image_HW3, np.ones((8, 8, 1), np.uint8))  # 720p
        self._heat_KHW = rng.random((2, 28, 28), np.float32)
        self._publisher = publisher
        self._period_s = 1 / fps
        self.calls_s: list[float] = []
        self._seconds = 0.0
        self._frames = 0

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Give heatmaps for some seconds, or until told to end."""
        begin_s = due_s = time.monotonic()
        while time.monotonic() < begin_s + seconds and not until():
            now_s = time.monotonic()
            self._frames += 1
            frame = Frame(self._image_HW3, self._frames, now_s)
            self._publisher.heatmap(
                Heatmap(
                    frame=frame,
                    heat_KHW=self._heat_KHW,
                    valid_K=(True,) * 2,
                    audio_start_s=now_s - 0.3,
                    audio_end_s=now_s - 0.1,
                    rms_dbfs=-20,
                    ready_s=now_s,
                )
            )
            self.calls_s.append(time.monotonic() - now_s)
            due_s += self._period_s
            time.sleep(max(0.0, due_s - time.monotonic()))
        self._seconds += time.monotonic() - begin_s

    def figures(self) -> dict[str, float]:
        """Return the rate that was kept, and how long a call to the feed took."""
        fps = round(self._frames / self._seconds, 2)
        return {"fps": fps, "call_p99_ms": percentile(self.calls_s, 99, 1e3)}


def percentile(values: Any, percent: float, scale: float = 1.0) -> float:
    """Return a percentile, scaled and rounded."""
    return round(float(np.percentile(values, percent)) * scale, 3)


@contextmanager
def publishing(preview: bool = False, keys: Path | None = None) -> Iterator[tuple[Publisher, str]]:
    """Publish on loopback; give the publisher and its endpoint."""
    endpoint = f"tcp://127.0.0.1:{PORT}"
    publisher = Publisher(
        endpoint, [CameraFeed(origin=ORIGIN, snapshot=Stats().snapshot)], preview=preview, keys=keys
    )
    try:
        yield publisher, endpoint
    finally:
        publisher.close()


def subscriber(endpoint: str, keys: str | None, work_s: float, seconds: float, out: Any) -> None:
    """Read in a process of its own, taking some time for each message; send the times back."""
    arrivals: list[tuple[float, float]] = []

    def came(message: Any) -> None:
        now_ns = time.monotonic_ns()
        arrivals.append(((now_ns - message.capture_ns) / 1e6, (now_ns - message.publish_ns) / 1e6))

    handled_ms = []
    with HeatmapSubscriber(endpoint, keys, tap=came) as feed:
        out.put("ready")
        next(feed)
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            message = next(feed)
            handled_ms.append(feed.age_ms(message))
            time.sleep(work_s)
        out.put((arrivals[5:], handled_ms[2:], feed.gaps))


def one_subscriber(
    seconds: float, fps: float, work_s: float, preview: bool, keys: tuple[Path, str] | None
) -> dict[str, Any]:
    """Publish at a rate to one subscriber that takes some time for each message."""
    folder, client = keys or (None, None)
    out = SPAWN.Queue()
    with publishing(preview, folder) as (publisher, endpoint):
        process = SPAWN.Process(target=subscriber, args=(endpoint, client, work_s, seconds, out))
        process.start()
        out.get()
        pipeline = Pipeline(publisher, fps)
        pipeline.run(seconds + 5, until=lambda: not out.empty())
        arrivals, handled_ms, gaps = out.get()
        process.join()
    age_ms, wire_ms = np.array(arrivals).T
    return {
        "age_p50_ms": percentile(age_ms, 50),
        "age_p99_ms": percentile(age_ms, 99),
        "wire_p99_ms": percentile(wire_ms, 99),
        "handled_p99_ms": percentile(handled_ms, 99),
        "handled_max_ms": round(max(handled_ms), 3),
        "messages": len(age_ms),
        "gaps": gaps,
        **pipeline.figures(),
    }


def crowd(count: int, at_once: int) -> dict[str, Any]:
    """Let subscribers come and go, hold many at once, and kill one in the middle of a message."""
    process = psutil.Process()
    with publishing(preview=True) as (publisher, endpoint):
        quiet, busy = Pipeline(publisher, 60), Pipeline(publisher, 60)
        quiet.run(2)
        come_and_go(quiet, endpoint, count // 10, at_once)  # what the allocator keeps, it has now
        before_bytes = process.memory_info().rss
        received = come_and_go(busy, endpoint, count, at_once)
        kill_in_the_middle(busy, endpoint)
        after_bytes = process.memory_info().rss
    grown = round((after_bytes - before_bytes) / 2**20, 1)
    return {**received, **busy.figures(), "rss_grown_mib": grown}


def come_and_go(pipeline: Pipeline, endpoint: str, count: int, at_once: int) -> dict[str, Any]:
    """Run the pipeline while another process connects and disconnects."""
    out = SPAWN.Queue()
    process = SPAWN.Process(target=churn, args=(endpoint, count, at_once, out))
    process.start()
    pipeline.run(600, until=lambda: not out.empty())
    process.join()
    received: dict[str, Any] = out.get()
    return received


def kill_in_the_middle(pipeline: Pipeline, endpoint: str) -> None:
    """Stop a subscriber until its buffers are full, so within a message, and kill it there."""
    out = SPAWN.Queue()
    victim = SPAWN.Process(target=churn, args=(endpoint, 0, 1, out))
    victim.start()
    pipeline.run(2)
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGSTOP)
    pipeline.run(4)
    os.kill(victim.pid, signal.SIGKILL)
    pipeline.run(2)
    victim.join()


def churn(endpoint: str, count: int, at_once: int, out: Any) -> None:
    """Connect and disconnect, then hold many subscribers at once; or hang on, to be killed."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    for _ in range(count):
        with context.socket(zmq.SUB) as socket:
            socket.linger = 0
            socket.subscribe(b"heat/")
            socket.connect(endpoint)
            socket.poll(30)
    many = [HeatmapSubscriber(endpoint) for _ in range(at_once)]
    heard = 0
    for each in many:
        try:
            next(each)
            heard += 1
        except FeedStaleError:
            pass
    if not count:
        time.sleep(60)
    time.sleep(5)
    out.put({"connects": count, "at_once": heard})
    for each in many:
        each.close()


def refusals(folder: Path) -> dict[str, Any]:
    """How long each kind of refusal takes to be told, and in which words."""
    feed_keys.init(folder / "a")
    feed_keys.init(folder / "b")
    files = {name: folder / f"{name}.client" for name in ("good", "revoked", "other", "unknown")}
    for name in ("good", "revoked"):
        feed_keys.add_client(folder / "a", name, files[name])
    for name in ("other", "unknown"):
        feed_keys.add_client(folder / "b", name, files[name])
    feed_keys.revoke(folder / "a", "revoked")
    text = files["unknown"].read_text()
    theirs, ours = read_keys(files["unknown"])[0], read_keys(files["good"])[0]
    files["unknown"].write_text(text.replace(theirs.decode(), ours.decode()))
    found = {}
    with publishing(keys=folder / "a") as (_, endpoint):
        cases = {
            "wrong key": files["unknown"],
            "revoked key": files["revoked"],
            "server key mismatch": files["other"],
            "plain client on CURVE, no key": None,
        }
        for name, keys in cases.items():
            found[name] = told(endpoint, keys)
    with publishing() as (_, endpoint):
        found["CURVE client on plain"] = told(endpoint, files["good"])
    return found


def told(endpoint: str, keys: Path | None) -> dict[str, Any]:
    """Return the reason of a refusal, and how long it took to come."""
    begin_s = time.monotonic()
    with HeatmapSubscriber(endpoint, keys) as feed:
        while time.monotonic() < begin_s + 10:
            try:
                feed.read_latest(max_age_ms=20)
            except FeedStaleError:
                continue
            except FeedRefusedError as error:
                reason = str(error).partition("refused: ")[2]
                return {"seconds": round(time.monotonic() - begin_s, 3), "reason": reason}
    return {"seconds": None, "reason": None}


def main() -> None:
    """Measure everything and report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=120.0, help="of the slow subscriber")
    options = parser.parse_args()
    report: dict[str, Any] = {}

    def tell(name: str, figures: dict[str, Any]) -> None:
        report[name] = figures
        print(f"{name:26}" + "  ".join(f"{key} {value}" for key, value in figures.items()))

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        feed_keys.init(folder / "keys")
        feed_keys.add_client(folder / "keys", "bench", folder / "bench.client")
        keys = folder / "keys", str(folder / "bench.client")
        seconds = min(20.0, options.seconds)
        tell(
            "maps 60 Hz",
            one_subscriber(seconds=seconds, fps=60, work_s=0.0, preview=False, keys=None),
        )
        tell(
            "maps 60 Hz CURVE",
            one_subscriber(seconds=seconds, fps=60, work_s=0.0, preview=False, keys=keys),
        )
        tell(
            "720p preview 60 Hz",
            one_subscriber(seconds=seconds, fps=60, work_s=0.0, preview=True, keys=None),
        )
        tell(
            "720p preview 60 Hz CURVE",
            one_subscriber(seconds=seconds, fps=60, work_s=0.0, preview=True, keys=keys),
        )
        tell(
            "50 ms at 100 Hz",
            one_subscriber(seconds=options.seconds, fps=100, work_s=0.05, preview=False, keys=None),
        )
        tell("crowd", crowd(1000, 50))
        tell("refusals", refusals(folder))
    print(json.dumps(report))


if __name__ == "__main__":
    main()
