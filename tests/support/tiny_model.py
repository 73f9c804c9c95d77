"""A network of the real kind, small enough to build in a test."""

from dataclasses import replace

import torch
from torch import Tensor

from denseav.models import DenseAV, ModelConfig
from denseav.models.config import AudioConfig, ImageConfig

CONFIG = ModelConfig(
    name="tiny",
    code_dim=20,
    image=ImageConfig(size=32, patch=8, hidden=12, layers=2, heads=3),
    audio=AudioConfig(
        stem_channels=8,
        hidden=16,
        layers=2,
        heads=2,
        position_kernel=8,
        position_groups=4,
        aligner_heads=6,
        dropout=0.0,
        layer_drop=0.0,
        time_mask=0.0,
    ),
)


def tiny(**changes: object) -> DenseAV:
    """Return a tiny model in evaluation mode whose every weight is random, never zero or one."""
    torch.manual_seed(0)
    model = DenseAV(replace(CONFIG, **changes)).eval()  # type: ignore[arg-type]
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.2)
    return model


def tiny_audio(**changes: object) -> AudioConfig:
    """Return the tiny model's audio configuration, changed."""
    return replace(CONFIG.audio, **changes)  # type: ignore[arg-type]


def inputs(batch: int = 2, tokens: int = 4) -> tuple[Tensor, Tensor]:
    """Return random frames [B, 3, 32, 48] and waveforms [B, S] of `tokens` tokens."""
    torch.manual_seed(1)
    return torch.randn(batch, 3, 32, 48), torch.randn(batch, 2960 + 2880 * (tokens - 1))
