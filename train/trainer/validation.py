"""Retrieval on held-out clips while training: batches enter, recalls leave.

As in the released evaluation, heads are joined by their sum and nothing is calibrated.
b clips of this process, A of all.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from denseav.train.data.batch import Batch
from denseav.train.distributed.collectives import gather, gather_objects
from denseav.train.loss.chunked_similarity import dense_similarity
from denseav.train.loss.denseav_loss import every_image
from denseav.train.loss.learner import Features, Learner
from denseav.train.loss.pooling import AUDIBLE
from denseav.train.metrics.retrieval import RANKS, hits


@torch.no_grad()
def recalls(
    learner: Learner, batches: Iterable[Batch], device: torch.device, limit: int
) -> dict[str, float]:
    """Return each recall, in percent, and their mean as `recall`.

    Parameters
    ----------
    learner
        In evaluation mode.
    batches
        Held-out clips of this process.
    device
        Where to compute.
    limit
        So many clips of each process are enough; processes compare as many as the poorest has.
    """
    features = _encode(learner, batches, device, limit)
    count = min(limit, *gather_objects(len(features.mask_bT)))
    sims_AA = _similarities(_first(features, count)).cpu()
    found = {}
    for k in RANKS:
        right = hits(sims_AA, min(k, len(sims_AA)))
        found[f"image_to_audio/{k}"] = 100 * float(right.image_to_audio_N.mean())
        found[f"audio_to_image/{k}"] = 100 * float(right.audio_to_image_N.mean())
    return found | {"recall": sum(found.values()) / len(found)}


def _encode(
    learner: Learner, batches: Iterable[Batch], device: torch.device, limit: int
) -> Features:
    parts: list[Features] = []
    clips = 0
    left = iter(batches)
    while True:
        batch = next(left, None) if clips < limit else None
        # Processes that share weights can only encode together.
        if not all(gather_objects(batch is not None)) or batch is None:
            break
        held = batch.to(device)
        parts.append(learner(held.image_B3HW, held.wave_BS, held.audio_mask_BS))
        clips += len(batch)
    return Features(
        image_VKCHW=torch.cat([part.image_VKCHW for part in parts]),
        audio_bKCT=torch.cat([part.audio_bKCT for part in parts]),
        mask_bT=torch.cat([part.mask_bT for part in parts]),
        scale=parts[0].scale,
        image_VD=_stacked([part.image_VD for part in parts]),
        audio_bD=_stacked([part.audio_bD for part in parts]),
    )


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
