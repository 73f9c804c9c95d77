"""Disentanglement of two heads: their scores on speech and on sound enter, two numbers leave.

PredDis asks how well a head's score tells the two kinds of audio apart (average precision);
ActDis how quiet a head is on the kind that is not its own. Both take the better of the two ways
to assign heads to kinds (Hamilton et al., 2024).

N clips with their pictures, K = 2 heads.
"""

import torch
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
