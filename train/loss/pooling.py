"""From samples to tokens, and from features to one vector a clip: what the ablations compare.

Hamilton et al. (2024), Table 4: average pooling, CLS tokens and SimPool against the dense
maximum; Table 3: the maximum of the heads' sum against that of the strongest head. B clips,
K heads, C channels of a head, D = K C, H W grid, T tokens, N positions.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Pooling = Literal["dense", "dense_sum", "average", "cls", "simpool"]

AUDIBLE = 0.01
"""A token holds sound when its mask is above this."""


def token_mask(mask_BS: Tensor, tokens: int) -> Tensor:
    """Return a mask of samples [B, S] at each of T tokens, float32 between 0 and 1.

    Tokens are spread evenly over all samples, as the released training has them.
    """
    return functional.interpolate(mask_BS[:, None], tokens, mode="linear", align_corners=False)[
        :, 0
    ]


def summed(features_BKCx: Tensor) -> Tensor:
    """Return the features [B, 1, D, ...] of one head, whose products are the heads' sum."""
    return features_BKCx.flatten(1, 2)[:, None]


def average(features_BKCN: Tensor, weight_BN: Tensor) -> Tensor:
    """Return the weighted mean [B, D] over positions."""
    weight_BN = weight_BN / weight_BN.sum(dim=-1, keepdim=True).clamp_min(1e-3)
    return torch.einsum("bkcn,bn->bkc", features_BKCN, weight_BN).flatten(1)


def cls(features_BKCN: Tensor) -> Tensor:
    """Return the CLS part [B, D]: the latter half of the channels, the same everywhere."""
    return features_BKCN[:, :, features_BKCN.shape[2] // 2 :, 0].flatten(1)


class SimPool(nn.Module):
    """Psomas et al., "Keep It SimPool" (2023): one step of attention from the average.

    The weighted mean is a power mean of exponent `GAMMA`, of values made non-negative.
    """

    GAMMA = 1.25

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)

    def forward(self, features_BKCN: Tensor, weight_BN: Tensor) -> Tensor:
        """Return the pooled vector [B, D] of the positions with weight."""
        features_BND = features_BKCN.flatten(1, 2).transpose(1, 2)
        query_BD = self.query(average(features_BKCN, weight_BN))
        key_BND = self.key(self.norm(features_BND))
        score_BN = torch.einsum("bd,bnd->bn", query_BD, key_BND) / query_BD.shape[-1] ** 0.5
        silent_BN = (weight_BN <= 0) & (weight_BN > 0).any(dim=-1, keepdim=True)
        attention_BN = score_BN.masked_fill(silent_BN, -torch.inf).softmax(dim=-1)
        lowest_B11 = features_BND.amin(dim=(1, 2), keepdim=True)
        powers_BND = (features_BND - lowest_B11).clamp_min(1e-6).pow(self.GAMMA)
        mean_BD = torch.einsum("bn,bnd->bd", attention_BN, powers_BND)
        return mean_BD.pow(1 / self.GAMMA)
