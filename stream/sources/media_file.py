"""A file in; its frames and blocks of sound out, in the order in which they would be met live.

Any file that FFmpeg decodes will do. A frame comes at its own time, sound at the time of its last
sample, as it would from a device. Times are the file's own, counted from its start. Nothing here
knows of clocks or threads.

Axes: H W pixels, S samples, C channels.
"""

import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from numpy.typing import NDArray

from denseav.stream.errors import SourceError
from denseav.stream.types import AudioBlock, Frame

Kind = Literal["video", "audio"]

SMALLEST_SIDE = 16
LARGEST_SIDE = 8192
BLOCK_S = 0.05  # longer blocks of a file are cut, so that sound comes as evenly as from a device
GAP_S = 0.05  # time stamps of sound that disagree less with the sample count are only rounded
CUT_S = 1.0  # a file that ends so long before its declared end was cut short


class Clip:
    """A file with pictures and sound; every iteration reads it anew from its start.

    Frames are turned upright where the file says how. Only a few frames are in memory at once.

    Attributes
    ----------
    name : the file's name.
    width, height : pixels of an upright frame.
    fps : frames per second, on average.
    duration_s : seconds, as the file declares; None when it does not.
    rate_hz, channels : of the sound.

    Raises
    ------
    SourceError
        From the constructor or while iterating: the file is missing, is not media, lacks pictures
        or sound, is cut short or damaged, holds samples that are not numbers, or frames smaller
        than 16 or larger than 8192 pixels on a side.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = self.path.name
        self.duration_s, self.fps = self._inspect()
        frame = next(self._frames(), None)
        block = next(self._blocks(), None)
        if frame is None or block is None:
            lacking = "picture" if frame is None else "sound"
            raise SourceError(f"{self.name}: no {lacking} can be decoded; convert the file again")
        self.height, self.width = frame.image_HW3.shape[:2]
        self.rate_hz, self.channels = block.rate_hz, block.samples_SC.shape[1]

    def __iter__(self) -> Iterator[Frame | AudioBlock]:
        return self.items()

    def items(self, frames_late_s: float = 0.0) -> Iterator[Frame | AudioBlock]:
        """Yield all of it by time; each frame only after the sound of so many seconds more."""

        def order(item: Frame | AudioBlock) -> float:
            return ready_s(item) + (frames_late_s if isinstance(item, Frame) else 0.0)

        end_s = 0.0
        streams: list[Iterator[Frame | AudioBlock]] = [self._blocks(), self._frames()]
        for item in heapq.merge(*streams, key=order):
            end_s = max(end_s, ready_s(item))
            yield item
        self._check_whole(end_s, self.duration_s)

    def _inspect(self) -> tuple[float | None, float]:
        """Return the duration and the frame rate of a file that has all we need."""
        if not _is_file(self.path):
            raise SourceError(f"{self.path}: there is no such file; check the path")
        try:
            with av.open(str(self.path)) as container:
                pictures = _stream(container, "video")
                if pictures is None:
                    raise SourceError(f"{self.name} has no picture; give a file with video")
                if _stream(container, "audio") is None:
                    raise SourceError(f"{self.name} has no sound; give a file with sound")
                fps = pictures.average_rate or pictures.guessed_rate or 25
                duration = container.duration
        except av.FFmpegError as error:
            raise SourceError(
                f"{self.name} is not a media file, or is damaged or cut short "
                f"({error.strerror}); copy or convert it again"
            ) from None
        return duration / av.time_base if duration else None, float(fps)

    def _frames(self) -> Iterator[Frame]:
        last_s = -np.inf
        for index, (frame, time_s) in enumerate(self._decoded("video")):
            if not all(
                SMALLEST_SIDE <= side <= LARGEST_SIDE for side in (frame.width, frame.height)
            ):
                raise SourceError(
                    f"{self.name}: pictures of {frame.width}x{frame.height} are not between "
                    f"{SMALLEST_SIDE} and {LARGEST_SIDE} pixels on a side; scale the file first"
                )
            # Some old files stamp frames not at all, or out of order.
            if time_s is None or time_s <= last_s:
                time_s = max(0.0, last_s + 1 / self.fps)
            last_s = time_s
            yield Frame(_upright(frame), index, time_s)

    def _blocks(self) -> Iterator[AudioBlock]:
        start_s, next_sample, rate_hz = None, 0, 0
        for frame, time_s in self._decoded("audio"):
            if frame.sample_rate != rate_hz:
                next_sample = round(next_sample * frame.sample_rate / rate_hz) if rate_hz else 0
                rate_hz = frame.sample_rate
            if start_s is None:
                start_s = time_s or 0.0
            expected_s = start_s + next_sample / rate_hz
            late_s = 0.0 if time_s is None else time_s - expected_s
            samples_SC = self._samples(frame, expected_s)
            if late_s > GAP_S:
                next_sample += round(late_s * rate_hz)
            elif late_s < -GAP_S:
                samples_SC = samples_SC[round(-late_s * rate_hz) :]
            size = round(BLOCK_S * rate_hz)
            for at in range(0, len(samples_SC), size):
                first = next_sample + at
                part_SC = samples_SC[at : at + size]
                yield AudioBlock(part_SC, rate_hz, first, start_s + first / rate_hz)
            next_sample += len(samples_SC)

    def _samples(self, frame: av.AudioFrame, time_s: float) -> NDArray[np.float32]:
        samples_SC = _float_samples(frame)
        if not np.isfinite(samples_SC).all():
            raise SourceError(
                f"{self.name}: the sound at {time_s:.2f} s is not a number; "
                "export the file again with 16-bit sound"
            )
        return samples_SC

    def _decoded(self, kind: Kind) -> Iterator[tuple[Any, float | None]]:
        """Yield what one stream decodes to, with its time.

        Each stream has its own reader, so that a file that stores the two far apart needs no
        memory for what lies between.
        """
        reached_s = 0.0
        try:
            with av.open(str(self.path)) as container:
                stream = _stream(container, kind)
                stream.thread_type = "AUTO"
                start_s = (container.start_time or 0) / av.time_base
                for frame in container.decode(stream):
                    time_s = None if frame.time is None else frame.time - start_s
                    span_s = float((frame.duration or 0) * (frame.time_base or 0))
                    reached_s = reached_s + span_s if time_s is None else time_s + span_s
                    yield frame, time_s
                whole_s = float(stream.duration * stream.time_base) if stream.duration else None
        except av.FFmpegError as error:
            raise SourceError(
                f"{self.name} is damaged or cut short after {reached_s:.1f} s ({error.strerror}); "
                "copy or convert it again"
            ) from None
        self._check_whole(reached_s, whole_s)

    def _check_whole(self, end_s: float, declared_s: float | None) -> None:
        if declared_s is not None and end_s < declared_s - CUT_S:
            raise SourceError(
                f"{self.name} is cut short: it ends after {end_s:.1f} of {declared_s:.1f} s; "
                "copy or convert it again"
            )


def ready_s(item: Frame | AudioBlock) -> float:
    """Return when a device would hand this over: a frame at once, sound when it is complete."""
    return item.capture_s if isinstance(item, Frame) else item.end_s


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # too long a name, or a folder that may not be looked into
        return False


def _stream(container: InputContainer, kind: Kind) -> Any:
    """Return the first stream of this kind that can be decoded and is no cover, or None."""
    streams: Any = container.streams.video if kind == "video" else container.streams.audio
    cover = Disposition.attached_pic
    usable = (s for s in streams if s.codec_context is not None and not s.disposition & cover)
    return next(usable, None)


def _upright(frame: av.VideoFrame) -> NDArray[np.uint8]:
    image_HW3 = np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
    quarter_turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image_HW3, quarter_turns)) if quarter_turns else image_HW3


def _float_samples(frame: av.AudioFrame) -> NDArray[np.float32]:
    array: NDArray[Any] = frame.to_ndarray()
    samples_SC = array.T if frame.format.is_planar else array.reshape(-1, frame.layout.nb_channels)
    with np.errstate(over="ignore"):
        float_SC = np.ascontiguousarray(samples_SC, np.float32)
    if array.dtype == np.uint8:
        return (float_SC - 128) / np.float32(128)
    if np.issubdtype(array.dtype, np.integer):
        return float_SC / np.float32(2 ** (8 * array.dtype.itemsize - 1))
    return float_SC
