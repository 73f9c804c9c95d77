"""What a network learns from its teacher: unlabelled sound enters, a share of the loss leaves.

The teacher is the network as it was, hearing windows as a whole; the student hears them as a
stream, as `streaming` draws it. Pictures are of no use.

b clips of one process, K heads, C channels, T tokens, S samples.
"""

import torch
from torch import Tensor

from denseav.models import DenseAV
from denseav.models.audio_encoder import normalize_wave
from denseav.train.data.batch import Batch
from denseav.train.distributed.collectives import total
from denseav.train.loss.learner import Encode


def distillation_terms(
    encode: Encode, batch: Batch, teacher: DenseAV, tokens: int
) -> dict[str, Tensor]:
    """Return the squared distance of the student's features, as a share of the teacher's square.

    Parameters
    ----------
    encode
        The learner, or what wraps it.
    batch
        This process's clips.
    teacher
        In evaluation mode, on the same device.
    tokens
        Of one of the teacher's windows, which tile a clip; 0 for the whole clip.
    """
    no_image_b3HW = batch.image_B3HW[..., :0, :0]
    student_bKCT = encode(no_image_b3HW, batch.wave_BS, batch.audio_mask_BS).audio_bKCT
    teacher_bKCT = encode_windows(teacher, normalize_wave(batch.wave_BS), tokens).float()
    scale = total(teacher_bKCT.square().sum())
    return {"distillation": (student_bKCT - teacher_bKCT).square().sum() / scale}


@torch.no_grad()
def encode_windows(teacher: DenseAV, wave_bS: Tensor, tokens: int) -> Tensor:
    """Return features [b, K, C, T] of windows of so many tokens, one after the other."""
    audio = teacher.config.audio
    hop, beyond = audio.token_hop_samples, audio.token_span_samples - audio.token_hop_samples
    whole = (wave_bS.shape[1] - beyond) // hop
    parts = [
        wave_bS[:, hop * first : hop * min(first + (tokens or whole), whole) + beyond]
        for first in range(0, whole, tokens or whole)
    ]
    return torch.cat([teacher.encode_audio(part_bS) for part_bS in parts], dim=-1)
