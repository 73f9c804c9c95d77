"""Negative audio: how dark the map stays when nothing that sounds is in the picture.

The protocol of Juanola et al. (2024, arXiv 2410.01020). Negatives are silence, noise and the sound
of something off screen. One universal threshold for the model, the third quartile of the maps'
maxima over negative audio, cuts every map, with no scaling of single pictures. It is also the
threshold to run live with. The protocol leaves open how the three kinds of negative audio are
weighed: here each map counts once, and as silence is heard once where the others are drawn ten
times, silence is one map in 21.

N items, H W pixels, h w the feature grid.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from denseav.train.metrics.localization import STEPS, Heat, Mask, Scores, ciou
from denseav.train.metrics.segmentation import to_pixels


@dataclass(frozen=True, kw_only=True)
class NegativeScores:
    """What one universal threshold gives.

    Attributes
    ----------
    threshold : the heat above which a pixel counts as sounding.
    ciou_N : cIoU of each item with its own sound, in [0, 1].
    area : for each kind of negative audio, the share of the picture found, in [0, 1] [M].
    """

    threshold: float
    ciou_N: Scores
    area: Mapping[str, Scores]

    @property
    def f_score(self) -> float:
        """Return the harmonic mean of cIoU and of the share that negatives leave dark."""
        areas = [float(area_M.mean()) for area_M in self.area.values()]
        return harmonic(float(self.ciou_N.mean()), 1 - float(np.mean(areas)))


def universal_threshold(maxima: Sequence[NDArray[np.float32]]) -> float:
    """Return the third quartile of the maxima of all maps over negative audio, each counted once.

    Parameters
    ----------
    maxima
        For each kind of negative audio, the maximum of each map; a kind with more maps weighs
        more.
    """
    return float(np.quantile(np.concatenate(list(maxima)), 0.75))


def score_negatives(
    positive_Nhw: Heat, negatives: Mapping[str, Heat], truths: Sequence[Mask]
) -> NegativeScores:
    """Set the threshold on the negatives, then cut all maps with it.

    Parameters
    ----------
    positive_Nhw
        Heatmaps of each item with its own sound, float32, unscaled.
    negatives
        For each kind of negative audio, heatmaps [M, h, w]; several draws of one item may follow
        each other.
    truths
        Where each item sounds, bool [H, W].
    """
    size = truths[0].shape
    maxima = [np.array([*map(np.max, _pixels(heat, size))]) for heat in negatives.values()]
    threshold = universal_threshold(maxima)
    found = zip(_pixels(positive_Nhw, size), truths, strict=True)
    return NegativeScores(
        threshold=threshold,
        ciou_N=np.array([ciou(heat_HW > threshold, truth_HW) for heat_HW, truth_HW in found]),
        area={
            kind: np.array([(heat_HW > threshold).mean() for heat_HW in _pixels(heat_Mhw, size)])
            for kind, heat_Mhw in negatives.items()
        },
    )


def area_over_curve(area_M: Scores) -> float:
    """Return the area under the share of maps with at most each share of pixels, in [0, 1]."""
    shares = (area_M[None] <= STEPS[:, None]).mean(axis=1)
    return float(np.trapezoid(shares, STEPS))


def harmonic(a: float, b: float) -> float:
    """Return the harmonic mean of two shares; 0 when both are."""
    return 2 * a * b / (a + b) if a + b else 0.0


def _pixels(heat_Mhw: Heat, size: tuple[int, int]) -> Iterator[Heat]:
    for heat_hw in torch.from_numpy(heat_Mhw):
        yield to_pixels(heat_hw[None], size)[0].numpy()
