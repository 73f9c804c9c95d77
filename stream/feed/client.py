"""Subscribers of the denseav feed: bytes in, `HeatMessage` or `StatusMessage` out, never old ones.

One file to copy: it needs numpy, pyzmq and Python 3.9, and knows nothing of the rest of denseav.

    with HeatmapSubscriber("tcp://127.0.0.1:5557") as feed:
        peak = feed.read_latest(max_age_ms=200).heads["sound"].peak  # or raises FeedStaleError

It receives on a thread of its own; call it from any. Times are nanoseconds of the publisher's
monotonic clock. Axes: K heads, H W cells of the maps.
"""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import json
import os
import socket as tcp
import struct
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from dataclasses import field as attribute
from pathlib import Path
from threading import Condition, Event, Thread
from time import get_clock_info, monotonic, monotonic_ns
from typing import Any

import numpy as np
import zmq
from zmq.utils.monitor import recv_monitor_message

PREFIX = struct.Struct("<32s4sBBHIIIHHHHIQ16s")  # FEED.md says what each is
MAGIC, MAJOR, MINOR = b"DNAV", 1, 1
MESSAGE_BYTES_MAX, TIME_MAX_NS = 4 << 20, 1 << 62
KEY_NAMES = "server-public", "client-public", "client-secret"
_REFUSALS = {  # by whether this client has keys, and what the publisher says or speaks
    (True, 400): "this client's key is not authorised: never added, or revoked",
    (True, "CURVE"): "its key is not the server-public of the key file",
    (True, "NULL"): "it is not encrypted, so it is not the publisher that the keys are for",
    (False, "CURVE"): "it wants keys: give keys= the file from denseav-feed keys add-client",
}
DAMAGE = LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError
_MACHINE = r"SOFTWARE\Microsoft\Cryptography", "MachineGuid"  # in the registry of Windows
_MEMORY = r"SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management"
_START = rf"{_MEMORY}\PrefetchParameters", "BootId"
_TIMES = "capture_ns", "publish_ns", "audio_start_ns", "audio_end_ns"
_RUNS_MAX = 64  # that a reader tells apart: several cameras, and publishers that started again
_SAID = {"frame": int, "skew_ms": float, "audio_dbfs": float}  # and what is named
_SAID.update(dict.fromkeys(("model", "backend", "precision"), str))
_FIGURES = "audio_dbfs", "fps_in", "fps_out", "fps_published", "latency_p50_ms", "latency_p95_ms"
_SILENCE_S = 2.0  # how long iteration waits for a message
DRIFT = 5000  # two monotonic clocks drift apart by less than 1 in this many
_HANDSHAKE = 0x7800  # libzmq's events of a handshake: it succeeded, or failed in one of three ways


class FeedError(Exception):
    """Anything wrong with the feed; the others are kinds of it."""


class FeedFormatError(FeedError, ValueError):
    """A message is not what FEED.md describes."""


class FeedRefusedError(FeedError, ConnectionError):
    """The connection is refused, or this client's key file is; the text says why."""


class FeedStaleError(FeedError, TimeoutError):
    """Nothing young enough came in time."""


