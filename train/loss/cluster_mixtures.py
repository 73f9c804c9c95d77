"""Two clips of two clusters at once: a batch and its clusters enter, mixtures and a term leave.

Mix-and-separate (Ryu et al., "Seeing Speech and Sound", 2025, equation 9) with clusters, of which
nobody says what they are, in the place of labels: of a mixture the head of each clip's cluster is
to find that clip's picture. That part is not in either paper.

B clips and M mixtures of one process, A of all, V images of one, S samples at 16 kHz.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from denseav.train.data.batch import Batch
from denseav.train.distributed.collectives import gather, rank
from denseav.train.loss.chunked_similarity import gated_similarity
from denseav.train.loss.info_nce import every_image, info_nce
from denseav.train.loss.learner import Features
from denseav.train.loss.pooling import AUDIBLE

QUIET = 1e-5
"""A clip that is no louder, RMS where it sounds, stays as it is, and so does its partner."""


class Assigned(NamedTuple):
    """The head of each clip's cluster, int64 [B], and what it is for.

    With `alone`, a clip is compared in that head alone; else in all, and its mixtures in that.
    """

    head_B: Tensor
    alone: bool


class Mixtures(NamedTuple):
    """Waves and masks, float32 [M, S], and the two clips in each, int64 [M]."""

    wave_MS: Tensor
    mask_MS: Tensor
    clips_2M: tuple[Tensor, Tensor]


def mix(batch: Batch, head_B: Tensor) -> Mixtures:
    """Return B / 2 mixtures, of clips of different clusters as far as they go.

    In the order of their clusters, each clip of the first half is with one of the second, which is
    made as loud where it sounds, and turned so far round that both are loud at the same time.
    """
    order_B = head_B.argsort(stable=True)
    count = len(order_B) // 2
    first_M, second_M = order_B[:count], order_B[count : 2 * count]
    samples = batch.wave_BS.shape[1]
    middle_B = _middle(batch.wave_BS)
    at_S = torch.arange(samples, device=order_B.device)
    turned_MS = (at_S - (middle_B[first_M] - middle_B[second_M])[:, None]) % samples
    rms_B = _rms(batch.wave_BS, batch.positive_mask_BS)
    quiet_M = torch.minimum(rms_B[first_M], rms_B[second_M]) <= QUIET
    gain_M = torch.where(quiet_M, 1.0, rms_B[first_M] / rms_B[second_M].clamp_min(QUIET))
    second_MS = gain_M[:, None] * batch.wave_BS[second_M].gather(1, turned_MS)
    return Mixtures(
        wave_MS=batch.wave_BS[first_M] + second_MS,
        mask_MS=torch.maximum(
            batch.audio_mask_BS[first_M], batch.audio_mask_BS[second_M].gather(1, turned_MS)
        ),
        clips_2M=(first_M, second_M),
    )


def separation(features: Features, mixtures: Mixtures, head_B: Tensor) -> Tensor:
    """Return the InfoNCE of mixtures and pictures, the mean of both halves.

    Pictures of the other half are never right, that of the other clip in a mixture least of all:
    a head that hears both would find it.

    Parameters
    ----------
    features
        Of the batch's images, and of the mixtures' audio.
    mixtures
        What that audio is of.
    head_B
        The head of each clip's cluster.
    """
    audio_AKCT, mask_AT = gather(features.audio_bKCT), gather(features.mask_bT > AUDIBLE)
    count = len(mixtures.wave_MS)
    own = slice(rank() * count, (rank() + 1) * count)
    terms = []
    for clip_M, other_M in (mixtures.clips_2M, mixtures.clips_2M[::-1]):
        head_A = gather(head_B[clip_M])
        logits = [
            every_image(gated_similarity(image_VKCHW, audio_AKCT, mask_AT, head_A))
            for image_VKCHW in (features.image_VKCHW[clip_M], features.image_VKCHW[other_M])
        ]
        terms.append(info_nce(torch.cat(logits, 1) * features.scale, own))
    return torch.stack(terms).mean()


def _rms(wave_BS: Tensor, mask_BS: Tensor) -> Tensor:
    """Return how loud each clip [B] is where it sounds."""
    energy_B = (wave_BS * mask_BS).square().sum(1)
    return (energy_B / mask_BS.sum(1).clamp_min(1)).sqrt()


def _middle(wave_BS: Tensor) -> Tensor:
    """Return the mean sample [B] of each clip, weighted by energy."""
    energy_BS = wave_BS.double().square()
    at_S = torch.arange(wave_BS.shape[1], device=wave_BS.device)
    middle_B = (energy_BS * at_S).sum(1) / energy_BS.sum(1).clamp_min(1e-12)
    return middle_B.long()
