"""The questions: arrays of one data set enter, rows of the report leave.

Each question names its unit of resampling, the one its metric averages over.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from denseav.train.eval.heatmaps import TOTAL, Maps, Truths
from denseav.train.eval.report import Row
from denseav.train.metrics import localization, negative_audio
from denseav.train.metrics.bootstrap import Drawn, interval
from denseav.train.metrics.disentanglement import (
    activation_disentanglement,
    prediction_disentanglement,
)
from denseav.train.metrics.localization import Heat, Mask
from denseav.train.metrics.retrieval import RANKS, hits, total
from denseav.train.metrics.segmentation import score_classes, to_pixels

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Whose numbers: the set's name, what was heard, and the names of the map variants."""

    data: str
    audio: str
    heads: Sequence[str]

    def row(
        self,
        metric: str,
        head: str,
        statistic: Callable[..., float],
        *counts: int,
        unit: str,
    ) -> Row:
        """Return a percentage with its interval; the statistic takes drawn indices."""
        low, high = interval(statistic, counts)
        value = statistic(*(np.arange(count) for count in counts))
        return Row(
            data=self.data,
            audio=self.audio,
            metric=metric,
            head=head,
            value=100 * value,
            low=100 * low,
            high=100 * high,
            count=sum(counts),
            unit=unit,
        )

    def number(self, metric: str, head: str, value: float, count: int, unit: str) -> Row:
        """Return a number that is no percentage and has no interval."""
        return Row(
            data=self.data,
            audio=self.audio,
            metric=metric,
            head=head,
            value=value,
            count=count,
            unit=unit,
        )


def segmentation(
    condition: Condition, maps: Maps, categories: Sequence[str], truths: Truths
) -> list[Row]:
    """Return mAP and mIoU, means over classes, of each map variant."""
    found = score_classes(torch.from_numpy(maps.heat_VNhw), categories, truths)
    rows = []
    for metric, values_VC in (("mAP", found.ap_VC), ("mIoU", found.iou_VC)):
        for head, values_C in zip(condition.heads, values_VC, strict=True):
            rows.append(condition.row(metric, head, _mean(values_C), len(values_C), unit="classes"))
    return rows + _cut(condition, maps)


def retrieval(condition: Condition, sims_AVK: Tensor) -> list[Row]:
    """Return recall at 1, 5 and 10 both ways, with all heads and with each alone."""
    sims = [total(sims_AVK), *sims_AVK.movedim(-1, 0)]
    rows = []
    for head, sims_AV in zip(condition.heads, sims, strict=True):
        for k in RANKS:
            found = hits(sims_AV, k)
            count = len(found.audio_to_image_N)
            ways = ("I->A", found.image_to_audio_N), ("A->I", found.audio_to_image_N)
            for way, hit_N in ways:
                values_N = hit_N.astype(np.float64)
                rows.append(
                    condition.row(f"R@{k} {way}", head, _mean(values_N), count, unit="queries")
                )
    return rows


def disentangled(condition: Condition, speech_NK: Tensor, sound_NK: Tensor) -> list[Row]:
    """Return PredDis and ActDis of a model with two heads, from clips with their own pictures."""
    counts = len(speech_NK), len(sound_NK)

    def drawn(statistic: Callable[[Tensor, Tensor], float]) -> Callable[[Drawn, Drawn], float]:
        return lambda a, b: statistic(speech_NK[a], sound_NK[b])

    return [
        condition.row("PredDis", TOTAL, drawn(prediction_disentanglement), *counts, unit="clips"),
        condition.row("ActDis", TOTAL, drawn(activation_disentanglement), *counts, unit="clips"),
    ]


def boxes(condition: Condition, maps: Maps, truths: Truths, scenes: Sequence[str]) -> list[Row]:
    """Return cIoU and AUC at the median and the adaptive threshold; IIoU and IAUC of scenes."""
    rows = []
    for head, heat_Nhw in zip(condition.heads, maps.heat_VNhw, strict=True):
        for name, ciou_N in _both_thresholds(heat_Nhw, truths).items():
            rows += _shares(
                condition=condition,
                head=head,
                names=("cIoU", "AUC"),
                suffix=name,
                ciou_N=ciou_N,
                unit="pictures",
            )
            if len(set(scenes)) < len(scenes) and all(scenes):
                worst_S = localization.worst_of_scene(ciou_N, scenes)
                rows += _shares(
                    condition=condition,
                    head=head,
                    names=("IIoU", "IAUC"),
                    suffix=name,
                    ciou_N=worst_S,
                    unit="scenes",
                )
    return rows + _cut(condition, maps)


