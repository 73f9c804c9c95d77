"""Clips that ask more than where one thing is: two at once, none that is seen, and which picture.

N clips, K heads, T tokens, V pictures, H W pixels.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from denseav.models.config import Aggregation
from denseav.models.similarity import aggregate
from denseav.train.eval.exported_model import Calibration
from denseav.train.eval.heatmaps import MISA, TOTAL, Truths
from denseav.train.eval.pieces import Track
from denseav.train.eval.world.evaluator import WorldEvaluator
from denseav.train.eval.world.heatmaps import OWN, Maps
from denseav.train.metrics.localization import Mask
from denseav.train.metrics.segmentation import to_pixels
from denseav.train.world.clips import TWO_HEADS, AudioEvent, Head, Kind

MODEL = Aggregation()
"""How heads are joined in training: element by element, by their maximum."""


def mixed(evaluator: WorldEvaluator, count: int, track: Track) -> dict[Head, Maps]:
    """Return the maps of two things heard at once, one that sounds and one that is named.

    Of each there are the map of its own head and that of the strongest of both.
    """
    heats: dict[Head, list[dict[str, Tensor]]] = {head: [] for head in TWO_HEADS}
    names: dict[Head, list[str]] = {head: [] for head in TWO_HEADS}
    masks: dict[Head, list[Mask]] = {head: [] for head in TWO_HEADS}
    for number in track(range(count), "both at once"):
        case = evaluator.split.case("both", number)
        _, volume_KTHW = evaluator.encode(case)
        for event in case.clip.events:
            heats[event.head].append(
                {
                    OWN: evaluator.heatmap(volume_KTHW[evaluator.own[event.head]], event),
                    TOTAL: evaluator.heatmap(volume_KTHW.amax(0), event),
                }
            )
            names[event.head].append(event.name)
            masks[event.head].append(case.truth(event.name))
    return {
        head: Maps(
            heat={name: torch.stack([heat[name] for heat in heats[head]]) for name in (OWN, TOTAL)},
            names=names[head],
            truths=Truths(evaluator.split.size, masks[head]),
        )
        for head in TWO_HEADS
    }


def unseen(
    evaluator: WorldEvaluator, kind: Kind, count: int, calibration: Calibration, track: Track
) -> NDArray[np.float64]:
    """Return what share of the picture is shown as sounding though nothing in it does.

    As it runs live: token by token, each head with its threshold, and nothing of a token that is
    quieter than the energy floor. Of a thing off screen, tokens count in which it is heard.

    Returns
    -------
    ndarray
        Float [N, K + 1]: the area of each head, and where any of them is.
    """
    areas = []
    threshold_K111 = torch.tensor(calibration.thresholds)[:, None, None, None]
    for number in track(range(count), kind.replace("_", " ")):
        case = evaluator.split.case(kind, number)
        volume_KTHW = evaluator.encode(case)[1]
        loud_T = calibration.loud(case.clip.wave_S, volume_KTHW.shape[1])
        pixels_KTHW = torch.stack(
            [to_pixels(head_T, evaluator.split.size) for head_T in volume_KTHW]
        )
        above_KTHW = (pixels_KTHW > threshold_K111) & loud_T[:, None, None]
        for event in case.clip.events:
            above_KTHW = above_KTHW[:, evaluator.tokens_of(event, len(loud_T))]
        shown = torch.cat((above_KTHW, above_KTHW.any(0, keepdim=True)))
        areas.append(shown.double().mean((1, 2, 3)))
    return torch.stack(areas).numpy()


def retrieved(
    evaluator: WorldEvaluator, head: Head, count: int, track: Track
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ask with each clip for the most similar picture of all.

    Returns
    -------
    tuple
        Float [2, 2, N], 1 or 0: by the own head and by all heads; whether the first picture shows
        what is heard, and whether it is the clip's own. And float [N], the share of pictures that
        show it.
    """
    model, seen, heard, clips = evaluator.model, [], [], []
    for number in range(count):
        case = evaluator.split.case(head, number)
        seen.append(model.encode_image(case.picture_HW3))
        heard.append(model.encode_audio(case.clip.wave_S))
        clips.append(case.clip)
    events = [clip.events[0] for clip in clips]
    shows_NV = np.array([[event.name in clip.scene.names for clip in clips] for event in events])
    tops = []
    for index in track(range(count), f"retrieval by {head}"):
        volume_VKTHW = model.volumes([heard[index]], seen)[0].cpu()
        tops.append(_tops(evaluator, volume_VKTHW, events[index], evaluator.own[head]))
    top_2N = np.array(tops).T
    numbers_N = np.arange(count)
    found = [(shows_NV[numbers_N, top_N], top_N == numbers_N) for top_N in top_2N]
    return np.array(found, np.float64), shows_NV.mean(1)


def _tops(
    evaluator: WorldEvaluator, volume_VKTHW: Tensor, event: AudioEvent, own: int
) -> list[int]:
    mask_VT = evaluator.tokens_of(event, volume_VKTHW.shape[2]).expand(len(volume_VKTHW), -1)
    heads_VK = aggregate(volume_VKTHW, mask_VT, MISA, join_heads=False)
    joined_V = aggregate(volume_VKTHW, mask_VT, MODEL, join_heads=True)
    return [int(heads_VK[:, own].argmax()), int(joined_V.argmax())]
