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
from denseav.train.loss.info_nce import info_nce
from denseav.train.loss.learner import Encode, Features
from denseav.train.loss.pooling import AUDIBLE, summed, token_mask

_KINDS = {"speech": SPEECH, "sound": SOUND}

CONTRASTS = (
    "correspondence_sound",
    "correspondence_speech",
    "separation_sound",
    "separation_speech",
)
"""The terms of mix-and-separate that have the weight `contrast`."""


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
        Similarity in the head of the other kind; needs kinds, is not in the paper.
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
    head_b: Tensor | None = None,
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
    head_b
        The one head that each clip is compared in, int64, with dense pooling; None for all, which
        is the paper's.
    """
    features = encode(batch.image_B3HW, batch.wave_BS, batch.audio_mask_BS)
    pairs = make_pairs(features, batch)
    if head_b is not None:
        sims_AV = gated_similarity(
            pairs.image_VKCHW, pairs.audio_AKCT, pairs.mask_AT, gather(head_b)
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
    return terms | regularize(
        pairs=pairs,
        scale=features.scale,
        batch=batch,
        heads=heads,
        weights=weights,
        generator=generator,
    )


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


def every_image(sims_AV: Tensor) -> Tensor:
    """Return the similarities [A, A] with the images of all processes."""
    return gather(sims_AV.T).T


def regularize(
    pairs: regularizers.Pairs,
    scale: Tensor,
    batch: Batch,
    heads: tuple[str, ...],
    weights: Weights,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Return the wanted terms beside the contrast."""
    places = regularizers.Places.draw(pairs, generator).to(scale.device)
    right_head_B = torch.full_like(batch.kind_B, -1)
    for head, kind in _KINDS.items():
        if head in heads:
            right_head_B[batch.kind_B == kind] = heads.index(head)
    return regularizers.regularizers(
        pairs=pairs, scale=scale, places=places, right_head_B=right_head_B, wanted=vars(weights)
    )
