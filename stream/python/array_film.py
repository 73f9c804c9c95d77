"""Frames and audio of another program's: arrays in, a `Film` out, which plays as a file does.

Axes: N frames, H W pixels, S samples, C channels.
"""

import heapq
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from denseav.stream.errors import UsageError
from denseav.stream.media.picture import LARGEST_SIDE, SMALLEST_SIDE
from denseav.stream.sources.media_file import BLOCK_S, ready_s
from denseav.stream.types import AudioBlock, Frame

RATE_HZ_MIN, RATE_HZ_MAX = 4_000, 384_000  # what devices and files have


class ArrayFilm:
    """Frames and audio in memory; frames may also come one by one.

    Parameters
    ----------
    images : uint8 `[N, H, W, 3]`, or anything that yields uint8 `[H, W, 3]`, blue-green-red.
    fps : frames a second.
    audio : float32 in [-1, 1] or int16, `[S]` or `[S, C]`.
    rate_hz : its samples a second.

    Raises
    ------
    UsageError
        When one of them is missing or not so; a frame that is not, while it is read.
    """

    name = "arrays"

    def __init__(
        self,
        images: Iterable[NDArray[np.uint8]],
        *,
        fps: float | None,
        audio: NDArray[Any] | None,
        rate_hz: int | None,
    ) -> None:
        if not isinstance(fps, int | float) or not 0 < fps < 1000:
            raise UsageError(f"images need their fps, a number of frames a second, not {fps!r}")
        if not isinstance(rate_hz, int) or not RATE_HZ_MIN <= rate_hz <= RATE_HZ_MAX:
            raise UsageError(
                f"audio needs its rate_hz, from {RATE_HZ_MIN} to {RATE_HZ_MAX}, not {rate_hz!r}"
            )
        self._images = images if isinstance(images, np.ndarray) else iter(images)
        self._samples_SC = checked_audio(audio)
        self.fps, self.rate_hz = float(fps), rate_hz

    def __iter__(self) -> Iterator[Frame | AudioBlock]:
        return self.items()

    def items(self, frames_late_s: float = 0.0) -> Iterator[Frame | AudioBlock]:
        """As `Film.items`."""

        def order(item: Frame | AudioBlock) -> float:
            return ready_s(item) + (frames_late_s if isinstance(item, Frame) else 0.0)

        return heapq.merge(self._blocks(), self._frames(), key=order)

    def _frames(self) -> Iterator[Frame]:
        for index, image in enumerate(self._images):
            yield Frame(checked_image(image), index, index / self.fps)

    def _blocks(self) -> Iterator[AudioBlock]:
        size = round(BLOCK_S * self.rate_hz)
        for first in range(0, len(self._samples_SC), size):
            part_SC = self._samples_SC[first : first + size]
            yield AudioBlock(part_SC, self.rate_hz, first, first / self.rate_hz)


def checked_image(image: Any) -> NDArray[np.uint8]:
    """Return an image that is one.

    Raises
    ------
    UsageError
        When it is not uint8 `[H, W, 3]`, of 16 to 8192 pixels on a side.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        raise UsageError(f"an image is a uint8 array, not {_kind(image)}")
    if image.ndim != 3 or image.shape[2] != 3:
        raise UsageError(f"an image is [height, width, 3], not {list(image.shape)}")
    if not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in image.shape[:2]):
        raise UsageError(
            f"an image has {SMALLEST_SIDE} to {LARGEST_SIDE} pixels on a side, "
            f"not {image.shape[1]}x{image.shape[0]}"
        )
    return image


def checked_audio(audio: Any) -> NDArray[np.float32]:
    """Return audio as float32 `[S, C]` in [-1, 1].

    Raises
    ------
    UsageError
        When it is neither floating nor int16, `[S]` or `[S, C]`, or not all numbers.
    """
    if not isinstance(audio, np.ndarray):
        raise UsageError(f"audio is an array, not {_kind(audio)}")
    if audio.ndim not in (1, 2) or not len(audio) or not 1 <= audio.size / len(audio) <= 64:
        raise UsageError(f"audio is [samples] or [samples, channels], not {list(audio.shape)}")
    samples_SC = audio.reshape(len(audio), -1)
    if audio.dtype == np.int16:
        return samples_SC.astype(np.float32) / np.float32(2**15)
    if not np.issubdtype(audio.dtype, np.floating):
        raise UsageError(f"audio is floating in [-1, 1] or int16, not {audio.dtype}")
    if not np.isfinite(samples_SC).all():
        raise UsageError("audio holds samples that are not numbers")
    return np.ascontiguousarray(samples_SC, np.float32)


def _kind(thing: Any) -> str:
    return str(thing.dtype) if isinstance(thing, np.ndarray) else type(thing).__name__
