"""The regularizers: features and masks in, one named number each out; nothing is kept.

Hamilton et al., "Separating the Chirp from the Chat" (2024), section 3 and supplement 16, with
the terms its released code adds: silence and image mix-up.

Several processes share one loss. Each has the V images of its own and the A clips of all, and
every function returns this process's *share*: the shares of all processes add up to the loss of
the whole batch. A process alone has all images, and its share is the loss.

A clips of all processes, V images of this one, B its pairs, K heads, C channels, T tokens,
H W grid, N places drawn.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from denseav.models.similarity import volume

PLACES = 250
"""How many places in the features, and how many silent tokens, are drawn for one step."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """What the losses look at: the features of a batch, and what is known of them.

    Attributes
    ----------
    image_VKCHW : this process's image features, float32.
    audio_AKCT : the audio features of all processes, float32.
    mask_AT : bool, whether a token holds sound.
    positive_AT : float32, 1 where the sound belongs to the image, 0 where it was spliced in.
    image_mask_A1HW : float32, 1 where the image is the clip's own, 0 where it was mixed in.
    first : the clip that belongs to this process's first image.
    """

    image_VKCHW: Tensor
    audio_AKCT: Tensor
    mask_AT: Tensor
    positive_AT: Tensor
    image_mask_A1HW: Tensor
    first: int = 0

    @property
    def own(self) -> slice:
        """Return which clips belong to this process's images."""
        return slice(self.first, self.first + len(self.image_VKCHW))

    @property
    def share(self) -> float:
        """Return which part of all pairs this process has."""
        return len(self.image_VKCHW) / len(self.audio_AKCT)

    def volumes(self) -> Tensor:
        """Return the volumes [B, K, T, H, W] of this process's pairs, zero where silent."""
        volume_BKTHW = volume(self.image_VKCHW, self.audio_AKCT[self.own])
        return volume_BKTHW * self.mask_AT[self.own, None, :, None, None]


def disentanglement(volume_BKTHW: Tensor) -> Tensor:
    """Return how much two heads are active at one place: the mean over all pairs of heads."""
    heads = volume_BKTHW.abs().unbind(dim=1)
    pairs = list(itertools.combinations(heads, 2))
    if not pairs:
        return volume_BKTHW.new_zeros(())
    return torch.stack([(one * other).mean() for one, other in pairs]).mean()


def total_variation(volume_BKTHW: Tensor) -> Tensor:
    """Return the mean squared step from each token to the next."""
    return (volume_BKTHW[:, :, 1:] - volume_BKTHW[:, :, :-1]).square().mean()


def calibration(scale: Tensor) -> Tensor:
    """Return the squared logarithm by which the calibrator's scale is below one."""
    return (-scale.log()).clamp_min(0).square().sum()


def splice(volume_BKTHW: Tensor, pairs: Pairs) -> Tensor:
    """Return the mean squared similarity where another clip was spliced in."""
    weight_AT = (1 - pairs.positive_AT) * pairs.mask_AT
    total = weight_AT.sum() * volume_BKTHW[0, :, 0].numel()
    weighted = volume_BKTHW.square() * weight_AT[pairs.own, None, :, None, None]
    return weighted.sum() / total.clamp_min(0.1)


def image_mixup(volume_BKTHW: Tensor, pairs: Pairs) -> Tensor:
    """Return the mean squared similarity where another image was mixed in."""
    strange_A1HW = 1 - pairs.image_mask_A1HW
    total = strange_A1HW.sum() * volume_BKTHW[0, :, :, 0, 0].numel()
    weighted = volume_BKTHW * strange_A1HW[pairs.own, :, None]
    return weighted.square().sum() / total.clamp_min(0.1)


def wrong_head(volume_BKTHW: Tensor, right_head_B: Tensor) -> Tensor:
    """Return the mean squared similarity of the heads beside the right one; -1 has no right one."""
    heads = volume_BKTHW.shape[1]
    index_K = torch.arange(heads, device=right_head_B.device)
    wrong_BK = (index_K != right_head_B[:, None]) & (right_head_B[:, None] >= 0)
    wrong_BKTHW = volume_BKTHW.square() * wrong_BK[..., None, None, None]
    return wrong_BKTHW.mean() * heads / max(heads - 1, 1)


