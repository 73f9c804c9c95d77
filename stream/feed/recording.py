"""Recordings of a feed: the very bytes of messages in, a file out; and the same in reverse.

A file is MCAP, which Foxglove and Rerun open. Beside each message, whose channel has the encoding
`denseav-feed` and whose log time has its spacing, are views of it for people. Each message is in
the file once `add` has returned: what a kill or a power cut leaves is a recording up to there.
Recordings of before, which begin with DNAVREC1, are read as well.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from time import monotonic_ns, time_ns
from typing import BinaryIO

from mcap.records import Channel, Message
from mcap.writer import CompressionType, Writer

from denseav.stream.errors import OutputError, SourceError
from denseav.stream.feed.client import MESSAGE_BYTES_MAX, FeedFormatError, HeatMessage, decode
from denseav.stream.feed.foxglove_views import View, views
from denseav.stream.sources.mcap_records import MCAP_MAGIC, is_finished, mcap_records

ENCODING = "denseav-feed"
_OLD_MAGIC = b"DNAVREC1"
_COUNT, _RECORD = struct.Struct("<Q"), struct.Struct("<QI")
_CAMERAS_MAX = 64
_RUNS_MAX = 64  # a camera of a feed is one
_CHANNELS_MAX = 64  # a publisher may call its heads something else in each message


class Recording:
    """A recording being written. Call everything from one thread at a time, but `sync`.

    Parameters
    ----------
    path : the file to make; it must not exist yet.

    Raises
    ------
    OutputError
        When the file cannot be made.

    Attributes
    ----------
    count, gaps : messages that were kept, and that never came, of all cameras.
    """

    def __init__(self, path: Path) -> None:
        self.count = self.gaps = 0
        self._path = path
        self._sequences: dict[str, int] = {}  # the newest of each run
        self._channels: dict[str, int] = {}
        self._unix_offset_ns = time_ns() - monotonic_ns()
        try:
            self._file = path.open("xb", buffering=0)
        except FileExistsError:
            raise OutputError(f"{path} exists already; choose another name or delete it") from None
        except OSError as error:
            raise _cannot_record(path, error) from None
        self._sink = _Sink(self._file)
        # Each message is a chunk: written at once, and found by its index without reading all.
        self._writer = Writer(self._sink, chunk_size=1, compression=CompressionType.NONE)  # type: ignore[arg-type]
        try:
            self._writer.start(library="denseav")
        except OSError as error:
            self._give_up()
            raise _cannot_record(path, error) from None

    def add(self, message: HeatMessage) -> None:
        """Keep one message, with the time at which it came, and what is to be seen of it.

        Raises
        ------
        OutputError
            When it cannot be written. The messages before it are kept.
        """
        whole = self._sink.count
        try:
            for topic, view in views(message):
                self._add_view(topic, view, message)
            self._write(self._channel(f"/{message.header['camera']}"), message.data, message)
        except OSError as error:
            self._cut(whole)
            kept = f"its first {self.count} messages are kept" if self.count else "nothing is kept"
            raise OutputError(
                f"cannot go on recording {self._path} ({error.strerror}); {kept}; make space"
            ) from None
        self.count += 1
        last = self._sequences.get(message.run, message.sequence - 1)
        self.gaps += max(0, message.sequence - last - 1)
        self._note_sequence(message.run, max(last, message.sequence))

    def sync(self) -> None:
        """Let what was added survive a power cut. It may take a while; call it from any thread."""
        with suppress(OSError, ValueError):  # what cannot be written, `add` says
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write the index and close the file; without a message there is none.

        May be called twice.

        Raises
        ------
        OutputError
            When the index cannot be written; the messages are kept.
        """
        if self._file.closed:
            return
        whole = self._sink.count
        try:
            self._writer.finish()  # type: ignore[no-untyped-call]
        except OSError as error:
            self._cut(whole)
            raise OutputError(f"cannot finish {self._path} ({error.strerror})") from None
        self._give_up()

    def _note_sequence(self, run: str, sequence: int) -> None:
        """Note the newest of a run; of a feed that begins again and again, the last runs'."""
        self._sequences[run] = sequence
        if len(self._sequences) > _RUNS_MAX:
            del self._sequences[next(iter(self._sequences))]

    def _channel(self, topic: str, schema_id: int = 0, encoding: str = ENCODING) -> int:
        if topic not in self._channels:
            self._channels[topic] = self._writer.register_channel(topic, encoding, schema_id)
        return self._channels[topic]

    def _add_view(self, topic: str, view: View, message: HeatMessage) -> None:
        if topic not in self._channels:
            if len(self._channels) >= _CHANNELS_MAX:
                return
            schema = type(view).get_schema()
            schema_id = self._writer.register_schema(schema.name, schema.encoding, schema.data)
            self._channel(topic, schema_id, "protobuf")
        self._write(self._channels[topic], view.encode(), message)

    def _write(self, channel: int, data: bytes, message: HeatMessage) -> None:
        publish_ns = max(0, message.publish_ns + message.header["unix_offset_ns"])
        now_ns = monotonic_ns() + self._unix_offset_ns
        self._writer.add_message(channel, now_ns, data, publish_ns, message.sequence & 0xFFFFFFFF)

    def _cut(self, length: int) -> None:
        """Close the file with nothing half-written at its end."""
        with suppress(OSError):
            self._file.truncate(length)
        self._give_up()

    def _give_up(self) -> None:
        with suppress(OSError):
            self._file.close()
        if not self.count:
            self._path.unlink(missing_ok=True)


