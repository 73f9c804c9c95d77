"""Sound heard as a stream while training: settings and waves enter, token features leave.

One network is to serve every setting of a stream and the whole window too. So each batch draws
what is remembered, what is recomputed and how much later a token is asked for; attention is
masked accordingly.

b clips of one process, K heads, C channels, T tokens, R tokens computed in a step, S samples.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from denseav.models import DenseAV
from denseav.models.streaming_mask import StreamConfig, encode_audio_streamed
from denseav.train.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class Streaming:
    """How streams are drawn, evenly, anew for each batch.

    Attributes
    ----------
    least_context
        Of tokens that are remembered.
    most_context
        Of tokens that are remembered.
    most_revisit
        Of tokens that are computed anew with each new one; the least is 0.
    windowed_share
        How many of all batches are heard as whole windows.
    teacher
        Learn from the sound that `initial` hears in whole windows, and from nothing else.
    teacher_tokens
        Of one such window; 0 for the whole clip. Windows follow each other.
    """

    least_context: int = 10
    most_context: int = 56
    most_revisit: int = 7
    windowed_share: float = 0.25
    teacher: bool = False
    teacher_tokens: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.least_context <= self.most_context:
            raise SettingsError("streaming: least_context is at least 1, most_context no less")
        if min(self.most_revisit, self.teacher_tokens) < 0 or not 0 <= self.windowed_share < 1:
            raise SettingsError(
                "streaming: most_revisit and teacher_tokens are at least 0, windowed_share is "
                "at least 0 and below 1"
            )

    def draw(self) -> StreamConfig | None:
        """Return one batch's stream, from PyTorch's random numbers; None for a whole window."""
        if torch.rand(()) < self.windowed_share:
            return None
        return StreamConfig(
            context_tokens=_between(self.least_context, self.most_context),
            revisit=_between(0, self.most_revisit),
        )


def encode_streamed(model: DenseAV, wave_bS: Tensor, config: StreamConfig) -> Tensor:
    """Return token features [b, K, C, T], each as it is so many tokens later as is drawn.

    The last tokens are those of the last step.
    """
    versions_bTKCR = encode_audio_streamed(model, wave_bS, config)
    token_T = torch.arange(versions_bTKCR.shape[1])
    step_T = (token_T + _between(0, config.revisit)).clamp(max=len(token_T) - 1)
    features_TbKC = versions_bTKCR[:, step_T, :, :, token_T - step_T + config.revisit]
    return features_TbKC.permute(1, 2, 3, 0)


def _between(least: int, most: int) -> int:
    return int(torch.randint(least, most + 1, ()))
