"""What flows live: small, frozen, each carrying its capture time on one monotonic clock.

Times are seconds of `time.monotonic()` (for a file read offline: seconds of the file).
Axes: H W pixels, S samples, C channels, K heads.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from denseav.stream.errors import SourceError


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture. `image_HW3` is uint8, blue-green-red as OpenCV has it; never written to.

    `index` counts the frames of its camera, and `camera` says which of a run's cameras that is.
    `missed` is how many before it came faster than they could be decoded, and were left out.
    """

    image_HW3: NDArray[np.uint8]
    index: int
    capture_s: float
    camera: int = 0
    missed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class AudioBlock:
    """Some sound.

    `samples_SC` is float32 in [-1, 1]; `first_sample` counts at `rate_hz` from the source's
    start, so that a jump in it is a gap; `capture_s` is the time of the first sample.
    `microphone` says which of a run's it is: 0 where cameras share one, else its camera's number.
    """

    samples_SC: NDArray[np.float32]
    rate_hz: int
    first_sample: int
    capture_s: float
    microphone: int = 0

    @property
    def end_s(self) -> float:
        """The time just after the last sample."""
        return self.capture_s + len(self.samples_SC) / self.rate_hz


@dataclass(frozen=True, slots=True, eq=False)
class Heatmap:
    """One frame's answer: for each head, the raw similarity over the feature grid.

    `heat_KHW` is float32; `valid_K` says which heads mean something, as `inference.validity`
    decides (none without audio, or in silence); `audio_start_s` and `audio_end_s` bound the token
    used, None before any audio was encoded. `rms_dbfs` is the loudness of that token, and
    `ready_s` when the heatmap was done. `features_KCHW` are the picture's dense features, where a
    view wants them.
    """

    frame: Frame
    heat_KHW: NDArray[np.float32]
    valid_K: tuple[bool, ...]
    audio_start_s: float | None
    audio_end_s: float | None
    rms_dbfs: float
    ready_s: float
    features_KCHW: NDArray[np.float32] | None = None

    @property
    def skew_s(self) -> float | None:
        """How much later the sound used ends than the picture was captured; None before any."""
        return None if self.audio_end_s is None else self.audio_end_s - self.frame.capture_s


class Film(Protocol):
    """Frames and audio that are there already: a file, a recording, arrays.

    Attributes
    ----------
    name : what people read.
    fps : frames a second, on average.
    rate_hz : of the audio.
    """

    name: str
    fps: float
    rate_hz: int

    def __iter__(self) -> Iterator[Frame | AudioBlock]:
        """Yield all of it by time, from its start."""

    def items(self, frames_late_s: float = 0.0) -> Iterator[Frame | AudioBlock]:
        """Yield all of it by time; each frame only after the audio of so many seconds more."""


class Receiver(Protocol):
    """Who a source talks to. Called on the source's own threads; never blocks."""

    def frame(self, frame: Frame) -> None:
        """Take one picture."""

    def audio(self, block: AudioBlock) -> None:
        """Take some sound."""

    def ended(self, error: SourceError | None) -> None:
        """Take note that the source gives no more: at its end (None) or because it failed."""


class Source(Protocol):
    """Where pictures or sound enter. Opening happens in the constructor, and raises SourceError.

    Attributes
    ----------
    name : what people read: the device or file, never a password.
    """

    name: str

    def start(self, receiver: Receiver) -> None:
        """Begin to call the receiver, on a thread of the source's own."""

    def stop(self) -> None:
        """Stop within two seconds and release the device. May be called twice."""
