"""Clips made in memory: enough to see a network learn, on one core, without any file.

A *thing* has a colour and a chord. A picture shows it as a patch somewhere on noise; its sound is
its chord, faint noise around. Things of kind speech are heard as chords that change at half
time. Which clip comes next depends on the seed and on how many came before, so that a loader can
say where it is in one number.

Axes: B clips, 3 red green blue, H W pixels, S samples at 16 kHz.
"""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from denseav.models.audio_encoder import SAMPLE_RATE_HZ
from denseav.train.data.augment import mix
from denseav.train.data.batch import SOUND, SPEECH, Batch
from denseav.train.errors import SettingsError

LOWEST_HZ, HIGHEST_HZ = 200.0, 3_200.0
PATCH_SHARE = 3
"""The thing's side is this part of the picture's."""


@dataclass(frozen=True, kw_only=True)
class ToySettings:
    """What is made.

    Attributes
    ----------
    things
        How many there are, the first half speech and the others sounds.
    batch_size
        Different things in one batch of one process.
    image_size
        Side of the picture, in pixels.
    samples
        Length of the sound.
    """

    things: int = 32
    batch_size: int = 16
    image_size: int = 32
    samples: int = 2960 + 4 * 2880

    def __post_init__(self) -> None:
        if self.things < 2 or self.things % 2 or self.batch_size < 1:
            raise SettingsError("made: things must be even and batch_size at least 1")


class ToyLoader:
    """Batches of made clips; `mixtures` pairs each with one of the other kind.

    Raises
    ------
    SettingsError
        When a batch of all processes would need more things than there are.
    """

    def __init__(
        self, settings: ToySettings, *, rank: int, world_size: int, seed: int, mixtures: bool
    ) -> None:
        available = settings.things // 2 if mixtures else settings.things
        if settings.batch_size * world_size > available:
            raise SettingsError(
                f"a batch of {settings.batch_size} on each of {world_size} processes needs more "
                f"than the {available} things there are; lower --made.batch_size"
            )
        self.settings = settings
        self._rank, self._world_size, self._seed, self._mixtures = rank, world_size, seed, mixtures
        self._given = 0
        self._colour_N3, self._chord_N22 = _things(settings.things)

    def endless(self) -> Iterator[Batch]:
        """Yield batches without end."""
        while True:
            self._given += 1
            yield self._batch(self._given - 1)

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader is."""
        return {"given": self._given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue behind the last batch that was given."""
        self._given = state["given"]

    def one_of_each(self) -> Batch:
        """Return one clip of every thing of this process, unlike those of `endless`."""
        random = Generator().manual_seed(self._seed - 1)
        return self._make(torch.arange(self._rank, self.settings.things, self._world_size), random)

    def _batch(self, number: int) -> Batch:
        shared = Generator().manual_seed((self._seed << 32) + number)
        batch, half = self.settings.batch_size, self.settings.things // 2
        if not self._mixtures:
            order = torch.randperm(self.settings.things, generator=shared)
            return self._make(self._own(order, batch), self._private(number))
        speech = self._own(torch.randperm(half, generator=shared), batch)
        sound = self._own(half + torch.randperm(half, generator=shared), batch)
        private = self._private(number)
        return _mixed(self._make(speech, private), self._make(sound, private))

    def _own(self, order: Tensor, batch: int) -> Tensor:
        return order[self._rank * batch : (self._rank + 1) * batch]

    def _private(self, number: int) -> Generator:
        return Generator().manual_seed(((self._seed << 32) + number) * 1009 + self._rank + 1)

    def _make(self, thing_B: Tensor, random: Generator) -> Batch:
        count, samples = len(thing_B), self.settings.samples
        image_B3HW = self._pictures(thing_B, random)
        half = self.settings.things // 2
        return Batch(
            image_B3HW=image_B3HW,
            wave_BS=self._sounds(thing_B, random),
            audio_mask_BS=torch.ones(count, samples),
            positive_mask_BS=torch.ones(count, samples),
            image_mask_B1HW=torch.ones_like(image_B3HW[:, :1]),
            kind_B=torch.where(thing_B < half, SPEECH, SOUND),
        )

    def _pictures(self, thing_B: Tensor, random: Generator) -> Tensor:
        size = self.settings.image_size
        side = size // PATCH_SHARE
        image_B3HW = 0.3 * torch.randn(len(thing_B), 3, size, size, generator=random)
        corner_B2 = torch.randint(size - side, (len(thing_B), 2), generator=random)
        for image, thing, (top, left) in zip(image_B3HW, thing_B, corner_B2.tolist(), strict=True):
            colour_31 = self._colour_N3[thing, :, None]
            image[:, top : top + side, left : left + side] += colour_31[..., None]
        return image_B3HW

    def _sounds(self, thing_B: Tensor, random: Generator) -> Tensor:
        time_S = torch.arange(self.settings.samples) / SAMPLE_RATE_HZ
        phase_B221 = 2 * math.pi * torch.rand(len(thing_B), 2, 2, 1, generator=random)
        tone_B22S = (2 * math.pi * self._chord_N22[thing_B][..., None] * time_S + phase_B221).sin()
        chord_B2S = tone_B22S.mean(dim=2)
        late_S = time_S > time_S[-1] / 2
        wave_BS = torch.where(late_S, chord_B2S[:, 1], chord_B2S[:, 0])
        noise_BS = torch.randn(wave_BS.shape, generator=random)
        return 0.3 * wave_BS + 0.01 * noise_BS


def _things(count: int) -> tuple[Tensor, Tensor]:
    """Return colours [N, 3] and chords [N, halves, tones] in hertz, always the same."""
    random = Generator().manual_seed(0)
    steps = torch.linspace(0, 1, count)
    tones_N = LOWEST_HZ * (HIGHEST_HZ / LOWEST_HZ) ** steps
    other_N = tones_N[torch.randperm(count, generator=random)]
    chord_N2 = torch.stack((tones_N, other_N), dim=1)
    later_N2 = torch.where((torch.arange(count) < count // 2)[:, None], chord_N2 * 1.2, chord_N2)
    angle_N = 2 * math.pi * steps * (1 - 1 / count)
    height_N = 2 * torch.rand(count, generator=random) - 1
    colour_N3 = torch.stack((angle_N.cos(), angle_N.sin(), height_N), dim=1) * 2
    return colour_N3, torch.stack((chord_N2, later_N2), dim=1)


def _mixed(batch: Batch, partner: Batch) -> Batch:
    mixed = [
        mix(*sounds, gain_db=0.0, level=True, normalized=False)
        for sounds in zip(
            batch.wave_BS,
            batch.audio_mask_BS,
            partner.wave_BS,
            partner.audio_mask_BS,
            strict=True,
        )
    ]
    return dataclasses.replace(batch, partner=partner, mixed_wave_BS=torch.stack(mixed))