def off_screen(
    condition: Condition, maps: Maps, dark_VMhw: NDArray[np.float32], truths: Truths
) -> list[Row]:
    """Return how maps fare at the threshold of pictures in which nothing that is heard is seen.

    Parameters
    ----------
    dark_VMhw
        The heatmaps of those pictures.
    """
    masks = [truths.mask(index) for index in range(len(truths))]
    rows = []
    for head, heat_Nhw, dark_Mhw in zip(condition.heads, maps.heat_VNhw, dark_VMhw, strict=True):
        scores = negative_audio.score_negatives(heat_Nhw, {"off screen": dark_Mhw}, masks)
        ciou_N, area_M = scores.ciou_N, scores.area["off screen"]
        counts = len(ciou_N), len(area_M)
        rows += [
            condition.row("cIoU_U", head, _mean(ciou_N), counts[0], unit="pictures"),
            condition.row("pIA off screen", head, _mean(area_M), counts[1], unit="pictures"),
            condition.row("AOC off screen", head, _aoc(area_M[None]), counts[1], unit="pictures"),
            condition.row("F", head, _f_score(ciou_N, area_M), *counts, unit="pictures"),
            condition.number("threshold U", head, scores.threshold, counts[1], unit="pictures"),
        ]
    return rows


def negatives(
    condition: Condition, maps: Maps, silent: Mapping[str, NDArray[np.float32]], truths: Truths
) -> list[Row]:
    """Return the figures of the negative-audio protocol.

    Parameters
    ----------
    silent
        For each kind of negative audio, heatmaps [V, M, h, w]; M is a multiple of N, draw by draw.
    """
    masks = [truths.mask(index) for index in range(len(truths))]
    rows = []
    for variant, head in enumerate(condition.heads):
        heats = {kind: heat_VMhw[variant] for kind, heat_VMhw in silent.items()}
        rows += _negative_rows(
            condition=condition,
            head=head,
            heat_Nhw=maps.heat_VNhw[variant],
            heats=heats,
            masks=masks,
        )
    return rows


def _negative_rows(
    condition: Condition,
    head: str,
    heat_Nhw: Heat,
    heats: Mapping[str, Heat],
    masks: Sequence[Mask],
) -> list[Row]:
    scores = negative_audio.score_negatives(heat_Nhw, heats, masks)
    count = len(masks)
    # The mean of an item's draws: draws of one item are not independent of each other.
    areas = {kind: area.reshape(-1, count).mean(axis=0) for kind, area in scores.area.items()}
    area_N = np.mean(list(areas.values()), axis=0)
    ciou_N = scores.ciou_N

    f_score = _f_score(ciou_N, area_N)

    def f_of_both(drawn: Drawn) -> float:
        return f_score(drawn, drawn)

    rows = [condition.row("cIoU_U", head, _mean(ciou_N), count, unit="pictures")]
    for kind, kind_N in areas.items():
        rows.append(condition.row(f"pIA {kind}", head, _mean(kind_N), count, unit="pictures"))
        draws_DN = scores.area[kind].reshape(-1, count)
        rows.append(condition.row(f"AOC {kind}", head, _aoc(draws_DN), count, unit="pictures"))
    rows.append(condition.row("F", head, f_of_both, count, unit="pictures"))
    rows.append(
        condition.number(
            metric="threshold U", head=head, value=scores.threshold, count=count, unit="pictures"
        )
    )
    return rows


def _shares(
    condition: Condition, head: str, names: tuple[str, str], suffix: str, ciou_N: Values, unit: str
) -> list[Row]:
    statistics = localization.passed, localization.area_under_curve
    return [
        condition.row(f"{name} {suffix}", head, _of(statistic, ciou_N), len(ciou_N), unit=unit)
        for name, statistic in zip(names, statistics, strict=True)
    ]


def _both_thresholds(heat_Nhw: Heat, truths: Truths) -> dict[str, Values]:
    median, adaptive = [], []
    for index, heat_hw in enumerate(torch.from_numpy(heat_Nhw)):
        truth_HW = truths.mask(index)
        size = truth_HW.shape[0], truth_HW.shape[1]
        heat_HW = to_pixels(heat_hw[None], size)[0].numpy()
        median.append(localization.ciou(localization.above_median(heat_HW), truth_HW))
        adaptive.append(localization.ciou(localization.as_large_as(heat_HW, truth_HW), truth_HW))
    return {"median": np.array(median), "adaptive": np.array(adaptive)}


def _mean(values: Values) -> Callable[[Drawn], float]:
    return lambda drawn: float(values[drawn].mean())


def _of(statistic: Callable[[Values], float], values: Values) -> Callable[[Drawn], float]:
    return lambda drawn: statistic(values[drawn])


def _f_score(ciou_N: Values, area_M: Values) -> Callable[[Drawn, Drawn], float]:
    return lambda seen, dark: negative_audio.harmonic(
        float(ciou_N[seen].mean()), 1 - float(area_M[dark].mean())
    )


def _cut(condition: Condition, maps: Maps) -> list[Row]:
    """Return how many words, or moments, reach over an end of their clip, if any do."""
    count = maps.heat_VNhw.shape[1]
    metric = "words cut to the clip"
    row = condition.number(metric, TOTAL, maps.words_cut, count, unit="items")
    return [row] if maps.words_cut else []


def _aoc(draws_DN: Values) -> Callable[[Drawn], float]:
    return lambda drawn: negative_audio.area_over_curve(draws_DN[:, drawn].ravel())
