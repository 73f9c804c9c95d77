"""What a source made of the world's clips enters, rows of the report leave, in percent.

`chance` is what knowing nothing gives: the share of the picture that the thing fills.

N clips, K heads, h w the feature grid.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.classification import binary_average_precision

from denseav.train.eval.heatmaps import TOTAL
from denseav.train.eval.report import Row
from denseav.train.eval.tasks import Condition, Values, disentangled
from denseav.train.eval.world.evaluator import points
from denseav.train.eval.world.heatmaps import OWN, WORD, Maps, Prompted
from denseav.train.metrics.disentanglement import explained_share
from denseav.train.metrics.localization import Mask
from denseav.train.metrics.segmentation import ClassScores, score_classes, to_pixels
from denseav.train.world.clips import Head

MIXED: dict[Head, str] = {"sound": "what sounds", "speech": "what is named"}
CHANCE = "chance"
ANY_HEAD = "any head"


def prompted_rows(data: str, found: Prompted) -> tuple[list[Row], dict[str, dict[str, float]]]:
    """Return how well one thing heard is found, and the same of each class, as JSON has it."""
    condition = Condition(data=data, audio="clean", heads=(*found.heat, CHANCE))
    names = np.array(found.names, dtype=object)
    heat_VNhw = torch.stack(list(found.heat.values()))
    scores = score_classes(heat_VNhw, found.names, found.truths)
    share_N = np.array([float(found.truths([index]).float().mean()) for index in range(len(names))])
    share_C = np.array([share_N[names == name].mean() for name in scores.classes])
    rows = []
    for metric, values_VC in (("mAP", scores.ap_VC), ("mIoU", scores.iou_VC)):
        rows += _row_of_each(condition, metric, [*values_VC, share_C], "classes")
    pointing_VN = _each_clip(heat_VNhw, found, points)
    ap_VN = _each_clip(heat_VNhw, found, _precision)
    rows += _row_of_each(condition, "pointing", [*pointing_VN, share_N], "clips")
    rows += _row_of_each(condition, "AP, one picture", [*ap_VN, share_N], "clips")
    if WORD in found.heat:
        at = list(found.heat).index(WORD)
        rows.append(
            _mean(
                condition=condition,
                metric="mAP at the word",
                head=OWN,
                values_N=scores.ap_VC[at],
                unit="classes",
            )
        )
        rows.append(
            _mean(
                condition=condition,
                metric="pointing at the word",
                head=OWN,
                values_N=pointing_VN[at],
                unit="clips",
            )
        )
    if len(found.lit_N):
        rows.append(
            _mean(
                condition=condition,
                metric="thing shown",
                head=OWN,
                values_N=found.lit_N,
                unit="clips",
            )
        )
    return rows, _each_class(names, scores, pointing_VN[0])


def mixed_rows(found: Mapping[Head, Maps]) -> list[Row]:
    """Return how well both things heard at once, and each of them, are found.

    Segmentation is that of the simultaneous grounding of Ryu et al. (2025), table 1.
    """
    condition = Condition(data="sound and speech at once", audio="mixed", heads=(OWN, TOTAL))
    pointing: dict[Head, Values] = {}
    rows = []
    for head, what in MIXED.items():
        maps = found[head]
        heat_VNhw = torch.stack([maps.heat[name] for name in condition.heads])
        scores = score_classes(heat_VNhw, maps.names, maps.truths)
        rows += _row_of_each(condition, f"mAP, {what}", list(scores.ap_VC), "classes")
        rows += _row_of_each(condition, f"mIoU, {what}", list(scores.iou_VC), "classes")
        pointing[head] = _each_clip(heat_VNhw, maps, points)
    both_VN = pointing["sound"] * pointing["speech"]
    rows += _row_of_each(condition, "both pointed at", list(both_VN), "clips")
    for head, what in MIXED.items():
        rows += _row_of_each(condition, what, list(pointing[head]), "clips")
    return rows


def unseen_rows(kind: str, area_Nx: NDArray[np.float64], heads: Sequence[str]) -> list[Row]:
    """Return how much is shown as sounding of pictures in which nothing sounds."""
    condition = Condition(
        data="area above threshold", audio="nothing seen sounds", heads=(*heads, ANY_HEAD)
    )
    return [
        _mean(
            condition=condition,
            metric=kind.replace("_", " "),
            head=head,
            values_N=area_N,
            unit="clips",
        )
        for head, area_N in zip(condition.heads, area_Nx.T, strict=True)
    ]


def retrieval_rows(data: str, found_22N: Values, chance_N: Values) -> list[Row]:
    """Return how often the most similar picture shows what is heard, and is the clip's own."""
    count = len(chance_N)
    condition = Condition(
        data=f"retrieval of {count}, {data}", audio="clean", heads=(OWN, TOTAL, CHANCE)
    )
    chances = {"the first shows it": chance_N, "R@1": np.full(count, 1 / count)}
    return [
        row
        for way, (metric, by_chance_N) in enumerate(chances.items())
        for row in _row_of_each(condition, metric, [*found_22N[:, way], by_chance_N], "clips")
    ]


