"""What tests of training share: a tiny learner and random batches of every kind."""

import dataclasses

import torch

from denseav.models import DenseAV, ModelConfig
from denseav.models.config import AudioConfig, ImageConfig, LoraConfig
from denseav.train.data.batch import SOUND, SPEECH, Batch
from denseav.train.loss.learner import Learner
from denseav.train.loss.pooling import Pooling

torch.set_num_threads(1)

SAMPLES = 2960 + 2880 * 5
NETWORK = ModelConfig(
    name="tiny",
    code_dim=12,
    image=ImageConfig(size=16, patch=4, hidden=12, layers=1, heads=2, pool_width=2),
    audio=AudioConfig(
        stem_channels=8,
        hidden=16,
        layers=1,
        heads=2,
        position_kernel=8,
        position_groups=4,
        aligner_heads=3,
        dropout=0.0,
        layer_drop=0.0,
        time_mask=0.0,
    ),
)


def with_lora() -> ModelConfig:
    """Return the tiny network with LoRA beside its image encoder."""
    image = dataclasses.replace(NETWORK.image, lora=LoraConfig(rank=2, alpha=4, dropout=0.0))
    return dataclasses.replace(NETWORK, image=image)


def learner(config: ModelConfig = NETWORK, pooling: Pooling = "dense") -> Learner:
    """Return a learner in training mode whose every weight is random."""
    torch.manual_seed(0)
    made = Learner(DenseAV(config), pooling)
    for parameter in made.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.2)
    made.model.calibrator.log_scale.data.fill_(-0.4)
    return made.train()


def batch(clips: int, kind: int = SPEECH, seed: int = 0) -> Batch:
    """Return random clips with padding, splices and mixed-in pictures."""
    random = torch.Generator().manual_seed(seed)
    ends = torch.randint(SAMPLES // 4, SAMPLES, (clips, 1), generator=random)
    time = torch.arange(SAMPLES)
    return Batch(
        image_B3HW=torch.randn(clips, 3, 16, 16, generator=random),
        wave_BS=torch.randn(clips, SAMPLES, generator=random),
        audio_mask_BS=(time < ends).float(),
        positive_mask_BS=(time > ends // 2).float(),
        image_mask_B1HW=(torch.rand(clips, 1, 16, 16, generator=random) > 0.3).float(),
        kind_B=torch.full((clips,), kind),
    )


def mixed_batch(clips: int) -> Batch:
    """Return random couples, alternately a speech clip with a sound and the reverse."""
    speech, sound = batch(clips, SPEECH, 1), batch(clips, SOUND, 2)
    swapped = torch.arange(clips) % 2 == 1
    return dataclasses.replace(
        chosen(swapped, sound, speech),
        partner=chosen(swapped, speech, sound),
        mixed_wave_BS=speech.wave_BS + sound.wave_BS,
    )


def chosen(first: torch.Tensor, one: Batch, other: Batch) -> Batch:
    """Return rows of `one` where `first`, else of `other`."""
    names = [field.name for field in dataclasses.fields(Batch)][:6]
    rows = [
        torch.stack(
            [getattr(one if pick else other, name)[i] for i, pick in enumerate(first.tolist())]
        )
        for name in names
    ]
    return Batch(**dict(zip(names, rows, strict=True)))  # type: ignore[arg-type]


def rows(whole: Batch, part: slice) -> Batch:
    """Return some rows of a batch."""
    parts = {}
    for field in dataclasses.fields(Batch):
        value = getattr(whole, field.name)
        if isinstance(value, Batch):
            value = rows(value, part)
        parts[field.name] = value[part] if isinstance(value, torch.Tensor) else value
    return Batch(**parts)
