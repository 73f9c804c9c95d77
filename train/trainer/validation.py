"""Held-out clips while training: batches enter; recalls leave, and how far heads are apart.

As in the released evaluation, heads are joined by their sum for recalls, and nothing is calibrated.
b clips of this process, A of all.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from denseav.models.similarity import volume
from denseav.train.data.batch import SOUND, SPEECH, UNKNOWN, Batch
from denseav.train.distributed.collectives import gather, gather_objects
from denseav.train.loss.chunked_similarity import dense_similarity
from denseav.train.loss.info_nce import every_image
from denseav.train.loss.learner import Features, Learner
from denseav.train.loss.pooling import AUDIBLE
from denseav.train.metrics.disentanglement import (
    activation_disentanglement,
    explained_share,
    prediction_disentanglement,
)
from denseav.train.metrics.retrieval import RANKS, hits

AT_ONCE = 64
"""So many clips' volumes there are at one time."""


class Encoded(NamedTuple):
    """Held-out clips of this process: their features, and of which kind each is."""

    features: Features
    kind_b: Tensor


@torch.no_grad()
def encode_clips(
    learner: Learner, batches: Iterable[Batch], device: torch.device, limit: int
) -> Encoded:
    """Encode as many held-out clips on each process.

    Parameters
    ----------
    learner
        In evaluation mode.
    batches
        Held-out clips of this process.
    device
        Where to compute.
    limit
        So many clips of each process are enough; all encode as many as the poorest has.
    """
    parts, kinds, clips = list[Features](), list[Tensor](), 0
    left = iter(batches)
    while True:
        batch = next(left, None) if clips < limit else None
        # Processes that share weights can only encode together.
        if not all(gather_objects(batch is not None)) or batch is None:
            break
        held = batch.to(device)
        parts.append(learner(held.image_B3HW, held.wave_BS, held.audio_mask_BS))
        kinds.append(batch.kind_B)
        clips += len(batch)
    features = Features(
        image_VKCHW=torch.cat([part.image_VKCHW for part in parts]),
        audio_bKCT=torch.cat([part.audio_bKCT for part in parts]),
        mask_bT=torch.cat([part.mask_bT for part in parts]),
        scale=parts[0].scale,
        image_VD=_stacked([part.image_VD for part in parts]),
        audio_bD=_stacked([part.audio_bD for part in parts]),
    )
    count = min(limit, *gather_objects(clips))
    return Encoded(_first(features, count), torch.cat(kinds)[:count])


@torch.no_grad()
def recalls(features: Features) -> dict[str, float]:
    """Return each recall among the clips of all processes, in percent, and the mean as `recall`."""
    sims_AA = _similarities(features).cpu()
    found = {}
    for k in RANKS:
        right = hits(sims_AA, min(k, len(sims_AA)))
        found[f"image_to_audio/{k}"] = 100 * float(right.image_to_audio_N.mean())
        found[f"audio_to_image/{k}"] = 100 * float(right.audio_to_image_N.mean())
    return found | {"recall": sum(found.values()) / len(found)}


@torch.no_grad()
def disentanglement(encoded: Sequence[Encoded]) -> dict[str, float]:
    """Return PredDis and ActDis of all processes' clips, in percent.

    Of three heads or more, how much of which one leads is explained by the kind. Nothing where
    there is one head, or not two kinds, or where pooling has no places.
    """
    dense = [one for one in encoded if one.features.audio_bD is None]
    strength_bK = [_own_strength(one.features).cpu() for one in dense]
    shared = gather_objects((strength_bK, [one.kind_b.cpu() for one in dense]))
    strengths = [part for own, _ in shared for part in own]
    if not strengths or strengths[0].shape[1] < 2:
        return {}
    strength_AK = torch.cat(strengths)
    kind_A = torch.cat([part for _, own in shared for part in own])
    if strength_AK.shape[1] > 2:
        return _by_kind(strength_AK[kind_A != UNKNOWN], kind_A[kind_A != UNKNOWN])
    speech_NK, sound_NK = strength_AK[kind_A == SPEECH], strength_AK[kind_A == SOUND]
    if not len(speech_NK) or not len(sound_NK):
        return {}
    return {
        "PredDis": 100 * prediction_disentanglement(speech_NK, sound_NK),
        "ActDis": 100 * activation_disentanglement(speech_NK, sound_NK),
    }


def _by_kind(strength_AK: Tensor, kind_A: Tensor) -> dict[str, float]:
    if len(set(kind_A.tolist())) < 2:
        return {}
    return {"by_kind": 100 * explained_share(strength_AK, [str(int(kind)) for kind in kind_A])}


def _own_strength(features: Features) -> Tensor:
    """Return each clip's similarity [b, K] with its own picture, by each head."""
    strengths = []
    for at in range(0, len(features.mask_bT), AT_ONCE):
        some = slice(at, at + AT_ONCE)
        volume_bKTHW = volume(features.image_VKCHW[some], features.audio_bKCT[some])
        weight_b1T = (features.mask_bT[some, None] > AUDIBLE).float()
        sum_bK = (volume_bKTHW.amax(dim=(-2, -1)) * weight_b1T).sum(dim=-1)
        strengths.append(sum_bK / weight_b1T.sum(dim=-1).clamp_min(1e-3))
    return torch.cat(strengths)


def _stacked(parts: list[Tensor | None]) -> Tensor | None:
    vectors = [part for part in parts if part is not None]
    return torch.cat(vectors) if vectors else None


def _first(features: Features, count: int) -> Features:
    image_VD, audio_bD = features.image_VD, features.audio_bD
    return Features(
        image_VKCHW=features.image_VKCHW[:count],
        audio_bKCT=features.audio_bKCT[:count],
        mask_bT=features.mask_bT[:count],
        scale=features.scale,
        image_VD=None if image_VD is None else image_VD[:count],
        audio_bD=None if audio_bD is None else audio_bD[:count],
    )


def _similarities(features: Features) -> Tensor:
    if features.audio_bD is not None and features.image_VD is not None:
        return every_image(gather(features.audio_bD) @ features.image_VD.T)
    audio_AKCT, mask_AT = gather(features.audio_bKCT), gather(features.mask_bT > AUDIBLE)
    heads = range(audio_AKCT.shape[1])
    sims = [
        dense_similarity(features.image_VKCHW, audio_AKCT, mask_AT, head=head) for head in heads
    ]
    return every_image(torch.stack(sims).sum(dim=0))
