"""Mix and separate: two sounds at once, and each head is to hear its own.

Ryu et al., "Seeing Speech and Sound" (2025), equations 7, 9 and 11. Of every couple of clips one
is speech and one another sound, each with its picture, and there is the mixture of both. Images
and clean audio are in turns the sound's and the speech's; mixtures follow the clean audio.

b couples of one process, A of all, V images of one kind of this process.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from denseav.models.config import ModelConfig
from denseav.train.data.batch import SOUND, SPEECH, Batch
from denseav.train.distributed.collectives import gather, rank
from denseav.train.errors import DataError
from denseav.train.loss.chunked_similarity import dense_similarity
from denseav.train.loss.denseav_loss import (
    Weights,
    make_pairs,
    regularize,
)
from denseav.train.loss.info_nce import every_image, info_nce
from denseav.train.loss.learner import Encode, Features
from denseav.train.loss.pooling import AUDIBLE


@dataclass(frozen=True, kw_only=True)
class Separation:
    """What the paper leaves open of its losses.

    Attributes
    ----------
    shared_negatives
        Whether pictures of the other kind are negatives of a mixture too.
    own_head
        Whether a clean clip is compared in the head of its kind alone, not in the best.
    """

    shared_negatives: bool = False
    own_head: bool = False


def couples(batch: Batch) -> tuple[Batch, Batch]:
    """Return the sounds and the speech of a mixed batch, row by row.

    Raises
    ------
    DataError
        When the batch has no partners, or a couple is not one of speech and one of sound.
    """
    other = batch.partner
    if other is None:
        raise DataError("mix-and-separate needs mixtures: set data.others and data.mixing")
    sounds_B = batch.kind_B == SOUND
    if (torch.where(sounds_B, other.kind_B, batch.kind_B) != SPEECH).any() or (
        torch.where(sounds_B, batch.kind_B, other.kind_B) != SOUND
    ).any():
        raise DataError(
            "mix-and-separate needs clips of speech in one set of shards and of sound in the "
            "other; prepare them with their --kind"
        )
    return _chosen(sounds_B, batch, other), _chosen(sounds_B, other, batch)


def separation_terms(
    encode: Encode,
    batch: Batch,
    heads: tuple[str, ...],
    weights: Weights,
    generator: torch.Generator,
    separation: Separation,
    *,
    mixtures: bool,
) -> dict[str, Tensor]:
    """Return the terms of mix-and-separate: correspondence, separation and DenseAV's others.

    Parameters
    ----------
    encode, batch, heads, weights, generator
        As in `denseav_terms`; every contrast has the weight `contrast`.
    separation
        What the paper leaves open.
    mixtures
        Whether mixtures are learned from yet; while the aligners warm up they are not.
    """
    sound, speech = couples(batch)
    clean = _joined(sound, speech)
    waves, masks = [clean.wave_BS], [clean.audio_mask_BS]
    if mixtures:
        assert batch.mixed_wave_BS is not None
        waves.append(batch.mixed_wave_BS)
        masks.append(batch.mixed_mask_BS)
    features = encode(clean.image_B3HW, torch.cat(waves), torch.cat(masks))
    terms = _correspondence(features, len(batch), heads if separation.own_head else None)
    if mixtures:
        terms |= _separation(features, len(batch), heads, separation)
    couple = 2 * len(batch)
    pairs = make_pairs(
        features._replace(
            audio_bKCT=features.audio_bKCT[:couple], mask_bT=features.mask_bT[:couple]
        ),
        clean,
    )
    return terms | regularize(
        pairs=pairs,
        scale=features.scale,
        batch=clean,
        heads=heads,
        weights=weights,
        generator=generator,
    )


def check_heads(network: ModelConfig) -> None:
    """Refuse a network without a head for each kind.

    Raises
    ------
    DataError
        When it has other heads.
    """
    if set(network.heads) != {"sound", "speech"}:
        raise DataError(
            f"mix-and-separate needs the heads sound and speech, not {', '.join(network.heads)}; "
            "set network.heads"
        )


def _correspondence(
    features: Features, batch: int, heads: tuple[str, ...] | None
) -> dict[str, Tensor]:
    terms = {}
    for index, kind in enumerate(("sound", "speech")):
        part = slice(index, 2 * batch, 2)
        sims_AV = dense_similarity(
            features.image_VKCHW[part],
            gather(features.audio_bKCT[part]),
            gather(features.mask_bT[part] > AUDIBLE),
            head=heads.index(kind) if heads else None,
        )
        logits_AA = every_image(sims_AV) * features.scale
        terms[f"correspondence_{kind}"] = info_nce(logits_AA, _own(batch))
    return terms


def _separation(
    features: Features, batch: int, heads: tuple[str, ...], separation: Separation
) -> dict[str, Tensor]:
    mixed_AKCT = gather(features.audio_bKCT[2 * batch :])
    mask_AT = gather(features.mask_bT[2 * batch :] > AUDIBLE)
    images = features.image_VKCHW[0::2], features.image_VKCHW[1::2]
    terms = {}
    for index, kind in enumerate(("sound", "speech")):
        shown = [images[index], images[1 - index]][: 2 if separation.shared_negatives else 1]
        logits = [
            every_image(dense_similarity(image, mixed_AKCT, mask_AT, head=heads.index(kind)))
            for image in shown
        ]
        terms[f"separation_{kind}"] = info_nce(torch.cat(logits, 1) * features.scale, _own(batch))
    return terms


def _own(batch: int) -> slice:
    return slice(rank() * batch, (rank() + 1) * batch)


def _chosen(first_B: Tensor, one: Batch, other: Batch) -> Batch:
    def choose(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(first_B.view(-1, *(1,) * (a.dim() - 1)), a, b)

    return _merged(choose, one, other)


def _joined(one: Batch, other: Batch) -> Batch:
    return _merged(lambda a, b: torch.stack((a, b), dim=1).flatten(0, 1), one, other)


def _merged(join: Callable[[Tensor, Tensor], Tensor], one: Batch, other: Batch) -> Batch:
    names = (field.name for field in dataclasses.fields(Batch))
    parts: dict[str, Any] = {
        name: join(getattr(one, name), getattr(other, name))
        for name in names
        if name not in ("partner", "mixed_wave_BS")
    }
    return Batch(**parts)