def disentangled_rows(speech_NK: Tensor, sound_NK: Tensor) -> list[Row]:
    """Return PredDis and ActDis; nothing of a model that has not two heads."""
    if speech_NK.shape[1] != 2:
        return []
    condition = Condition(data="disentanglement", audio="clean", heads=(TOTAL,))
    return disentangled(condition, speech_NK, sound_NK)


def head_choice_rows(found: Mapping[Head, Prompted]) -> list[Row]:
    """Return how much of which head leads is explained by the kind of a clip, and by its class."""
    sims_NK = torch.cat([prompted.sims_NK for prompted in found.values()])
    if sims_NK.shape[1] < 2:
        return []
    groups = {
        "explained by kind": [kind for kind, one in found.items() for _ in one.names],
        "explained by class": [name for one in found.values() for name in one.names],
    }
    condition = Condition(data="head choice", audio="clean", heads=(TOTAL,))
    rows = []
    for metric, group_N in groups.items():
        named = np.array(group_N)

        def explained(drawn: NDArray[np.intp], named: NDArray[np.str_] = named) -> float:
            return explained_share(sims_NK[drawn], named[drawn])

        rows.append(condition.row(metric, TOTAL, explained, len(sims_NK), unit="clips"))
    return rows


def own_head_rows(found: Mapping[Head, Prompted], own: Mapping[Head, int]) -> list[Row]:
    """Return of each kind how often its own head is the strongest, each head by its own measure."""
    sims_NK = torch.cat([prompted.sims_NK for prompted in found.values()])
    mean_K, deviation_K = sims_NK.mean(0), sims_NK.std(0).clamp_min(1e-12)
    condition = Condition(data="own head chosen", audio="clean", heads=(OWN,))
    rows = []
    for kind, prompted in found.items():
        chosen_N = ((prompted.sims_NK - mean_K) / deviation_K).argmax(1) == own[kind]
        values_N = chosen_N.double().numpy()
        rows.append(
            _mean(condition=condition, metric=kind, head=OWN, values_N=values_N, unit="clips")
        )
    return rows


def _each_class(
    names: NDArray[np.object_], scores: ClassScores, pointing_N: Values
) -> dict[str, dict[str, float]]:
    return {
        name: {
            "clips": int((names == name).sum()),
            "pointing": 100 * float(pointing_N[names == name].mean()),
            "ap": 100 * float(scores.ap_VC[0, column]),
        }
        for column, name in enumerate(scores.classes)
    }


def _each_clip(heat_VNhw: Tensor, found: Maps, score: Callable[[Tensor, Mask], float]) -> Values:
    """Return the score of each map with what its clip shows: [V, N]."""
    score_VN = np.zeros(heat_VNhw.shape[:2])
    for index in range(heat_VNhw.shape[1]):
        truth_HW = found.truths.mask(index)
        score_VN[:, index] = [score(heat_hw, truth_HW) for heat_hw in heat_VNhw[:, index]]
    return score_VN


def _precision(heat_hw: Tensor, truth_HW: Mask) -> float:
    # Within [0, 1], or torchmetrics takes the values for logits and squashes them.
    heat_HW = to_pixels(heat_hw[None], (truth_HW.shape[0], truth_HW.shape[1]))[0]
    heat_HW = (heat_HW - heat_HW.min()) / (heat_HW.max() - heat_HW.min()).clamp_min(1e-12)
    truth = torch.from_numpy(truth_HW).flatten().int()
    return float(binary_average_precision(heat_HW.flatten(), truth))


def _row_of_each(
    condition: Condition, metric: str, values: Sequence[Values], unit: str
) -> list[Row]:
    return [
        _mean(condition=condition, metric=metric, head=head, values_N=values_N, unit=unit)
        for head, values_N in zip(condition.heads, values, strict=True)
        if head != WORD
    ]


def _mean(condition: Condition, metric: str, head: str, values_N: NDArray[Any], unit: str) -> Row:
    def mean(drawn: NDArray[np.intp]) -> float:
        return float(values_N[drawn].mean())

    return condition.row(metric, head, mean, len(values_N), unit=unit)
