"""Before any picture: an audio encoder learns to hear, from sound alone.

Of each clip some stretches are hidden, and from what is left the encoder has to say how loud each
band of the whole clip is, every 20 ms: masked prediction, as HuBERT's, with a log-mel spectrogram
in place of clusters. Small encoders that begin at random need it; released ones have had theirs.
Enters: the audio side of a configuration, and the world. Leaves: a folder as `transformers`
writes it, which `--backbones.audio` takes.

Axes: B clips, D hidden, F mel bands, L stem frames, S samples at 16 kHz.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchaudio
from torch import Tensor, nn
from torch.nn import functional

from denseav.models import DenseAV, ModelConfig
from denseav.models.audio_encoder import normalize_wave
from denseav.models.config import STEM_HOP_SAMPLES, STEM_SPAN_SAMPLES
from denseav.train.world_classes import CLASSES
from denseav.train.world_clips import RATE_HZ, Head, hear, room
from denseav.train.world_library import library

BANDS = 64
FLOOR = 1e-4


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """How the audio encoder is prepared.

    Attributes
    ----------
    steps : batches it learns from.
    batch_size : clips of a batch.
    samples : length of a clip.
    learning_rate : Adam's, after `warmup_steps`, falling to zero in the last third.
    hidden_share : how much of a clip is hidden, at most, in stretches of 0.2 s.
    """

    steps: int = 1500
    batch_size: int = 16
    samples: int = 2 * RATE_HZ
    learning_rate: float = 2e-3
    warmup_steps: int = 50
    hidden_share: float = 0.2


def pretrain(
    config: ModelConfig,
    settings: Pretraining,
    seed: int,
    out: Path,
    tell: Callable[[int, float], None],
) -> None:
    """Prepare an audio encoder and write it to `out`; `tell` hears of every step and its loss."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # transformers draws what is hidden from NumPy
    encoder = DenseAV(config).audio_encoder.train()
    encoder.hubert.config.apply_spec_augment = True
    encoder.hubert.config.mask_time_prob = settings.hidden_share
    bands = nn.Linear(config.audio.hidden, BANDS)
    weights = [*encoder.parameters(), *bands.parameters()]
    optimizer = torch.optim.Adam(weights)
    target = Spectrogram()
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * min(
                1.0, (step + 1) / settings.warmup_steps, 3 * (settings.steps - step) / settings.steps
            )
        wave_BS = normalize_wave(_waves(settings, np.random.default_rng([seed, step])))
        with torch.autocast("cpu", torch.bfloat16):
            hidden_BDL = encoder(wave_BS)
        said_BLF = bands(hidden_BDL.float().transpose(1, 2))
        loss = functional.l1_loss(said_BLF.transpose(1, 2), target(wave_BS))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(weights, 10.0)
        optimizer.step()
        tell(step + 1, loss.item())
    encoder.hubert.config.apply_spec_augment = config.audio.time_mask > 0
    encoder.hubert.save_pretrained(out)


class Spectrogram:
    """Waves [B, S] in, log-mel spectrograms [B, F, L] out: of each clip, mean 0 and deviation 1."""

    def __init__(self) -> None:
        self._mel = torchaudio.transforms.MelSpectrogram(
            RATE_HZ,
            n_fft=STEM_SPAN_SAMPLES,
            hop_length=STEM_HOP_SAMPLES,
            n_mels=BANDS,
            center=False,
        )

    def __call__(self, wave_BS: Tensor) -> Tensor:
        """Return one frame for each frame of HuBERT's stem."""
        log_BFL = (self._mel(wave_BS) + FLOOR).log()
        deviation_B11, mean_B11 = torch.std_mean(log_BFL, dim=(1, 2), keepdim=True)
        normal_BFL: Tensor = (log_BFL - mean_B11) / (deviation_B11 + 1e-3)
        return normal_BFL


def _waves(settings: Pretraining, random: np.random.Generator) -> Tensor:
    heads: tuple[Head, Head] = ("sound", "speech")
    waves = []
    for _ in range(settings.batch_size):
        wave_S = room(random, settings.samples)
        for head in heads[: 2 if random.random() < 0.3 else 1] if random.random() < 0.5 else heads[1:]:
            name = str(random.choice(CLASSES))
            wave_S = wave_S + hear(random, library(held_out=False), head, name, settings.samples)[1]
        waves.append(wave_S)
    return torch.from_numpy(np.stack(waves)).float()
