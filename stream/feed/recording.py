"""The very bytes of a feed enter a file, and leave it again with their spacing in time.

    8 bytes   "DNAVREC1"
    8 bytes   how many messages follow
    and for each: 8 bytes nanoseconds since the first, 4 bytes length, the message

All little-endian. The file has another name until it is whole.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from time import monotonic, monotonic_ns, sleep
from typing import BinaryIO

from denseav.stream.errors import OutputError, SourceError
from denseav.stream.feed.client import MESSAGE_BYTES_MAX, FeedFormatError, HeatMessage, decode
from denseav.stream.feed.message import Envelope
from denseav.stream.feed.sockets import FeedSockets

_MAGIC = b"DNAVREC1"
_COUNT, _RECORD = struct.Struct("<Q"), struct.Struct("<QI")
_START = len(_MAGIC) + _COUNT.size
_STATUS_S = 0.5
_STEP_S = 0.02


class Recording:
    """A recording being written. Call everything from one thread at a time.

    Parameters
    ----------
    path : the file to make; it must not exist yet.

    Raises
    ------
    OutputError
        When the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        if path.exists():
            raise OutputError(f"{path} exists already; choose another name or delete it")
        self.count = 0
        self._path = path
        self._part = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._first_ns: int | None = None
        self._whole = _START
        try:
            # Unbuffered, so that a full disk is met in `add` and never at closing.
            self._file = self._part.open("xb", buffering=0)
            _write(self._file, _MAGIC + _COUNT.pack(0))
        except OSError as error:
            self._part.unlink(missing_ok=True)
            raise OutputError(
                f"cannot record to {path} ({error.strerror}); choose a folder that can be written"
            ) from None

    def add(self, message: bytes) -> None:
        """Keep one message, with the time since the first.

        Raises
        ------
        OutputError
            When it cannot be written. The messages before it are kept, as a whole recording.
        """
        now_ns = monotonic_ns()
        self._first_ns = now_ns if self._first_ns is None else self._first_ns
        try:
            _write(self._file, _RECORD.pack(now_ns - self._first_ns, len(message)) + message)
        except OSError as error:
            self.close()
            kept = f"its first {self.count} messages are kept" if self.count else "nothing is kept"
            raise OutputError(
                f"cannot go on recording {self._path} ({error.strerror}); {kept}; make space"
            ) from None
        self._whole += _RECORD.size + len(message)
        self.count += 1

    def close(self) -> None:
        """Give the file its name; without a message there is none. May be called twice.

        Raises
        ------
        OutputError
            When the file cannot be finished.
        """
        if self._file.closed:
            return
        try:
            self._file.truncate(self._whole)
            self._file.seek(len(_MAGIC))
            _write(self._file, _COUNT.pack(self.count))
            self._file.close()
            if self.count:
                self._part.replace(self._path)
        except OSError as error:
            raise OutputError(f"cannot finish {self._path} ({error.strerror})") from None
        finally:
            with suppress(OSError):
                self._file.close()
            self._part.unlink(missing_ok=True)


def messages(path: Path) -> Iterator[tuple[float, bytes]]:
    """Yield each message with its seconds since the first.

    Raises
    ------
    SourceError
        When the file cannot be read, is no recording, or is cut short.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_START)
            if len(start) != _START or not start.startswith(_MAGIC):
                raise SourceError(f"{path} is no recording of a feed; name one made by record")
            (count,) = _COUNT.unpack_from(start, len(_MAGIC))
            for index in range(count):
                yield _read_one(file, path, index)
            if file.read(1):
                raise SourceError(f"{path} goes on after its last message; copy or record it again")
    except OSError as error:
        raise SourceError(f"cannot read {path} ({error.strerror})") from None


def replay(path: Path, first: HeatMessage, sockets: FeedSockets) -> int:
    """Wait for a subscriber, then send every message as it was; return how many.

    Meanwhile the status says that this is a replay.

    Parameters
    ----------
    first : from `check_whole`, which has to come before.

    Raises
    ------
    StreamError
        When the recording cannot be read, or keys can no longer be checked.
    """
    status = Envelope("status", first.header["camera"], bytes.fromhex(first.run))
    status_s, sent = monotonic(), 0

    def step(until_s: float) -> None:
        """Serve subscriptions and the status, and sleep, but not beyond a time."""
        nonlocal status_s
        sockets.look()
        if monotonic() >= status_s:
            status_s = monotonic() + _STATUS_S
            sockets.send_status(status.seal(_status_fields(sent, sockets.subscribers), None))
        sleep(max(0.0, min(_STEP_S, until_s - monotonic())))

    while not sockets.subscribers:
        step(monotonic() + _STEP_S)
    begin_s = monotonic()
    for time_s, message in messages(path):
        while monotonic() < begin_s + time_s:
            step(begin_s + time_s)
        sockets.send_heat(message)
        sent += 1
    end_s = monotonic() + _STATUS_S
    while monotonic() < end_s:
        step(end_s)
    return sent


def check_whole(path: Path) -> HeatMessage:
    """Read all messages of a recording and return the first.

    Raises
    ------
    SourceError
        When the file cannot be read, or what is in it are not all messages.
    """
    first = None
    for index, (_, message) in enumerate(messages(path)):
        try:
            decoded = decode(message)
        except FeedFormatError as error:
            raise SourceError(f"{path}: message {index} is damaged ({error})") from None
        first = first or decoded
    if first is None:
        raise SourceError(f"{path} holds no message; record it again")
    return first


def _status_fields(sent: int, subscribers: int) -> dict[str, object]:
    fields: dict[str, object] = {"state": "replay", "health": "unusable", "replay": True}
    return fields | {"published": sent, "subscribers": subscribers}


def _read_one(file: BinaryIO, path: Path, index: int) -> tuple[float, bytes]:
    record = file.read(_RECORD.size)
    time_ns, length = _RECORD.unpack(record) if len(record) == _RECORD.size else (0, 0)
    message = file.read(length) if 0 < length <= MESSAGE_BYTES_MAX else b""
    if not message or len(message) != length:
        raise SourceError(
            f"{path} is cut short or damaged after {index} whole messages; copy or record it again"
        )
    return time_ns / 1e9, message


def _write(file: FileIO, data: bytes) -> None:
    """Write all of it: an unbuffered file may take less at a time."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
