"""Disentanglement of two heads: their scores on speech and on sound enter, two numbers leave.

PredDis asks how well a head's score tells the two kinds of audio apart (average precision);
ActDis how quiet a head is on the kind that is not its own. Both take the better of the two ways
to assign heads to kinds (Hamilton et al., 2024). Beside them, for any number of heads: how much of
which head leads follows from the kind of a clip, or from its class.

N clips with their pictures, K heads, G groups of clips.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.classification import binary_average_precision

LEAST_RANGE = 1e-4


def prediction_disentanglement(speech_NK: Tensor, sound_NK: Tensor) -> float:
    """Return PredDis, in [0, 1].

    Parameters
    ----------
    speech_NK, sound_NK
        Each pair's similarity by each head, float; the numbers of clips may differ.

    Raises
    ------
    ValueError
        When there are not two heads, or one kind has no clips.
    """
    a_NK, b_NK = _unit_range(speech_NK, sound_NK)
    return _best_assignment(
        [[_precision(a, b), _precision(b, a)] for a, b in zip(a_NK.T, b_NK.T, strict=True)]
    )


def activation_disentanglement(speech_NK: Tensor, sound_NK: Tensor) -> float:
    """Return ActDis, in [0, 1]; parameters and errors are those of PredDis."""
    quiet_KD = [1 - part_NK.mean(dim=0) for part_NK in _unit_range(speech_NK, sound_NK)]
    return _best_assignment(torch.stack(quiet_KD, dim=1).tolist())


def explained_share(sims_NK: Tensor, groups: Sequence[str] | NDArray[np.str_]) -> float:
    """Return how much of which head leads is explained by groups of clips, in [0, 1].

    Eta squared: with the lead ``x_nk = sims_nk - mean_k sims_n``, the sum of squares between the
    groups, ``sum_g N_g |mean_g x - mean x|^2``, of that of all clips, ``sum_n |x_n - mean x|^2``.
    Of chance, (G - 1) / (N - 1) is explained. 0 where the lead never varies.

    Parameters
    ----------
    sims_NK
        Each clip's similarity with its own picture by each head, float; two heads or more.
    groups
        The group of each clip.

    Raises
    ------
    ValueError
        When there are fewer than two heads, or not a group for each clip.
    """
    if sims_NK.shape[1] < 2 or len(groups) != len(sims_NK):
        raise ValueError("which head leads needs two heads, and a group for each clip")
    lead_NK = (sims_NK - sims_NK.mean(dim=1, keepdim=True)).double()
    lead_NK = lead_NK - lead_NK.mean(dim=0)
    names, number = np.unique(np.asarray(groups), return_inverse=True)
    number_N = torch.from_numpy(number)
    belongs_GN = (number_N == torch.arange(len(names))[:, None]).to(lead_NK)
    mean_GK = belongs_GN @ lead_NK / belongs_GN.sum(dim=1, keepdim=True)
    between = float((mean_GK[number_N] ** 2).sum())
    total = float((lead_NK**2).sum())
    return between / total if total > 0 else 0.0


def _unit_range(speech_NK: Tensor, sound_NK: Tensor) -> tuple[Tensor, Tensor]:
    if speech_NK.shape[1:] != (2,) or sound_NK.shape[1:] != (2,):
        raise ValueError("PredDis and ActDis are defined for two heads")
    if not len(speech_NK) or not len(sound_NK):
        raise ValueError("PredDis and ActDis need both speech and sound")
    everything_NK = torch.cat((speech_NK, sound_NK))
    least_K = everything_NK.amin(dim=0)
    range_K = (everything_NK.amax(dim=0) - least_K).clamp_min(LEAST_RANGE)
    return (speech_NK - least_K) / range_K, (sound_NK - least_K) / range_K


def _precision(own_N: Tensor, other_N: Tensor) -> float:
    truth_N = torch.cat((torch.ones_like(own_N), torch.zeros_like(other_N))).int()
    return float(binary_average_precision(torch.cat((own_N, other_N)), truth_N))


def _best_assignment(table: list[list[float]]) -> float:
    straight, crossed = table[0][0] + table[1][1], table[0][1] + table[1][0]
    return max(straight, crossed) / 2
