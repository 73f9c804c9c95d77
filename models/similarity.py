"""Similarity: aligned features in; volumes, slices and one number for a pair out.

Plain inner products in float32: no scaling and no normalisation (Hamilton et al., 2024).
A audio clips, V images, B pairs, K heads, C channels, T tokens, H W grid.
"""

import torch
from torch import Tensor, nn

from denseav.models.config import Aggregation


def volume(image_BKCHW: Tensor, audio_BKCT: Tensor) -> Tensor:
    """Return the similarity volume [B, K, T, H, W] of each pair, float32.

    A batch of one on either side serves every item of the other.
    """
    return torch.einsum("bkct,bkchw->bkthw", audio_BKCT.float(), image_BKCHW.float())


def all_volumes(image_VKCHW: Tensor, audio_AKCT: Tensor) -> Tensor:
    """Return the volumes [A, V, K, T, H, W] of every clip with every image, float32."""
    return torch.einsum("akct,vkchw->avkthw", audio_AKCT.float(), image_VKCHW.float())


def similarity_slice(image_xKCHW: Tensor, audio_xKC: Tensor) -> Tensor:
    """Return the slice [..., K, H, W] of one token, or of the mean of some: it is linear."""
    return torch.einsum("...kc,...kchw->...khw", audio_xKC.float(), image_xKCHW.float())


def aggregate(
    volume_xKTHW: Tensor, mask_BT: Tensor | None, aggregation: Aggregation, *, join_heads: bool
) -> Tensor:
    """Reduce volumes to one similarity each.

    Parameters
    ----------
    volume_xKTHW
        [B, K, T, H, W] for pairs or [A, V, K, T, H, W] for all clips with all images.
    mask_BT
        Which tokens hold real audio: [B, T] or [A, T], bool or weights; None is all of them.
    aggregation
        The reduction.
    join_heads
        Whether to join the heads into one number, or return one for each.

    Returns
    -------
    Tensor
        The similarities [B] or [A, V], with a last axis K unless heads are joined.
    """
    if aggregation.nonnegative:
        volume_xKTHW = volume_xKTHW.clamp_min(0)
    elementwise = join_heads and aggregation.heads == "max_elementwise"
    if elementwise:
        volume_xKTHW = volume_xKTHW.amax(dim=-4, keepdim=True)
    weight_xKT = _token_weight(volume_xKTHW, mask_BT if aggregation.mask_silence else None)
    sims_xK = _reduce_clip(volume_xKTHW, weight_xKT, aggregation)
    if not join_heads:
        return sims_xK
    return sims_xK.amax(dim=-1) if aggregation.heads == "max" else sims_xK.sum(dim=-1)


def _token_weight(volume_xKTHW: Tensor, mask_BT: Tensor | None) -> Tensor:
    tokens = volume_xKTHW.shape[-3]
    if mask_BT is None:
        return volume_xKTHW.new_ones(tokens)
    between = (1,) * (volume_xKTHW.dim() - 4)
    return mask_BT.to(volume_xKTHW.dtype).reshape(len(mask_BT), *between, tokens)


def _reduce_clip(volume_xKTHW: Tensor, weight_xKT: Tensor, aggregation: Aggregation) -> Tensor:
    match aggregation.clips:
        case "misa":
            return _mean_time(volume_xKTHW.amax(dim=(-2, -1)), weight_xKT)
        case "mima":
            return _max_time(volume_xKTHW.amax(dim=(-2, -1)), weight_xKT)
        case "sisa":
            return _mean_time(volume_xKTHW.mean(dim=(-2, -1)), weight_xKT)
        case "paired":
            audio_led = _mean_time(volume_xKTHW.amax(dim=(-2, -1)), weight_xKT)
            peaks = _max_time(volume_xKTHW.movedim(-3, -1), weight_xKT[..., None, None, :])
            return (audio_led + peaks.mean(dim=(-2, -1))) / 2


def _mean_time(sims_xKT: Tensor, weight_xKT: Tensor) -> Tensor:
    total_xK = weight_xKT.sum(dim=-1).clamp_min(1e-3)
    return (sims_xKT * weight_xKT).sum(dim=-1) / total_xK


def _max_time(sims_xT: Tensor, weight_xT: Tensor) -> Tensor:
    return (sims_xT - 1e7 * (weight_xT == 0)).amax(dim=-1)


class Calibrator(nn.Module):
    """A learned scale on similarities before the loss; with a bias unless it is InfoNCE's."""

    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(1))
        self.bias = nn.Parameter(torch.zeros(1)) if bias else None

    @property
    def scale(self) -> Tensor:
        """Return the scale [1], kept within [0.01, 100]."""
        return self.log_scale.exp().clamp(0.01, 100)

    def forward(self, sims: Tensor) -> Tensor:
        """Scale similarities; without a bias, centre them, which no softmax can see."""
        scaled = self.scale * sims
        return scaled - scaled.mean() if self.bias is None else scaled + self.bias