@dataclass(frozen=True)
class Head:
    """One head; `peak` (x, y) and `box` (left, top, right, bottom) in pixels, or None.

    `score` is the map's highest value; it means something from `threshold` on, and no more above
    `ceiling`. `heat` is the map, float32 [h, w], spread evenly over the frame.
    """

    name: str
    valid: bool
    score: float
    threshold: float
    ceiling: float
    peak: tuple[float, ...] | None
    box: tuple[float, ...] | None
    heat: np.ndarray[Any, np.dtype[np.float32]] = attribute(compare=False, repr=False)

    def mask(self, image: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return where an image [H, W, ...] of the frame is hot: bool [H, W], by whole cells.

        Hot is from the threshold on; nothing is where the head is not valid.
        """
        (height, width), (rows, columns) = image.shape[:2], self.heat.shape
        row_H = np.arange(height) * rows // height
        column_W = np.arange(width) * columns // width
        hot = (self.heat >= self.threshold) & self.valid
        return np.asarray(hot[row_H[:, None], column_W])


@dataclass(frozen=True)
class HeatMessage:
    """One frame's answer; heads in the order of the maps, all fields in `header`, all in `data`."""

    run: str
    sequence: int
    capture_ns: int
    publish_ns: int
    frame_size: tuple[int, int]
    heads: dict[str, Head]
    maps_KHW: np.ndarray[Any, np.dtype[np.float16]]
    heat_to_pixel_33: np.ndarray[Any, np.dtype[np.float64]]
    preview_jpeg: bytes
    header: dict[str, Any]
    data: bytes


@dataclass(frozen=True)
class SourceReport:
    """How the publisher's camera or microphone did, for how long, and how often it was lost."""

    kind: str
    state: str
    for_ms: int
    losses: int


@dataclass(frozen=True)
class StatusMessage:
    """How a publisher was doing at `publish_ns`; `header` has every field, `data` the bytes."""

    run: str
    sequence: int
    publish_ns: int
    state: str
    health: str
    replay: bool
    sources: tuple[SourceReport, ...]
    header: dict[str, Any]
    data: bytes

    @property
    def capture_ns(self) -> int:
        """When what it says was so: its age counts from here."""
        return self.publish_ns


def decode(data: bytes) -> HeatMessage:
    """Return what a message says; FeedFormatError is all that it ever raises."""
    try:
        return _heat(data)
    except DAMAGE as error:
        raise FeedFormatError(f"not a feed message: {error!s:.99}") from None


def decode_status(data: bytes) -> StatusMessage:
    """Return what a status message says; FeedFormatError is all that it ever raises."""
    try:
        header, run, sequence, shape, starts = split(data, "status")
        expect(shape == (0, 0, 0) and starts[1] == len(data), "it carries more than a header")
        state, grade = field(header, "state", str), field(header, "health", str)
        replay = field(header, "replay", bool)
        _check(header, dict.fromkeys(_FIGURES, float))
        _check(header, dict.fromkeys(("published", "subscribers"), int))
        sources = tuple(_source(record) for record in header.get("sources", ()))
    except DAMAGE as error:
        raise FeedFormatError(f"not a status message: {error!s:.99}") from None
    said = state, grade, replay, sources
    return StatusMessage(run, sequence, header["publish_ns"], *said, header, data)


def split(data: bytes, kind: str) -> tuple[dict[str, Any], str, int, tuple[int, ...], list[int]]:
    """Check every length; return header, run, sequence, maps' shape, and where the parts begin."""
    expect(PREFIX.size <= len(data) <= MESSAGE_BYTES_MAX, f"{len(data)} bytes")
    topic, magic, major, minor, prefix, header_bytes, *sizes = PREFIX.unpack_from(data)
    maps_bytes, preview_bytes, heads, rows, columns = sizes[:5]
    expect(magic == MAGIC, "its magic is not DNAV")
    expect(major == MAJOR, f"its version is {major}.{minor}, this reader's {MAJOR}.{MINOR}")
    expect(PREFIX.size <= prefix <= 1024 and 2 <= header_bytes <= 8192, "prefix or header size")
    expect(maps_bytes == 2 * heads * rows * columns, "its maps' bytes are not their shape's")
    starts = [prefix + header_bytes, prefix + header_bytes + maps_bytes]
    expect(starts[1] + preview_bytes == len(data), "its lengths do not add up")
    header = json.loads(data[prefix : starts[0]].decode())
    label = f"{kind}/{field(header, 'camera', str)}".encode()
    expect(topic == label.ljust(32, b"\0"), f"its topic is not {label!r}")
    for name, type_ in (("publish_ns", int), ("unix_offset_ns", int), ("host", str)):
        field(header, name, type_, TIME_MAX_NS)
    return header, sizes[-1].hex(), sizes[-2], (heads, rows, columns), starts


def _heat(data: bytes) -> HeatMessage:
    header, run, sequence, shape, starts = split(data, "heat")
    expect(1 <= shape[0] <= 16 and min(shape) >= 1 and max(shape) <= 1024, f"maps of {shape}")
    maps_KHW = np.frombuffer(data[starts[0] : starts[1]], "<f2").reshape(shape)
    expect(bool(np.isfinite(maps_KHW).all()), "its maps are not all numbers")
    size = field(header["frame_size"], 0, int), field(header["frame_size"], 1, int)
    expect(min(size) > 0 and max(size) < 65536, f"a frame of {size}")
    heads = {r["name"]: _head(r, size, heat) for r, heat in zip(header["heads"], maps_KHW)}
    expect(len(heads) == len(header["heads"]) == shape[0], "there is not one map for each head")
    capture_ns, publish_ns, *sound_ns = (field(header, name, int, TIME_MAX_NS) for name in _TIMES)
    expect(capture_ns <= publish_ns, "it was captured after it was published")
    expect(sound_ns[0] <= sound_ns[1], "its sound ends before it begins")
    _check(header, _SAID)
    matrix_33 = np.reshape([field(header["heat_to_pixel"], i, float) for i in range(9)], (3, 3))
    _check_places(matrix_33, size, maps_KHW, list(heads.values()))
    answer = capture_ns, publish_ns, size, heads, maps_KHW, matrix_33
    return HeatMessage(run, sequence, *answer, data[starts[1] :], header, data)


def _check_places(matrix_33: Any, size: tuple[int, int], maps_KHW: Any, heads: list[Head]) -> None:
    """Check that the maps lie on the frame, and each peak where its map is hottest."""
    expect(abs(np.linalg.det(matrix_33)) > 1e-9, "its heat_to_pixel takes all cells to one place")
    rows, columns = maps_KHW.shape[1:]
    x_4, y_4, w_4 = matrix_33 @ [[0, columns, 0, columns], [0, 0, rows, rows], [1, 1, 1, 1]]
    expect(bool(np.allclose(w_4, 1)), "its heat_to_pixel is no map of a plane")
    inside = min(x_4.min(), y_4.min()) > -1 and x_4.max() < size[0] + 1 and y_4.max() < size[1] + 1
    expect(bool(inside), "its heat_to_pixel takes cells beside the frame")
    pixel_to_heat_33 = np.linalg.inv(matrix_33)
    for head, heat_HW in zip(heads, maps_KHW):
        if head.peak is not None:
            column, row, _ = (int(each) for each in pixel_to_heat_33 @ (*head.peak, 1))
            hottest = heat_HW[min(row, rows - 1), min(column, columns - 1)] == heat_HW.max()
            expect(bool(hottest), "a peak where its map is not hottest")


def _head(record: Any, size: tuple[int, int], heat_HW: Any) -> Head:
    valid, places = field(record, "valid", bool), []
    for name, length in (("peak", 2), ("box", 4)):
        place = record[name]
        if place is not None:
            place = tuple(field(place, index, float) for index in range(length))
            inside = all(0 <= place[index] <= size[index % 2] for index in range(length))
            expect(valid and inside, f"a {name} of an invalid head, or outside the frame")
        places.append(place)
    peak, box = places
    expect((peak is not None) == valid, "a valid head without a peak")
    score, threshold, ceiling = (field(record, n, float) for n in ("score", "threshold", "ceiling"))
    expect(threshold < ceiling, "a ceiling that is not above the threshold")
    if box is not None:
        expect(box[0] < box[2] and box[1] < box[3], "a box that ends before it begins")
        around = box[0] <= peak[0] <= box[2] and box[1] <= peak[1] <= box[3]
        expect(around, "a box that is not round its peak")
        expect(score >= threshold - 1e-6 * abs(threshold), "a box though nothing is hot enough")
    highest = float(heat_HW.max())
    close = abs(score - highest) <= 1e-3 * max(1.0, abs(highest))
    expect(close, "a score that is not the map's highest value")
    return Head(
        name=field(record, "name", str),
        valid=valid,
        score=score,
        threshold=threshold,
        ceiling=ceiling,
        peak=peak,
        box=box,
        heat=heat_HW.astype(np.float32),
    )


def _source(record: Any) -> SourceReport:
    counts = (field(record, name, int, TIME_MAX_NS) for name in ("for_ms", "losses"))
    return SourceReport(field(record, "kind", str), field(record, "state", str), *counts)


def _check(header: dict[str, Any], kinds: dict[str, type]) -> None:
    """Check those of these fields that are there, and the counts of what was dropped."""
    for name, kind in kinds.items():
        if header.get(name) is not None:
            field(header, name, kind, TIME_MAX_NS)
    for name in header.get("drops", {}):
        field(header["drops"], name, int, TIME_MAX_NS)
    _check_numbers(header)


def _check_numbers(value: Any) -> None:
    """Check that all numbers are some, in fields that this reader does not know, too."""
    if isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            _check_numbers(each)
    elif isinstance(value, (int, float)):
        expect(abs(value) <= TIME_MAX_NS, f"a number of {value!s:.20}")


def field(record: Any, name: str | int, kind: type, limit: float = 1e9) -> Any:
    """Return a field of that very type: a number within the limit, or a short printable text."""
    value = record[name]
    fits = len(value) <= 128 and value.isprintable() if kind is str else abs(value) <= limit
    same = type(value) is kind or (kind is float and type(value) is int)
    expect(fits and same, f"its field {name} is {value!r:.40}")
    return value


def expect(sound: bool, complaint: str) -> None:
    """Raise FeedFormatError with the complaint unless the data are sound."""
    if not sound:
        raise FeedFormatError(complaint)


def clock_name() -> str:
    """Name the monotonic clock of this machine since its start; empty where nothing names it.

    What has the same name may compare its times.
    """
    with suppress(OSError, AttributeError):
        if sys.platform == "darwin":
            name, size = ctypes.create_string_buffer(64), ctypes.c_size_t(64)
            wanted = b"kern.bootsessionuuid", name, ctypes.byref(size), None, 0
            ctypes.CDLL(None).sysctlbyname(*wanted)
            return name.value.decode()
        if sys.platform == "win32":  # where Python's versions read different clocks
            clock = get_clock_info("monotonic").implementation
            said = f"{_registered(*_MACHINE)} {_registered(*_START)} {clock}"
            return hashlib.sha256(said.encode()).hexdigest()[:32]
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot}{_namespace()}"
    return ""


