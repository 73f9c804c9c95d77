"""How far an exported model is from PyTorch, measured on heatmaps, and how its scale is set.

Heatmaps enter, the float32 reference and the session's, `float32 [N, K, H, W]`; a record for
the manifest leaves. Axes: N pairs of picture and sound, K heads, H W the feature grid.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from denseav.export.runtime.bundle import Head

Heats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Agreement of one head's heatmaps with the reference.

    `cosine` and `max_abs` over all maps together; `argmax_agreement` is the share of maps whose
    peak is the same cell; `rank_correlation` is Spearman's, the mean over maps.
    """

    cosine: float
    max_abs: float
    argmax_agreement: float
    rank_correlation: float


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """The least agreement with which a bundle is written."""

    cosine: float
    rank_correlation: float


TOLERANCES = {
    "fp32": Tolerance(cosine=0.99999, rank_correlation=0.9999),
    "fp16": Tolerance(cosine=0.999, rank_correlation=0.999),
    "int8": Tolerance(cosine=0.999, rank_correlation=0.999),
}


def measure(reference_NKHW: Heats, measured_NKHW: Heats, names: Sequence[str]) -> dict[str, Parity]:
    """Compare the heatmaps head by head."""
    pairs = zip(reference_NKHW.swapaxes(0, 1), measured_NKHW.swapaxes(0, 1), strict=True)
    return {name: _compare(*pair) for name, pair in zip(names, pairs, strict=True)}


def failures(parity: dict[str, Parity], tolerance: Tolerance) -> list[str]:
    """Name every figure that is under the tolerance, in words for people."""
    return [
        f"{figure} of head {name!r} is {getattr(head, figure):.6f}, needed {least}"
        for name, head in parity.items()
        for figure, least in asdict(tolerance).items()
        if not getattr(head, figure) >= least
    ]


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


def _compare(reference_NHW: Heats, measured_NHW: Heats) -> Parity:
    reference = reference_NHW.reshape(len(reference_NHW), -1).astype(np.float64)
    measured = measured_NHW.reshape(len(measured_NHW), -1).astype(np.float64)
    norms = np.linalg.norm(reference) * np.linalg.norm(measured)
    return Parity(
        cosine=float((reference * measured).sum() / norms),
        max_abs=float(np.abs(reference - measured).max()),
        argmax_agreement=float((reference.argmax(1) == measured.argmax(1)).mean()),
        rank_correlation=float(np.mean([*map(_spearman, reference, measured)])),
    )


def _spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])