class _Sink:
    """A file without a buffer, all of what is given to it written at once."""

    def __init__(self, file: FileIO) -> None:
        self.count = 0
        self._file = file

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self.count += len(data)
        return len(data)

    def tell(self) -> int:
        return self.count


@dataclass(frozen=True)
class Contents:
    """What is in a recording; not `finished` is one that a kill or a power cut ended.

    `firsts` are the first message of each camera.
    """

    firsts: Sequence[HeatMessage]
    count: int
    finished: bool


def check_whole(path: Path) -> Contents:
    """Read all messages of a recording.

    Raises
    ------
    SourceError
        When the file cannot be read, or what is in it are not all messages.
    """
    firsts: dict[str, HeatMessage] = {}
    index = -1
    for index, (_, message) in enumerate(messages(path)):
        try:
            decoded = decode(message)
        except FeedFormatError as error:
            raise SourceError(f"{path}: message {index} is damaged ({error})") from None
        firsts.setdefault(str(decoded.header["camera"]), decoded)
        if len(firsts) > _CAMERAS_MAX:
            raise SourceError(f"{path} holds more than {_CAMERAS_MAX} cameras; record fewer")
    if not firsts:
        raise SourceError(f"{path} holds no message; record it again")
    with path.open("rb") as file:
        finished = file.read(len(MCAP_MAGIC)) != MCAP_MAGIC or is_finished(file)
    return Contents(list(firsts.values()), index + 1, finished)


def messages(path: Path) -> Iterator[tuple[float, bytes]]:
    """Yield each message with its seconds since the first.

    Raises
    ------
    SourceError
        When the file cannot be read, is no recording, or is damaged.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(len(_OLD_MAGIC))
            if magic == _OLD_MAGIC:
                yield from _old_messages(file, path)
            elif magic == MCAP_MAGIC:
                file.seek(0)
                yield from _mcap_messages(file, path)
            else:
                raise SourceError(f"{path} is no recording of a feed; name one made by record")
    except OSError as error:
        raise SourceError(f"cannot read {path} ({error.strerror})") from None


def _mcap_messages(file: BinaryIO, path: Path) -> Iterator[tuple[float, bytes]]:
    ours: set[int] = set()
    first_ns = count = 0
    for record in mcap_records(file, path):
        if isinstance(record, Channel) and record.message_encoding == ENCODING:
            ours.add(record.id)
        elif isinstance(record, Message) and record.channel_id in ours:
            first_ns = first_ns if count else record.log_time
            count += 1
            yield max(0, record.log_time - first_ns) / 1e9, record.data


def _old_messages(file: BinaryIO, path: Path) -> Iterator[tuple[float, bytes]]:
    """After the magic: how many there are, and for each its nanoseconds, length and bytes."""
    start = file.read(_COUNT.size)
    if len(start) != _COUNT.size:
        raise SourceError(f"{path} is no recording of a feed; name one made by record")
    (count,) = _COUNT.unpack(start)
    for index in range(count):
        record = file.read(_RECORD.size)
        time_ns, length = _RECORD.unpack(record) if len(record) == _RECORD.size else (0, 0)
        message = file.read(length) if 0 < length <= MESSAGE_BYTES_MAX else b""
        if not message or len(message) != length:
            raise SourceError(
                f"{path} is cut short or damaged after {index} whole messages; "
                "copy or record it again"
            )
        yield time_ns / 1e9, message
    if file.read(1):
        raise SourceError(f"{path} goes on after its last message; copy or record it again")


def _cannot_record(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot record to {path} ({error.strerror}); choose a folder that can be written"
    )