def _namespace() -> str:
    """Return by how much a container's own clock is set off from the machine's; mostly nothing."""
    with suppress(OSError, LookupError):
        offsets = Path("/proc/self/timens_offsets").read_text("ascii").split()
        seconds, nanoseconds = offsets[offsets.index("monotonic") + 1 :][:2]
        if int(seconds) or int(nanoseconds):
            return f" {seconds} {nanoseconds}"
    return ""


def _registered(folder: str, name: str) -> Any:
    if sys.platform != "win32":
        raise OSError
    import winreg

    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, folder) as key:
        return winreg.QueryValueEx(key, name)[0]


def read_keys(path: str | os.PathLike[str]) -> list[bytes]:
    """Return server-public, client-public and client-secret, or raise FeedRefusedError."""
    try:
        with Path(path).open(encoding="ascii") as file:
            if os.name == "posix" and os.fstat(file.fileno()).st_mode & 0o077:
                raise ValueError(f"others may reach it; run: chmod 600 {path}")
            fields = dict(line.split(" = ", 1) for line in file if " = " in line)
        keys = [fields[name].strip().encode() for name in KEY_NAMES]
        if zmq.curve_public(keys[2]) != keys[1] or len(keys[0]) != 40:
            raise ValueError("it is damaged")
    except (LookupError, ValueError, OSError, zmq.ZMQError) as error:
        raise FeedRefusedError(f"cannot use the key file {path}: {error}") from None
    return keys


