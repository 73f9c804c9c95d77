"""Retrieval: similarities of all clips with all pictures enter, who was found leaves.

Clip i belongs to picture i. Recall at k counts the queries whose partner is among the k most
similar: `image_to_audio` asks with pictures, `audio_to_image` with clips (the released `A_r` and
`I_r`). A one-head score on the other head's data is the wrong-head retrieval of Seeing Speech and
Sound (2025, Table 6): the lower, the better separated.

A clips, V pictures, K heads.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.retrieval import retrieval_hit_rate

RANKS = (1, 5, 10)


@dataclass(frozen=True, kw_only=True)
class Hits:
    """Whether each query found its partner among the first k, bool [N]."""

    image_to_audio_N: NDArray[np.bool_]
    audio_to_image_N: NDArray[np.bool_]


def total(sims_AVK: Tensor) -> Tensor:
    """Join the heads by their sum, as the released evaluation does (training takes a maximum)."""
    return sims_AVK.sum(dim=-1)


def hits(sims_AV: Tensor, k: int) -> Hits:
    """Ask with every picture and with every clip.

    Parameters
    ----------
    sims_AV
        Square, float; partners on the diagonal.
    k
        How many answers a query may give.
    """
    return Hits(image_to_audio_N=_found(sims_AV.T, k), audio_to_image_N=_found(sims_AV, k))


def _found(sims_QN: Tensor, k: int) -> NDArray[np.bool_]:
    partner_QN = torch.eye(len(sims_QN), dtype=torch.bool)
    asked = zip(sims_QN.cpu(), partner_QN, strict=True)
    return np.array([retrieval_hit_rate(*query, top_k=k) > 0 for query in asked], dtype=np.bool_)
