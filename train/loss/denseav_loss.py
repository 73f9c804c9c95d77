"""DenseAV's loss: a batch enters, the named terms of one process's share of it leave, float32.

It holds no weights, and runs the network through `learner.Encode` alone.
b clips of one process, A of all, V images of one, K heads, C channels, T tokens, S samples.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from denseav.train.data.batch import SOUND, SPEECH, Batch
from denseav.train.distributed.collectives import gather, rank
from denseav.train.loss import regularizers
from denseav.train.loss.chunked_similarity import dense_similarity, gated_similarity
from denseav.train.loss.cluster_mixtures import Assigned, Mixtures, mix, separation
from denseav.train.loss.info_nce import every_image, info_nce
from denseav.train.loss.learner import Encode, Features
from denseav.train.loss.pooling import AUDIBLE, summed, token_mask

_KINDS = {"speech": SPEECH, "sound": SOUND}

CONTRASTS = (
    "correspondence_sound",
    "correspondence_speech",
    "separation_sound",
    "separation_speech",
    "separation",
)
"""The terms of mixtures and of kinds by themselves; they have the weight `contrast`."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """How much each term counts; 0 leaves it out. The defaults are DenseAV's.

    Attributes
    ----------
    contrast
        The symmetric InfoNCE.
    disentanglement
        Two heads active at one place.
    splice
        Similarity with another clip, spliced in.
    calibration
        A calibrator that falls below one.
    nonnegativity
        Negative inner products.
    total_variation
        Steps between tokens.
    silence_l1
        Similarity of silence.
    silence_l2
        The same, squared.
    image_mixup
        Similarity with pictures mixed in.
    wrong_head
        Similarity in the head of the other kind; needs kinds or clusters, is not in the paper.
    distillation
        Distance from a teacher's features, where `streaming` has one.
    """

    contrast: float = 1.0
    disentanglement: float = 0.05
    splice: float = 0.01
    calibration: float = 0.1
    nonnegativity: float = 0.01
    total_variation: float = 0.01
    silence_l1: float = 0.01
    silence_l2: float = 0.0
    image_mixup: float = 0.1
    wrong_head: float = 0.0
    distillation: float = 1.0

    def ramped(self, share: float) -> "Weights":
        """Return the weights with `share` of what counts beside the contrast."""
        scaled = {name: share * weight for name, weight in vars(self).items()}
        return Weights(**scaled | {"contrast": self.contrast})

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum.

        Raises
        ------
        ValueError
            When a term has no weight.
        """
        weights = vars(self) | dict.fromkeys(CONTRASTS, self.contrast)
        if unknown := sorted(terms.keys() - weights.keys()):
            raise ValueError(f"terms without a weight: {', '.join(unknown)}")
        return torch.stack([weights[name] * term for name, term in terms.items()]).sum()


def denseav_terms(
    encode: Encode,
    batch: Batch,
    heads: tuple[str, ...],
    weights: Weights,
    generator: torch.Generator,
    assigned: Assigned | None = None,
) -> dict[str, Tensor]:
    """Return the terms of DenseAV's loss.

    Parameters
    ----------
    encode
        The learner, or what wraps it.
    batch
        This process's clips.
    heads
        The names of the network's heads.
    weights
        Which terms are wanted.
    generator
        Draws places, the same on all processes.
    assigned
        A head for each clip, with dense pooling; None for the paper's objective.
    """
    mixtures = mix(batch, assigned.head_B) if assigned and not assigned.alone else None
    features, mixed = _encode(encode, batch, mixtures)
    pairs = make_pairs(features, batch)
    if assigned and assigned.alone:
        sims_AV = gated_similarity(
            pairs.image_VKCHW, pairs.audio_AKCT, pairs.mask_AT, gather(assigned.head_B)
        )
    elif features.audio_bD is None:
        both = pairs.image_VKCHW, pairs.audio_AKCT
        image_VKCHW, audio_AKCT = map(summed, both) if features.sums_heads else both
        sims_AV = dense_similarity(image_VKCHW, audio_AKCT, pairs.mask_AT)
    else:
        assert features.image_VD is not None
        sims_AV = gather(features.audio_bD) @ features.image_VD.T
    logits_AA = every_image(sims_AV) * features.scale
    terms = {"contrast": info_nce(logits_AA, pairs.own)}
    if assigned and mixtures:
        terms["separation"] = separation(mixed, mixtures, assigned.head_B)
    return terms | regularize(
        pairs=pairs,
        scale=features.scale,
        batch=batch,
        heads=heads,
        weights=weights,
        generator=generator,
        right_head_b=assigned.head_B if assigned else None,
    )


def _encode(encode: Encode, batch: Batch, mixtures: Mixtures | None) -> tuple[Features, Features]:
    """Return what is made of a batch, and of the batch's images and its mixtures' audio."""
    waves, masks = [batch.wave_BS], [batch.audio_mask_BS]
    if mixtures:
        waves.append(mixtures.wave_MS)
        masks.append(mixtures.mask_MS)
    whole, clips = encode(batch.image_B3HW, torch.cat(waves), torch.cat(masks)), len(batch)
    audio_bKCT, mask_bT = whole.audio_bKCT, whole.mask_bT
    mixed = whole._replace(audio_bKCT=audio_bKCT[clips:], mask_bT=mask_bT[clips:])
    return whole._replace(audio_bKCT=audio_bKCT[:clips], mask_bT=mask_bT[:clips]), mixed


def make_pairs(features: Features, batch: Batch) -> regularizers.Pairs:
    """Gather what the losses look at from all processes."""
    height, width = features.image_VKCHW.shape[-2:]
    tokens = features.audio_bKCT.shape[-1]
    return regularizers.Pairs(
        image_VKCHW=features.image_VKCHW,
        audio_AKCT=gather(features.audio_bKCT),
        mask_AT=gather(features.mask_bT > AUDIBLE),
        positive_AT=gather(token_mask(batch.positive_mask_BS, tokens)),
        image_mask_A1HW=gather(
            functional.adaptive_avg_pool2d(batch.image_mask_B1HW, (height, width))
        ),
        first=rank() * len(batch),
    )


def regularize(
    pairs: regularizers.Pairs,
    scale: Tensor,
    batch: Batch,
    heads: tuple[str, ...],
    weights: Weights,
    generator: torch.Generator,
    right_head_b: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return the wanted terms beside the contrast; a clip's right head is its kind's, if told."""
    places = regularizers.Places.draw(pairs, generator).to(scale.device)
    if right_head_b is None:
        right_head_b = torch.full_like(batch.kind_B, -1)
        for head, kind in _KINDS.items():
            if head in heads:
                right_head_b[batch.kind_B == kind] = heads.index(head)
    return regularizers.regularizers(
        pairs=pairs, scale=scale, places=places, right_head_B=right_head_b, wanted=vars(weights)
    )