def _security(endpoint: str) -> str:
    """Ask what a publisher speaks, NULL or CURVE, by the plain greeting that begins ZMTP."""
    host, _, port = endpoint.rpartition("/")[2].rpartition(":")
    with suppress(OSError), tcp.create_connection((host.strip("[]"), int(port)), 0.5) as line:
        line.sendall(b"\xff" + bytes(8) + b"\x7f\x03\0")
        return line.makefile("rb").read(32)[12:].rstrip(b"\0").decode("ascii", "replace")
    return ""


def _steady_ns() -> int:
    """Read a clock that nobody sets right, as they do the monotonic one; that one without any."""
    if sys.platform != "win32" and hasattr(time, "CLOCK_MONOTONIC_RAW"):
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    return monotonic_ns()


@dataclass
class _Lead:
    """By how much a clock here is ahead of a publisher's, by the fastest of its messages."""

    least_ns: int
    noted_ns: int

    def note(self, now_ns: int, publish_ns: int) -> int:
        """Return it, by a message that was published then and came now, and as clocks drift."""
        drifted_ns = self.least_ns + (now_ns - self.noted_ns) // DRIFT
        self.least_ns, self.noted_ns = min(now_ns - publish_ns, drifted_ns), now_ns
        return self.least_ns


@dataclass
class _Run:
    """A publisher's run: its last sequence, and the lead of the monotonic and the steady clock."""

    sequence: int
    lead: _Lead
    steady_lead: _Lead


