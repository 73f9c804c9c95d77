"""Prompted segmentation: heatmaps and true masks enter, AP and IoU of each class leave.

The protocol of Hamilton et al. (2024), from their released evaluation: a heatmap is the mean of
the volume over the prompt's tokens, scaled by one minimum and maximum of the whole data set and
enlarged bilinearly; a class is all pixels of all its pictures. IoU takes the best of 20
thresholds for each class. This file knows arrays only.

N items, n items of one class, V variants of a map (all heads, one head), C classes, T tokens,
H W pixels, h w the feature grid.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.classification import binary_average_precision

THRESHOLDS = 20
WORD_MARGIN_S = 0.2

Truth = Callable[[Sequence[int]], Tensor]
"""Gives the true masks, bool [n, H, W], of the items asked for."""


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Average precision and IoU, float64 [V, C] in [0, 1], of the classes in their order."""

    classes: tuple[str, ...]
    ap_VC: NDArray[np.float64]
    iou_VC: NDArray[np.float64]


def word_tokens(
    span_s: tuple[float, float], window_s: float, tokens: int, margin_s: float = WORD_MARGIN_S
) -> tuple[Tensor, bool]:
    """Return which tokens a spoken word covers, bool [T], and whether it had to be cut.

    Parameters
    ----------
    span_s
        When the word is heard.
    window_s
        The length of the padded clip that all tokens together stand for.
    tokens
        How many there are; of a word outside the clip, the nearest one is taken.
    margin_s
        What is added on both sides.
    """
    spread_s = torch.tensor(span_s) + torch.tensor((-margin_s, margin_s))
    first, stop = (tokens * (spread_s / torch.tensor(window_s))).tolist()
    first, stop = math.floor(first), math.ceil(stop)
    start = min(max(first, 0), tokens - 1)
    end = min(max(stop, start + 1), tokens)
    index_T = torch.arange(tokens)
    return (index_T >= start) & (index_T < end), (start, end) != (first, stop)


def time_mean(sims_BTHW: Tensor, mask_BT: Tensor) -> Tensor:
    """Return the heatmaps [B, H, W]: the mean over the tokens of the mask."""
    weight_BT = mask_BT.to(sims_BTHW.dtype)
    total_B11 = weight_BT.sum(dim=-1)[:, None, None]
    return torch.einsum("bthw,bt->bhw", sims_BTHW, weight_BT) / total_B11


def to_pixels(heat_Nhw: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge heatmaps to [N, H, W], bilinear between cell centres."""
    return functional.interpolate(heat_Nhw[:, None], size, mode="bilinear")[:, 0]


def score_classes(heat_VNhw: Tensor, classes: Sequence[str], truth: Truth) -> ClassScores:
    """Score the heatmaps class by class.

    Parameters
    ----------
    heat_VNhw
        float32, any scale.
    classes
        The prompt's class of each of the N items.
    truth
        Where each item shows its class. A class that no pixel shows scores 0, as in the
        released evaluation.
    """
    unit_VNhw = _unit_range(heat_VNhw)
    names = tuple(sorted(set(classes)))
    ap_VC = np.zeros((len(heat_VNhw), len(names)))
    iou_VC = np.zeros_like(ap_VC)
    for column, name in enumerate(names):
        items = [index for index, label in enumerate(classes) if label == name]
        truth_nHW = truth(items)
        if not truth_nHW.any():
            continue
        for row, unit_Nhw in enumerate(unit_VNhw):
            heat_nHW = to_pixels(unit_Nhw[items], (truth_nHW.shape[-2], truth_nHW.shape[-1]))
            ap_VC[row, column] = _average_precision(heat_nHW, truth_nHW)
            iou_VC[row, column] = best_iou(heat_nHW, truth_nHW)
    return ClassScores(classes=names, ap_VC=ap_VC, iou_VC=iou_VC)


def best_iou(heat: Tensor, truth: Tensor) -> float:
    """Return the IoU at the best of 20 thresholds spread over the heat's range."""
    best = 0.0
    for threshold in torch.linspace(float(heat.min()), float(heat.max()), THRESHOLDS):
        found = heat > threshold
        shared = int((found & truth).sum())
        either = int((found | truth).sum())
        best = max(best, shared / max(either, 1))
    return best


def _unit_range(heat_VNhw: Tensor) -> Tensor:
    # Within [0, 1], or torchmetrics takes the values for logits and squashes them.
    lifted_VNhw = heat_VNhw - heat_VNhw.amin(dim=(1, 2, 3), keepdim=True)
    return lifted_VNhw / lifted_VNhw.amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)


def _average_precision(heat: Tensor, truth: Tensor) -> float:
    return float(binary_average_precision(heat.flatten(), truth.flatten().int()))
