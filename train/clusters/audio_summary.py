"""A clip's audio as one vector: what an encoder makes of it where it is loud.

B clips, D hidden, L stem frames, S samples at 16 kHz.
"""

import torch
from torch import Tensor
from transformers import HubertModel

from denseav.models.audio_encoder import normalize_wave
from denseav.models.config import STEM_HOP_SAMPLES

LOUD = 0.1
"""Stem frames count that are at least so loud, of the loudest of the clip."""


@torch.no_grad()
def summarize(hubert: HubertModel, wave_BS: Tensor) -> Tensor:
    """Return mean and deviation [B, 2 D] of the features of each clip where it is loud, float32.

    The encoder has to be in evaluation mode; what it makes of a clip is the clip's alone then.
    """
    hidden_BLD = hubert(normalize_wave(wave_BS)).last_hidden_state.float()
    frames = hidden_BLD.shape[1]
    loudness_BL = wave_BS[:, : frames * STEM_HOP_SAMPLES].view(len(wave_BS), frames, -1).std(-1)
    loud_BL = loudness_BL >= LOUD * loudness_BL.amax(1, keepdim=True)
    summaries = [
        torch.cat((hidden_LD[loud_L].mean(0), hidden_LD[loud_L].std(0, correction=0)))
        for hidden_LD, loud_L in zip(hidden_BLD, loud_BL, strict=True)
    ]
    return torch.stack(summaries)
