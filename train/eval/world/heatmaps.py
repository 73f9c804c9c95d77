"""Clips with one thing heard: heatmaps, similarities and true masks leave, all that scores need.

A map is the mean over the tokens that overlap what is heard. Two maps that know less are made
beside it: `any object` is the most that any of all classes is, each heard with the same picture,
which knows where things are and not which is meant; `mismatched` is the map of another class.

V map variants, N clips, A classes, K heads, T tokens, H W pixels, h w the feature grid.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from denseav.train.eval.exported_model import Calibration
from denseav.train.eval.heatmaps import TOTAL, Truths
from denseav.train.eval.model import Features
from denseav.train.eval.pieces import Track
from denseav.train.eval.world.evaluator import WorldEvaluator
from denseav.train.metrics.localization import Mask
from denseav.train.metrics.segmentation import time_mean, to_pixels
from denseav.train.world.clips import AudioEvent, Head

OWN, WORD = "own head", "at the word"
ANY, MISMATCHED = "any object", "mismatched"


@dataclass(frozen=True, kw_only=True, eq=False)
class Maps:
    """Heatmaps of one thing in each clip, and where it is.

    Attributes
    ----------
    heat : of each variant, float32 [N, h, w].
    names : what is heard.
    truths : where each clip shows it.
    """

    heat: dict[str, Tensor]
    names: list[str]
    truths: Truths


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompted(Maps):
    """What became of the clips with one thing heard.

    Attributes
    ----------
    sims_NK : similarity of each clip with its picture, by each head.
    lit_N : the share of the thing heard that is above the threshold; empty without a calibration.
    """

    sims_NK: Tensor
    lit_N: NDArray[np.float64]


class OneOfEach:
    """Every class heard once: the sound that goes with any picture, and with none."""

    def __init__(self, evaluator: WorldEvaluator, head: Head) -> None:
        calls = evaluator.split.one_of_each_class(head)
        self.events = [event for event, _ in calls]
        self._evaluator, self._head = evaluator, evaluator.own[head]
        self._sounds = [evaluator.model.encode_audio(wave_S) for _, wave_S in calls]

    def maps(self, seen: Features) -> Tensor:
        """Return the own head's map of each class [A, h, w]."""
        volume_ATHW = self._evaluator.model.volumes(self._sounds, [seen])[:, 0, self._head].cpu()
        tokens = volume_ATHW.shape[1]
        mask_AT = torch.stack([self._evaluator.tokens_of(event, tokens) for event in self.events])
        return time_mean(volume_ATHW, mask_AT)


def prompted(
    evaluator: WorldEvaluator, head: Head, count: int, calibration: Calibration | None, track: Track
) -> Prompted:
    """Hear one thing in each of `count` scenes.

    Parameters
    ----------
    evaluator : the model, the test split, and which head is whose.
    head : whether it makes its sound or is named.
    calibration : from what heat on something is shown, if known.
    """
    call = OneOfEach(evaluator, head)
    random = np.random.default_rng(evaluator.split.seed)
    heats, names, masks, sims, lit = [], [], [], [], []
    for number in track(range(count), f"{head} prompted"):
        case = evaluator.split.case(head, number)
        event = case.clip.events[0]
        truth_HW = case.truth(event.name)
        seen, volume_KTHW = evaluator.encode(case)
        own_THW = volume_KTHW[evaluator.own[head]]
        others = [index for index, other in enumerate(call.events) if other.name != event.name]
        calls_Ahw = call.maps(seen)
        heats.append(
            {
                OWN: evaluator.heatmap(own_THW, event),
                TOTAL: evaluator.heatmap(volume_KTHW.amax(0), event),
                WORD: _at_the_word(evaluator, own_THW, event),
                ANY: calls_Ahw.amax(0),
                MISMATCHED: calls_Ahw[int(random.choice(others))],
            }
        )
        names.append(event.name)
        masks.append(truth_HW)
        sims.append(evaluator.similarity(volume_KTHW, event))
        if calibration is not None:
            threshold = calibration.thresholds[evaluator.own[head]]
            lit.append(_lit(own_THW[evaluator.tokens_of(event, len(own_THW))], truth_HW, threshold))
    variants = [name for name in heats[0] if head == "speech" or name != WORD]
    return Prompted(
        heat={name: torch.stack([heat[name] for heat in heats]) for name in variants},
        names=names,
        sims_NK=torch.stack(sims),
        lit_N=np.array(lit),
        truths=Truths(evaluator.split.size, masks),
    )


def _at_the_word(evaluator: WorldEvaluator, own_THW: Tensor, event: AudioEvent) -> Tensor:
    """Return the map while the name itself is heard, by the paper's protocol; else all of it."""
    spans = [(w.start_s, w.stop_s) for w in event.words if event.name in w.text.split()]
    mask_T = (
        evaluator.tokens_of_word(spans[0], len(own_THW))
        if spans
        else evaluator.tokens_of(event, len(own_THW))
    )
    return time_mean(own_THW[None], mask_T[None])[0]


def _lit(own_tHW: Tensor, truth_HW: Mask, threshold: float) -> float:
    size = truth_HW.shape[0], truth_HW.shape[1]
    above_tHW = to_pixels(own_tHW, size) > threshold
    return float(above_tHW[:, torch.from_numpy(truth_HW)].float().mean())
