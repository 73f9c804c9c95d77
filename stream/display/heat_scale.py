"""The heat's scale: heat [K, H, W] to strengths, 0 at a head's threshold and 1 at its ceiling.

Thresholds come with the model and stay, so what is too faint to mean something is never made
larger. Ceilings begin where the model has them and follow the peaks of the active heads, slowly
and from the past alone: a tenth of a head's peaks end up above its ceiling.

Axes: K heads, H W the feature grid.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from denseav.export.runtime.bundle import Head
from denseav.stream.types import Heatmap

_UP_OCTAVES_PER_S = 0.18  # while a peak is above the ceiling: twice as high in 5.6 s at the soonest
_DOWN_OCTAVES_PER_S = 0.02  # while it is below: these two make the tenth
_OCTAVES = (-1.0, 2.0)  # how far a ceiling may be from the model's: half, four times
_LONGEST_STEP_S = 0.25  # a pause is no reason for a leap


class Scale:
    """The scale of one run.

    Parameters
    ----------
    heads : the model's heads, in the order of the heatmap's first axis.
    """

    def __init__(self, heads: Sequence[Head]) -> None:
        self._threshold_K = np.array([head.threshold for head in heads], np.float32)
        ceiling_K = np.array([head.ceiling for head in heads], np.float32)
        self._range_K = ceiling_K - self._threshold_K
        self._octaves_K = np.zeros(len(self._range_K))
        self._last_s: float | None = None

    @property
    def thresholds(self) -> NDArray[np.float32]:
        """The heat from which each head shows; float32 `[K]`."""
        return self._threshold_K

    def settle(self, heads: Sequence[Head]) -> None:
        """Take other thresholds; each head's ceiling stays as far above its own as it is."""
        self._threshold_K = np.array([head.threshold for head in heads], np.float32)

    @property
    def ceilings(self) -> NDArray[np.float32]:
        """The heat at which each head shows in full, now; float32 `[K]`."""
        return (self._threshold_K + self._range_K * np.exp2(self._octaves_K)).astype(np.float32)

    def strength(self, heatmap: Heatmap) -> NDArray[np.float32]:
        """Return float32 `[K, H, W]` in [0, 1], by the ceilings that the heatmaps before it left.

        A head that is not valid is 0 everywhere, and so is a heat that is not a number.
        """
        range_K = self.ceilings - self._threshold_K
        above_KHW = heatmap.heat_KHW - self._threshold_K[:, None, None]
        raw_KHW = above_KHW / range_K[:, None, None]
        strength_KHW = np.fmin(np.fmax(raw_KHW, 0), 1).astype(np.float32)
        strength_KHW[~np.array(heatmap.valid_K, bool)] = 0
        self._follow(raw_KHW, strength_KHW, heatmap.frame.capture_s)
        return strength_KHW

    def _follow(
        self, raw_KHW: NDArray[np.float32], strength_KHW: NDArray[np.float32], capture_s: float
    ) -> None:
        last_s, self._last_s = self._last_s, capture_s
        if last_s is None:
            return
        step_s = min(max(capture_s - last_s, 0.0), _LONGEST_STEP_S)
        active_K = strength_KHW.any(axis=(1, 2))
        beyond_K = (raw_KHW > 1).any(axis=(1, 2))
        rate_K = np.where(beyond_K, _UP_OCTAVES_PER_S, -_DOWN_OCTAVES_PER_S) * active_K
        self._octaves_K = np.clip(self._octaves_K + rate_K * step_s, *_OCTAVES)
