"""Localisation against boxes or masks: a heatmap in pixels and the true region enter, cIoU leaves.

The protocol of VGG-SS (Chen et al., 2021) and, for both objects of one picture, of IS3 (Senocak et
al., 2024). A map is cut at its median, or adaptively so that the region found is as large as the
true one. `cIoU` is the share of items with cIoU >= 0.5, `AUC` the area under that share over the
thresholds 0, 0.05, ..., 1.

N items, S scenes, H W pixels.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Heat = NDArray[np.float32]
Scores = NDArray[np.float64]

STEPS = np.linspace(0, 1, 21)
PASS = 0.5


def boxes_mask(boxes: Sequence[tuple[float, float, float, float]], size: tuple[int, int]) -> Mask:
    """Return where the boxes are, bool [H, W].

    Parameters
    ----------
    boxes
        left, top, right, bottom as fractions of the picture; what is outside is cut off.
    size
        H and W; edges are rounded down to pixels, right and bottom lie just outside. A millionth
        of a pixel is no pixel: 61 / 224 * 224 is a little less than 61.
    """
    height, width = size
    mask_HW = np.zeros(size, dtype=np.bool_)
    for box in boxes:
        edges = np.clip(box, 0, 1) * (width, height, width, height)
        left, top, right, bottom = np.floor(edges.round(6)).astype(int)
        mask_HW[top:bottom, left:right] = True
    return mask_HW


def above_median(heat_HW: Heat) -> Mask:
    """Return the half of the pixels that is hotter."""
    hotter_HW: Mask = heat_HW > np.sort(heat_HW, axis=None)[heat_HW.size // 2]
    return hotter_HW


def as_large_as(heat_HW: Heat, truth_HW: Mask) -> Mask:
    """Return the hottest pixels, as many as are true; half of them when none is."""
    count = int(truth_HW.sum()) or heat_HW.size // 2
    hottest_HW: Mask = heat_HW >= np.sort(heat_HW, axis=None)[heat_HW.size - count]
    return hottest_HW


def ciou(found_HW: Mask, truth_HW: Mask) -> float:
    """Return intersection over true and wrongly found pixels; 0 where there are neither."""
    wrong = int((found_HW & ~truth_HW).sum())
    return int((found_HW & truth_HW).sum()) / max(int(truth_HW.sum()) + wrong, 1)


def passed(ciou_N: Scores) -> float:
    """Return the share of items with cIoU >= 0.5, in [0, 1]."""
    return float((ciou_N >= PASS).mean())


def area_under_curve(ciou_N: Scores) -> float:
    """Return the area under the share of items at or above each threshold, in [0, 1]."""
    shares = (ciou_N[None] >= STEPS[:, None]).mean(axis=1)
    return float(np.trapezoid(shares, STEPS))


def worst_of_scene(ciou_N: Scores, scenes: Sequence[str]) -> Scores:
    """Return the worst cIoU of each scene [S]: it passes when all of its objects do."""
    worst: dict[str, float] = {}
    for scene, value in zip(scenes, ciou_N.tolist(), strict=True):
        worst[scene] = min(value, worst.get(scene, value))
    return np.array(list(worst.values()))
