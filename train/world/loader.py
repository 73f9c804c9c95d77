"""Batches of the world, made as they are needed: no file is read, and none is written.

Which batch comes next depends on the seed and on how many came before, so that a loader can say
where it is in one number.

Axes: B clips, 3 red green blue, H W pixels, S samples at 16 kHz.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from denseav.models.audio_encoder import SAMPLE_RATE_HZ
from denseav.models.image_encoder import normalize_image
from denseav.train.data.batch import SOUND, SPEECH, TUNE, UNKNOWN, Batch
from denseav.train.errors import SettingsError
from denseav.train.world.clips import TWO_HEADS, AudioEvent, Clip, Head, Kind, make_clip
from denseav.train.world.library import library
from denseav.train.world.scenes import draw

MARGIN_S = 0.1
"""A token still belongs to a sound so long before and after it."""


@dataclass(frozen=True, kw_only=True)
class WorldSettings:
    """What is learned from.

    Attributes
    ----------
    batch_size
        Clips of one batch of one process; couples of clips for mix-and-separate.
    image_size
        Side of the picture, in pixels.
    samples
        Length of the sound.
    fewest_things
        At least so many things a scene has.
    most_things
        At most so many.
    single_batches
        So many batches, at first, have one thing in each scene, and nothing else.
    single_image_size
        Side of the picture in those.
    kinds
        What is heard, one of them in each clip: sounds, speech or tunes.
    told
        Whether a clip says if it is speech or another sound; not with tunes.
    validation_clips
        How many clips of the training library are kept for validation.
    """

    batch_size: int = 32
    image_size: int = 96
    samples: int = 2 * SAMPLE_RATE_HZ
    fewest_things: int = 1
    most_things: int = 3
    single_batches: int = 200
    single_image_size: int = 64
    kinds: tuple[Head, ...] = TWO_HEADS
    told: bool = False
    validation_clips: int = 128

    def __post_init__(self) -> None:
        if self.batch_size < 2 or not 1 <= self.fewest_things <= self.most_things <= 4:
            raise SettingsError("world: batch_size must be at least 2, and things between 1 and 4")
        if not self.kinds or len(set(self.kinds)) < len(self.kinds):
            raise SettingsError("world: kinds needs one kind or more, and none twice")
        if self.told and "tune" in self.kinds:
            raise SettingsError("world: told is of sound and speech alone; leave tune out of kinds")


class WorldLoader:
    """Batches of the world.

    `mixtures` makes each clip a couple of a sound and speech that are heard at the same time: the
    shorter of them lies within the longer.
    """

    def __init__(
        self, settings: WorldSettings, *, rank: int, world_size: int, seed: int, mixtures: bool
    ) -> None:
        self.settings = settings
        self._rank, self._world_size, self._seed, self._mixtures = rank, world_size, seed, mixtures
        self._library = library(held_out=False)
        self._given = 0

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

    def held_out(self) -> Iterator[Batch]:
        """Yield this process's share of the validation clips, always the same.

        They tell their kind, whether or not training is told: by it the heads are measured.
        """
        random = np.random.default_rng([self._seed, self._rank, 1])
        for _ in range(
            0, self.settings.validation_clips // self._world_size, self.settings.batch_size
        ):
            clips = self._clips(random, self.settings.kinds, single=False)
            yield self._stack(clips, told=True)

    def _batch(self, number: int) -> Batch:
        random = np.random.default_rng([self._seed, self._rank, 0, number])
        told = self.settings.told
        single = number < self.settings.single_batches
        if not self._mixtures:
            clips = self._clips(random, self.settings.kinds, single=single)
            return self._stack(clips, told=told)
        sounding = self._clips(random, ["sound"], single=single)
        during = [clip.events[0] for clip in sounding]
        sounds = self._stack(sounding, told=told)
        speech = self._stack(
            self._clips(random, ["speech"], single=single, during=during), told=told
        )
        return dataclasses.replace(
            sounds, partner=speech, mixed_wave_BS=sounds.wave_BS + speech.wave_BS
        )

    def _clips(
        self,
        random: Generator,
        kinds: Sequence[Kind],
        *,
        single: bool,
        during: Sequence[AudioEvent] | None = None,
    ) -> list[Clip]:
        settings = self.settings
        at_once: Sequence[AudioEvent | None] = during or [None] * settings.batch_size
        most = 1 if single else settings.most_things
        side = settings.single_image_size if single else settings.image_size
        return [
            make_clip(
                random,
                self._library,
                kinds[int(random.integers(len(kinds)))],
                size=(side, side),
                things=(min(settings.fewest_things, most), most),
                samples=settings.samples,
                plain=single,
                during=meanwhile,
            )
            for meanwhile in at_once
        ]

    def _stack(self, clips: list[Clip], *, told: bool) -> Batch:
        pictures = [draw(clip.scene, self._library)[0] for clip in clips]
        return stack(clips, pictures, told)


def stack(clips: list[Clip], pictures: list[Any], told: bool) -> Batch:
    """Stack clips and their uint8 pictures; `told` says what kinds they are."""
    image_B3HW = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    wave_BS = torch.from_numpy(np.stack([clip.wave_S for clip in clips]))
    names = {"sound": SOUND, "speech": SPEECH, "tune": TUNE}
    kinds = [names.get(clip.kind, UNKNOWN) if told else UNKNOWN for clip in clips]
    return Batch(
        image_B3HW=normalize_image(image_B3HW),
        wave_BS=wave_BS,
        audio_mask_BS=torch.ones_like(wave_BS),
        positive_mask_BS=torch.stack([_sounding(clip) for clip in clips]),
        image_mask_B1HW=torch.ones_like(image_B3HW[:, :1]),
        kind_B=torch.tensor(kinds),
    )


def _sounding(clip: Clip) -> Tensor:
    mask_S = torch.zeros(len(clip.wave_S))
    for event in clip.events:
        first = max(0, int((event.start_s - MARGIN_S) * SAMPLE_RATE_HZ))
        mask_S[first : int((event.stop_s + MARGIN_S) * SAMPLE_RATE_HZ)] = 1
    return mask_S
