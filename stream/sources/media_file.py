"""A file in; its frames and blocks of audio out, in the order in which they would be met live.

`media.reader` reads it. A frame comes at its own time, audio at the time of its last sample, as it
would from a device; a picture that stays on the screen is given again and again, as a camera that
looks at the screen would. Times are the file's own, counted from its start. Nothing here knows of
clocks or threads.

Axes: H W pixels, S samples, C channels.
"""

import dataclasses
import heapq
from collections.abc import Iterator
from pathlib import Path

from denseav.stream.errors import SourceError
from denseav.stream.media.errors import MediaError
from denseav.stream.media.reader import CUT_S, MediaReader
from denseav.stream.media.sound import Channel
from denseav.stream.types import AudioBlock, Frame

BLOCK_S = 0.05  # longer blocks of a file are cut, so that audio comes as evenly as from a device
HELD_S = 0.25  # a picture that stays longer is given again


class Clip:
    """A file with pictures and sound; every iteration reads it anew from its start.

    Only a few frames are in memory at once.

    Parameters
    ----------
    path : of the file.
    audio_track, channel : as in `MediaReader`.

    Attributes
    ----------
    name : the file's name.
    width, height : pixels of a frame.
    fps : frames per second, on average.
    duration_s : seconds, as the file declares; None when it does not.
    rate_hz : of the audio, which is one channel.

    Raises
    ------
    SourceError
        From the constructor or while iterating: the file is missing, is not media, lacks pictures
        or sound, is cut short, or has frames smaller than 16 or larger than 8192 pixels on a side.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        audio_track: str | None = None,
        channel: Channel | None = None,
    ) -> None:
        self.path = Path(path)
        self.name = self.path.name
        self._reader = MediaReader(self.path, audio_track=audio_track, channel=channel)
        self.duration_s, self.fps = self._inspect()
        frame = next(self._frames(), None)
        block = next(self._blocks(), None)
        if frame is None or block is None:
            lacking = "picture" if frame is None else "sound"
            raise SourceError(f"{self.name}: no {lacking} can be decoded; convert the file again")
        self.height, self.width = frame.image_HW3.shape[:2]
        self.rate_hz = block.rate_hz

    @property
    def mended(self) -> str:
        """What had to be mended so far, in words; empty while nothing had to."""
        return "; ".join(self._reader.mended)

    def __iter__(self) -> Iterator[Frame | AudioBlock]:
        return self.items()

    def items(self, frames_late_s: float = 0.0) -> Iterator[Frame | AudioBlock]:
        """Yield all of it by time; each frame only after the audio of so many seconds more."""

        def order(item: Frame | AudioBlock) -> float:
            return ready_s(item) + (frames_late_s if isinstance(item, Frame) else 0.0)

        end_s, index = 0.0, 0
        held: Frame | None = None
        streams: list[Iterator[Frame | AudioBlock]] = [self._blocks(), self._frames()]
        for item in heapq.merge(*streams, key=order):
            end_s = max(end_s, ready_s(item))
            while held is not None and order(held) + HELD_S < order(item):
                held = dataclasses.replace(held, index=index, capture_s=held.capture_s + HELD_S)
                index += 1
                yield held
            if isinstance(item, Frame):
                held = item = dataclasses.replace(item, index=index)
                index += 1
            yield item
        self._check_whole(end_s)

    def _inspect(self) -> tuple[float | None, float]:
        """Return the duration and the frame rate of a file that has all we need."""
        if not _is_file(self.path):
            raise SourceError(f"{self.path}: there is no such file; check the path")
        try:
            facts = self._reader.facts()
        except MediaError as error:
            raise SourceError(f"{error}; copy or convert it again") from None
        if not facts.has_pictures:
            raise SourceError(f"{self.name} has no picture; give a file with video")
        if not facts.has_sound:
            raise SourceError(f"{self.name} has no sound; give a file with sound")
        return facts.duration_s, facts.fps

    def _frames(self) -> Iterator[Frame]:
        try:
            for index, picture in enumerate(self._reader.pictures()):
                yield Frame(picture.shown("bgr24"), index, picture.time_s)
        except MediaError as error:
            raise SourceError(f"{error}; convert the file again") from None

    def _blocks(self) -> Iterator[AudioBlock]:
        try:
            for sound in self._reader.sound():
                size = round(BLOCK_S * sound.rate_hz)
                for at in range(0, len(sound.samples_S), size):
                    first = sound.first_sample + at
                    part_SC = sound.samples_S[at : at + size, None]
                    yield AudioBlock(part_SC, sound.rate_hz, first, first / sound.rate_hz)
        except MediaError as error:
            raise SourceError(f"{error}; convert the file again") from None

    def _check_whole(self, end_s: float) -> None:
        short, declared_s = self._reader.cut_short, self.duration_s
        if self._reader.clock_moved:
            declared_s = None
        if short is None and declared_s is not None and end_s < declared_s - CUT_S:
            short = f"it ends after {end_s:.1f} of {declared_s:.1f} s"
        if short is not None:
            raise SourceError(f"{self.name} is cut short: {short}; copy or convert it again")


def ready_s(item: Frame | AudioBlock) -> float:
    """Return when a device would hand this over: a frame at once, audio when it is complete."""
    return item.capture_s if isinstance(item, Frame) else item.end_s


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # too long a name, or a folder that may not be looked into
        return False