class HeatmapSubscriber(AbstractContextManager[Any], Iterator[Any], AsyncIterator[Any]):
    """Keeps the newest heatmap of one publisher, received on a thread of its own.

    `endpoint` is tcp://ADDRESS:PORT, `keys` this client's key file; `tap` is called with each
    message, on the receiving thread; `camera` is the id of one of several. `gaps` counts messages
    that never came, `repeats` those that came late or again (they are no news), `restarts` new
    runs. `for` and `async for` give each newest message once, waiting 2 s for it, the latter
    without a thread.
    """

    _kind = "heat"
    _decode: Callable[[bytes], Any] = staticmethod(decode)

    def __init__(
        self, endpoint: str, keys: Path | str | None = None, tap: Any = None, camera: str = ""
    ) -> None:
        self.gaps = self.repeats = self.restarts = self._shift_ns = 0
        self._runs: dict[str, _Run] = {}
        self._endpoint, self._tap, self._unread = endpoint, tap, False
        topic = f"{self._kind}/{camera}".encode()  # whole, or another's id could begin with it
        self._topic = topic.ljust(32, b"\0") if camera else topic
        self._keys = read_keys(keys) if keys else None
        self._newest: Any = None
        self._failure: FeedError | None = None
        self._clock = clock_name()
        self._wakers: list[Callable[[], object]] = []  # of coroutines that wait
        self._changed, self._stop, self._context = Condition(), Event(), zmq.Context()
        self._thread = Thread(target=self._receive, daemon=True)
        self._thread.start()

    def read_latest(self, max_age_ms: float = 200.0, timeout_ms: float | None = None) -> Any:
        """Return the newest message, at most so old on return, or raise FeedStaleError.

        It waits for one until `timeout_ms`, by default as long as it may be old; 0 never waits, as
        loops of motors and executors need it.
        """
        wait_ms = max_age_ms if timeout_ms is None else timeout_ms
        return self._wait(wait_ms / 1000, lambda: self.age_ms(self._newest) <= max_age_ms)

    def __next__(self) -> Any:
        return self._wait(_SILENCE_S, lambda: self._unread)

    async def __anext__(self) -> Any:
        loop, woken, end_s = asyncio.get_running_loop(), asyncio.Event(), monotonic() + _SILENCE_S

        def wake() -> None:
            loop.call_soon_threadsafe(woken.set)

        with self._changed:
            self._wakers.append(wake)
        try:
            while True:
                woken.clear()
                left_s = end_s - monotonic()
                try:
                    return self._wait(0.0, lambda: self._unread)
                except FeedStaleError:
                    if left_s <= 0:
                        raise
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(woken.wait(), left_s)
        finally:
            with self._changed:
                self._wakers.remove(wake)

    def age_ms(self, message: Any) -> float:
        """Return how long ago the frame of a message of the present run was captured."""
        return float((monotonic_ns() - message.capture_ns - self._shift_ns) / 1e6)

    def close(self, *_: object) -> None:
        """Stop receiving; who reads on gets FeedError."""
        self._stop.set()
        self._thread.join()
        self._context.term()
        self._fail(FeedError(f"the subscriber of {self._endpoint} is closed"))

    __exit__ = close

    def _wait(self, timeout_s: float, enough: Callable[[], bool]) -> Any:
        with self._changed:
            self._changed.wait_for(lambda: self._failure or (self._newest and enough()), timeout_s)
            if self._failure:
                raise type(self._failure)(*self._failure.args)
            if not (self._newest and enough()):
                last = "no message yet: is a publisher running there?"
                if self._newest:
                    last = f"nothing in time; the newest is {self.age_ms(self._newest):.0f} ms old"
                raise FeedStaleError(f"{self._endpoint}: {last}")
            self._unread = False
            return self._newest

    def _receive(self) -> None:
        """Receive until closed. A refused connection is made anew: keys may be put right."""
        try:
            while not self._stop.wait(0.5 if self._failure else 0):
                socket, breaks = self._context.socket(zmq.SUB), 0
                with socket, socket.get_monitor_socket(_HANDSHAKE) as monitor:
                    self._connect(socket)
                    while not self._stop.is_set() and breaks < 2:
                        if socket.poll(50):
                            self._take(b"".join(socket.recv_multipart()))
                        if monitor.poll(0):
                            breaks = self._judge(recv_monitor_message(monitor), breaks)
        except Exception as error:  # noqa: BLE001
            self._fail(FeedError(f"cannot receive from {self._endpoint} ({error})"))

    def _connect(self, socket: Any) -> None:
        """Connect, after all options: later ones have no effect."""
        socket.linger, socket.rcvhwm, socket.maxmsgsize, socket.ipv6 = 0, 2, MESSAGE_BYTES_MAX, 1
        socket.reconnect_ivl, socket.heartbeat_ivl, socket.heartbeat_timeout = 100, 1000, 3000
        socket.connect_timeout = 2000  # the system's own waits double
        if self._keys:
            socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = self._keys
        socket.subscribe(self._topic)
        socket.connect(self._endpoint)

    def _take(self, data: bytes) -> None:
        try:
            message = self._decode(data)
        except FeedFormatError as error:
            self._fail(error)
            return
        with self._changed:
            if self._is_news(message):
                self._newest, self._unread = message, True
            self._failure = None
            self._notify()
        if self._tap:
            self._tap(message)

    def _is_news(self, message: Any) -> bool:
        """Return whether it is newer than the newest, and set the publisher's clock by it."""
        # In this order: a thread that is held up between them makes ages too high, not too low.
        now_ns, steady_ns = monotonic_ns(), _steady_ns()
        last, sequence, publish_ns = self._newest, message.sequence, message.publish_ns
        run = self._runs.pop(message.run, None)
        if run is None:
            leads = (_Lead(each_ns - publish_ns, each_ns) for each_ns in (now_ns, steady_ns))
            run = _Run(sequence - 1, *leads)
            self.restarts += bool(last)
        missed, run.sequence = sequence - run.sequence - 1, max(sequence, run.sequence)
        self.gaps += max(0, missed)
        self.repeats += missed < 0
        self._runs[message.run] = run
        if len(self._runs) > _RUNS_MAX:
            del self._runs[next(iter(self._runs))]
        # A clock that was made faster for a while leads by more, which the steady one tells.
        shift_ns = run.steady_lead.note(steady_ns, publish_ns) + now_ns - steady_ns
        shift_ns = max(run.lead.note(now_ns, publish_ns), shift_ns)
        if missed >= 0 or message.run == last.run:
            same_clock = message.header["host"] == self._clock != ""
            self._shift_ns = 0 if same_clock and publish_ns <= now_ns else shift_ns
        return bool(missed >= 0)

    def _judge(self, event: Any, breaks: int) -> int:
        """Return how often the handshake has broken off; 2 is a refusal, and its reason is kept."""
        kind, auth = event["event"], zmq.EVENT_HANDSHAKE_FAILED_AUTH
        if kind == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            return 0
        if kind == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL and not breaks:
            return 1
        situation = bool(self._keys), event["value"] if kind == auth else _security(self._endpoint)
        why = _REFUSALS.get(situation, "it breaks off the handshake")
        self._fail(FeedRefusedError(f"{self._endpoint} refused: {why}"))
        return 2

    def _fail(self, failure: FeedError) -> None:
        with self._changed:
            self._failure = failure
            self._notify()

    def _notify(self) -> None:
        self._changed.notify_all()
        for wake in self._wakers:
            with suppress(RuntimeError):  # its loop has ended
                wake()


class StatusSubscriber(HeatmapSubscriber):
    """Keeps the newest status of one publisher; reads as `HeatmapSubscriber` does."""

    _kind = "status"
    _decode = staticmethod(decode_status)