@dataclass(frozen=True, kw_only=True)
class Places:
    """Places drawn in the batch of all processes, the same on each: every field is int64 [N]."""

    clip: Tensor
    token: Tensor
    row: Tensor
    column: Tensor
    silent: Tensor

    @classmethod
    def draw(cls, pairs: Pairs, generator: torch.Generator) -> "Places":
        """Draw places and silent tokens; no silent ones where there are too few."""
        clips, tokens = pairs.mask_AT.shape
        height, width = pairs.image_VKCHW.shape[-2:]
        clip, token, row, column = (
            torch.randint(limit, (PLACES,), generator=generator)
            for limit in (clips, tokens, height, width)
        )
        silent = int((~pairs.mask_AT).sum())
        chosen = torch.randperm(silent, generator=generator)[: PLACES if silent >= PLACES else 0]
        return cls(clip=clip, token=token, row=row, column=column, silent=chosen)

    def to(self, device: torch.device) -> "Places":
        """Return the places on a device."""
        return Places(**{name: value.to(device) for name, value in vars(self).items()})


def nonnegativity(pairs: Pairs, places: Places) -> Tensor:
    """Return the mean squared negative part of N drawn audio features with N image features."""
    audio_NKC = pairs.audio_AKCT[places.clip, :, :, places.token]
    mine = (places.clip >= pairs.own.start) & (places.clip < pairs.own.stop)
    image_NKC = pairs.image_VKCHW[
        places.clip[mine] - pairs.first, :, :, places.row[mine], places.column[mine]
    ]
    sims_NNK = torch.einsum("ikc,jkc->ijk", audio_NKC, image_NKC)
    count = len(places.clip) ** 2 * sims_NNK.shape[-1]
    return sims_NNK.clamp_max(0).square().sum() / count


def silence(pairs: Pairs, places: Places) -> tuple[Tensor, Tensor]:
    """Return the mean |similarity| and its mean square, of silent tokens with every image.

    Both are zero where too few tokens of the batch are silent.
    """
    if not len(places.silent):
        zero = pairs.image_VKCHW.new_zeros(())
        return zero, zero
    silent_NKC = pairs.audio_AKCT.movedim(-1, 1)[~pairs.mask_AT][places.silent]
    sims_VNKHW = torch.einsum("nkc,vkchw->vnkhw", silent_NKC, pairs.image_VKCHW)
    return sims_VNKHW.abs().mean() * pairs.share, sims_VNKHW.square().mean() * pairs.share


def regularizers(
    pairs: Pairs, scale: Tensor, places: Places, right_head_B: Tensor, wanted: Mapping[str, float]
) -> dict[str, Tensor]:
    """Return the shares of all terms beside the contrast; `wanted` of weight 0 are left out.

    Parameters
    ----------
    pairs, places
        The batch, and what was drawn of it.
    scale
        The calibrator's scale.
    right_head_B
        The head that each pair's kind of sound belongs to, or -1.
    wanted
        The weight of each term, by its name.
    """
    volume_BKTHW = pairs.volumes()
    silence_l1, silence_l2 = silence(pairs, places)
    terms = {
        "disentanglement": disentanglement(volume_BKTHW) * pairs.share,
        "splice": splice(volume_BKTHW, pairs),
        "calibration": calibration(scale) * pairs.share,
        "nonnegativity": nonnegativity(pairs, places),
        "total_variation": total_variation(volume_BKTHW) * pairs.share,
        "silence_l1": silence_l1,
        "silence_l2": silence_l2,
        "image_mixup": image_mixup(volume_BKTHW, pairs),
        "wrong_head": wrong_head(volume_BKTHW, right_head_B) * pairs.share,
    }
    return {name: term for name, term in terms.items() if wanted[name]}
