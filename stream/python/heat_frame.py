"""A frame with its heat, as other programs get it: a `Heatmap` in, a `HeatFrame` out.

Heads are the very objects that the feed's client gives, found by the same code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from denseav.export.runtime.bundle import Head as ModelHead
from denseav.stream.display.overlay import Overlay
from denseav.stream.feed.client import Head
from denseav.stream.feed.message import found_heads
from denseav.stream.types import Heatmap


class Painter:
    """Draws heatmaps on their frames, on one scale for all of a run. Callable from any thread."""

    def __init__(self, heads: Sequence[ModelHead], trained: bool) -> None:
        self._overlay = Overlay(heads, trained)
        self._lock = Lock()

    def draw(self, heatmap: Heatmap) -> NDArray[np.uint8]:
        """Return a new picture, uint8 `[H, W, 3]`."""
        with self._lock:
            return self._overlay.draw(heatmap, self._overlay.strength(heatmap))


@dataclass(frozen=True, eq=False)
class HeatFrame:
    """One frame, and for each head where it is hot.

    Attributes
    ----------
    image : uint8 `[H, W, 3]`, blue-green-red; not to be written to.
    heads : by name, `sound` and `speech` in most models. Of each, `heat` is float32 `[h, w]`, and
        `peak` and `box` are pixels of `image`.
    index : counts the source's frames; where frames were dropped it skips.
    capture_s : when it was captured: seconds of `time.monotonic()`, or of the film when offline.
    ready_s : when its heat was done, always of `time.monotonic()`.
    audio_start_s, audio_end_s : the audio it was compared with, on the clock of `capture_s`; None
        before any was encoded.
    audio_dbfs : how loud that was.
    """

    image: NDArray[np.uint8]
    heads: Mapping[str, Head]
    index: int
    capture_s: float
    ready_s: float
    audio_start_s: float | None
    audio_end_s: float | None
    audio_dbfs: float
    _heatmap: Heatmap = field(repr=False)
    _painter: Painter = field(repr=False)

    @classmethod
    def of(cls, heatmap: Heatmap, heads: Sequence[ModelHead], painter: Painter) -> "HeatFrame":
        """Return what another program sees of a heatmap of a model with these heads."""
        frame = heatmap.frame
        height, width = frame.image_HW3.shape[:2]
        return cls(
            image=frame.image_HW3,
            heads=found_heads(heads, heatmap.heat_KHW, (width, height), heatmap.valid_K),
            index=frame.index,
            capture_s=frame.capture_s,
            ready_s=heatmap.ready_s,
            audio_start_s=heatmap.audio_start_s,
            audio_end_s=heatmap.audio_end_s,
            audio_dbfs=heatmap.rms_dbfs,
            _heatmap=heatmap,
            _painter=painter,
        )

    @property
    def skew_s(self) -> float | None:
        """How much later the audio used ends than the picture was captured; None before any."""
        return self._heatmap.skew_s

    @property
    def age_s(self) -> float:
        """How long ago the frame was captured, now; of a live run only."""
        return monotonic() - self.capture_s

    def draw(self) -> NDArray[np.uint8]:
        """Return the frame with each head's glow on it, as the window shows it: uint8 `[H, W, 3]`.

        It is a new picture, made smaller where the long side is over 1920, with even sides.
        """
        return self._painter.draw(self._heatmap)
