"""A recorded run played again: an MCAP file by `recording.mcap_recorder` in, a `Film` out.

Frames and audio alone are read; heat is computed anew. A recording that a kill ended is read up to
there. The file comes from outside: lengths are checked before anything is allocated.

Axes: H W pixels, S samples, C channels.
"""

import heapq
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mcap.records import Channel, Message
from numpy.typing import NDArray

from denseav.export.process_limits import patiently
from denseav.export.terminal_text import safe_text
from denseav.stream.errors import SourceError
from denseav.stream.media.picture import LARGEST_SIDE, SMALLEST_SIDE
from denseav.stream.sources.mcap_records import mcap_records
from denseav.stream.sources.media_file import ready_s
from denseav.stream.types import AudioBlock, Frame

SUFFIX = ".mcap"
CAMERA, FRAME, AUDIO, BLOCK = "/camera", "/frame", "/audio", "/audio/block"
FRAME_ID = "camera"
RATE_HZ_MAX, CHANNELS_MAX = 384_000, 64
_RECORDS_MAX = 1_000  # of which channels are looked for
_FPS_FRAMES = 30  # their spacing is the rate
_JPEG_DATA, _PCM_DATA, _PCM_RATE, _PCM_CHANNELS = 2, 2, 4, 5  # fields of Foxglove's messages
_FIXED_BYTES = {1: 8, 5: 4}  # by protobuf's kinds of field
_DAMAGE = (LookupError, TypeError, ValueError, cv2.error)


class RecordedRun:
    """The frames and the audio of a run; every iteration reads the file anew.

    Attributes
    ----------
    name : the file's name.
    fps : frames a second at its start.
    rate_hz : of the audio at its start.

    Raises
    ------
    SourceError
        From the constructor or while iterating: the file is missing, is no recording of a run, is
        damaged, or holds no frame or no audio.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        first, _ = next(self._messages(CAMERA), (None, ""))
        block = next(self._recorded_audio(0), None)
        if first is None and self._cameras():
            raise SourceError(
                f"{self.name} holds several cameras ({', '.join(self._cameras())}), and is played "
                "by Foxglove or Rerun; record a camera by itself to play it here"
            )
        if first is None or block is None:
            lacking = "pictures" if first is None else "audio"
            raise SourceError(f"{self.name} holds no {lacking} of a run; record it again")
        self._start_ns = min(first.log_time, round(1e9 * block.capture_s))
        self.rate_hz, self.fps = block.rate_hz, self._fps()

    def __iter__(self) -> Iterator[Frame | AudioBlock]:
        return self.items()

    def items(self, frames_late_s: float = 0.0) -> Iterator[Frame | AudioBlock]:
        """As `Film.items`."""

        def order(item: Frame | AudioBlock) -> float:
            return ready_s(item) + (frames_late_s if isinstance(item, Frame) else 0.0)

        audio, frames = self._recorded_audio(self._start_ns), self._frames()
        return heapq.merge(audio, frames, key=order)

    def _frames(self) -> Iterator[Frame]:
        for index, (message, _) in enumerate(self._messages(CAMERA)):
            capture_s = (message.log_time - self._start_ns) / 1e9
            yield Frame(self._checked(_picture, message), index, capture_s)

    def _recorded_audio(self, start_ns: int) -> Iterator[AudioBlock]:
        first_sample: int | None = None
        for message, topic in self._messages(BLOCK, AUDIO):
            if topic == BLOCK:
                first_sample = self._checked(_first_sample, message)
            elif first_sample is not None:
                samples_SC, rate_hz = self._checked(_samples, message)
                capture_s = (message.log_time - start_ns) / 1e9
                yield AudioBlock(samples_SC, rate_hz, first_sample, capture_s)
                first_sample = None

    def _cameras(self) -> list[str]:
        """Return the names of several cameras, as far as a second of records has them."""
        with self.path.open("rb") as file:
            channels = islice(mcap_records(file, self.path), _RECORDS_MAX)
            topics = (record.topic for record in channels if isinstance(record, Channel))
            return sorted({safe_text(t[1 : -len(CAMERA)]) for t in topics if t.endswith(CAMERA)})

    def _fps(self) -> float:
        times_ns = [message.log_time for message, _ in islice(self._messages(CAMERA), _FPS_FRAMES)]
        spacing_ns = np.median(np.diff(times_ns)) if len(times_ns) > 1 else 1e9 / 30
        return float(1e9 / max(spacing_ns, 1e6))

    def _messages(self, *topics: str) -> Iterator[tuple[Message, str]]:
        """Yield the messages of some topics, in the order of the file, with their topic."""
        channels: dict[int, str] = {}
        try:
            with patiently(lambda: self.path.open("rb")) as file:
                for record in mcap_records(file, self.path):
                    if isinstance(record, Channel) and record.topic in topics:
                        channels[record.id] = record.topic
                    elif isinstance(record, Message) and record.channel_id in channels:
                        yield record, channels[record.channel_id]
        except OSError as error:
            raise SourceError(
                f"{self.path} cannot be read ({error.strerror}); check the path"
            ) from None

    def _checked(self, decode: Any, message: Message) -> Any:
        try:
            return decode(message.data)
        except _DAMAGE as error:
            raise SourceError(
                f"{self.name} is damaged ({error!s:.99}); copy or record it again"
            ) from None


def _picture(data: bytes) -> NDArray[np.uint8]:
    jpeg = _fields(data)[_JPEG_DATA]
    width, height = _jpeg_size(jpeg)
    if not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in (width, height)):
        raise ValueError(f"a picture of {width}x{height}")
    image_HW3 = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if image_HW3 is None or image_HW3.shape != (height, width, 3):
        raise ValueError("a picture that cannot be decoded")
    return np.asarray(image_HW3, np.uint8)


def _first_sample(data: bytes) -> int:
    first_sample = json.loads(data)["first_sample"]
    if not isinstance(first_sample, int) or not 0 <= first_sample < 1 << 62:
        raise ValueError("audio from no known sample on")
    return first_sample


def _samples(data: bytes) -> tuple[NDArray[np.float32], int]:
    fields = _fields(data)
    rate_hz, channels = fields[_PCM_RATE], fields[_PCM_CHANNELS]
    if not (0 < rate_hz <= RATE_HZ_MAX and 0 < channels <= CHANNELS_MAX):
        raise ValueError(f"audio of {rate_hz} samples a second and {channels} channels")
    pcm_SC = np.frombuffer(fields[_PCM_DATA], "<i2").reshape(-1, channels)
    return pcm_SC.astype(np.float32) / np.float32(2**15), rate_hz


def _fields(data: bytes) -> dict[int, Any]:
    """Return a protobuf message's fields by their numbers: numbers, or bytes as they are."""
    fields: dict[int, Any] = {}
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            fields[number], at = _varint(data, at)
            continue
        length, at = _varint(data, at) if kind == 2 else (_FIXED_BYTES[kind], at)
        end = at + length
        if end > len(data):
            raise ValueError("a message that is not whole")
        part = data[at:end]
        fields[number], at = part if kind == 2 else int.from_bytes(part, "little"), end
    return fields


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number that does not end")


def _jpeg_size(jpeg: bytes) -> tuple[int, int]:
    """Return width and height as the header says, before anything is allocated for them."""
    at = 2
    while jpeg[at] == 0xFF:
        marker, length = jpeg[at + 1], int.from_bytes(jpeg[at + 2 : at + 4])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = jpeg[at + 5 : at + 7], jpeg[at + 7 : at + 9]
            return int.from_bytes(width), int.from_bytes(height)
        at += 2 + length
    raise ValueError("a picture that is no JPEG")
