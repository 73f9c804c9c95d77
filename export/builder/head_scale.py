"""A head's scale from heatmaps of made inputs: which heat is nothing, and which is all.

Heatmaps enter, `float32 [N, K, H, W]`; the heads of a manifest leave. Axes: N pairs of picture
and sound, K heads, H W the feature grid.
"""

from collections.abc import Sequence

import numpy as np

from denseav.export.runtime.bundle import Head
from denseav.export.runtime.proof import Heats


def calibrate(names: Sequence[str], sounding_NKHW: Heats, negative_NKHW: Heats) -> tuple[Head, ...]:
    """Set each head's scale from maps of sounds and maps of silence and noise.

    The threshold is the third quartile of the maxima over negative audio, as in the negative
    audio protocol (arXiv 2410.01020); the ceiling is the 95th percentile of the maxima over
    sounds, and at least one standard deviation of the heat above the threshold.
    """
    thresholds = np.quantile(negative_NKHW.max(axis=(2, 3)), 0.75, axis=0)
    peaks = np.quantile(sounding_NKHW.max(axis=(2, 3)), 0.95, axis=0)
    ceilings = np.maximum(peaks, thresholds + sounding_NKHW.std(axis=(0, 2, 3)))
    return tuple(
        Head(name=name, threshold=float(threshold), ceiling=float(ceiling))
        for name, threshold, ceiling in zip(names, thresholds, ceilings, strict=True)
    )
