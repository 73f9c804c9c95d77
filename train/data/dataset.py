"""Rows: examples by epoch and number, each with its partner where two sounds are mixed.

What is drawn for a clip depends on the seed, the epoch and the clip alone, so that a row comes
out the same after an interruption and in any worker. Damaged clips are replaced by others of
their set, and logged.

Axes: S samples at 16 kHz.

Errors
------
DataError            the settings or the shards cannot be used
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.random import Generator
from torch import Tensor
from torch.utils.data import Dataset

from denseav.train.data.augment import mix
from denseav.train.data.example import Augmentation, DrawOther, Example, ExampleMaker
from denseav.train.data.sampler import ClipIndex
from denseav.train.data.shards import Clip, DamagedClip
from denseav.train.data.weighted_shards import WeightedShards, check_weights
from denseav.train.errors import DataError

_log = logging.getLogger(__name__)

T = TypeVar("T")

TRIES = 20
"""How many clips in a row may be damaged before the run stops."""


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """How two sounds are added, for mix-and-separate.

    Attributes
    ----------
    gain_low_db
        At least so much louder the clip is made than its partner.
    gain_high_db
        At most so much louder.
    level
        First give both the same loudness.
    normalized
        Instead, first give each zero mean and unit variance.
    """

    gain_low_db: float = 0.0
    gain_high_db: float = 0.0
    level: bool = True
    normalized: bool = False

    def __post_init__(self) -> None:
        if self.gain_low_db > self.gain_high_db:
            raise DataError("gain_low_db is above gain_high_db; exchange them")


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """What is loaded, and how.

    Attributes
    ----------
    shards
        The folder whose clips are gone through, all once an epoch; or several with their weights,
        `{FOLDER: 2, FOLDER: 1}`: each has that part of every epoch. An address will do for a
        folder, such as s3://BUCKET/FOLDER or hf://datasets/OWNER/NAME.
    others
        A second folder, or several with their weights, whose clips are drawn at random; "" for
        none.
    others_share
        How often one of `others` stands in for a clip of `shards`; without mixing.
    cache_gb
        How much of this machine's disk shards at addresses may fill, in GB; those that were not
        used for longest go first. null for three quarters of what is free.
    mixing
        Make each clip of `shards` sound together with one of `others`; None for not.
    changes
        What is changed at random.
    batch_size
        Clips of one batch of one process.
    workers
        Processes that load, for each process that trains; never more than its cores.
    image_size
        Side of the square picture, in pixels.
    shuffle
        In a new order every epoch, without a last, smaller batch; otherwise all, in order.
    """

    shards: dict[str, float] | str
    others: dict[str, float] | str = ""
    others_share: float = 0.5
    cache_gb: float | None = None
    mixing: Mixing | None = None
    changes: Augmentation = field(default_factory=Augmentation)
    batch_size: int = 10
    workers: int = 8
    image_size: int = 224
    shuffle: bool = True

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.workers < 0 or self.image_size < 2 or self.image_size % 2:
            raise DataError("batch_size is at least 1, workers 0, image_size 2 and even")
        if self.cache_gb is not None and not self.cache_gb > 0:
            raise DataError(f"cache_gb must be above 0, not {self.cache_gb}; or null")
        if not 0 <= self.others_share <= 1:
            raise DataError(f"others_share must be in [0, 1], not {self.others_share}")
        for sources in (self.shards, self.others):
            if not isinstance(sources, str):
                check_weights(sources)
        if self.mixing and not self.others:
            raise DataError("mixing needs the folder of a second set of shards: set others")


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One example, and for mix-and-separate its partner and the two sounds in one."""

    example: Example
    partner: Example | None = None
    mixed_S: Tensor | None = None


class ClipDataset(Dataset[Sample]):
    """What batches are stacked from.

    Parameters
    ----------
    settings : what is loaded, and how.
    seed : of all that is drawn.

    Raises
    ------
    DataError
        When shards are missing, or while reading when too many are damaged.
    """

    def __init__(self, settings: DataSettings, seed: int) -> None:
        cache_gb, others = settings.cache_gb, settings.others
        self.shards = WeightedShards(settings.shards, cache_gb)
        self._others = WeightedShards(others, cache_gb) if others else None
        self._settings, self._seed = settings, seed
        self._maker = ExampleMaker(settings.image_size, settings.changes)
        self._reported = set[tuple[str, str]]()

    def __getitem__(self, place: ClipIndex) -> Sample:
        """Return the row of a clip in an epoch."""
        random = np.random.default_rng([self._seed, *place])
        settings, others = self._settings, self._others
        if others and not settings.mixing and random.random() < settings.others_share:
            return Sample(self._drawn(others, random))
        example = self._example(self.shards, place[1], random)
        if not others or not settings.mixing:
            return Sample(example)
        partner = self._drawn(others, random)
        return Sample(example, partner, _mixed(example, partner, settings.mixing, random))

    def _drawn(self, shards: WeightedShards, random: Generator) -> Example:
        return self._example(shards, shards.draw(random), random)

    def _example(self, shards: WeightedShards, number: int, random: Generator) -> Example:
        for _ in range(TRIES):
            try:
                return self._maker.make(shards.clip(number), self._drawing(shards, random), random)
            except DamagedClip as damage:
                self._warn(shards.source(number), str(damage))
            except (ValueError, OSError) as error:
                self._warn(shards.source(number), f"clip {number}: {error}")
            number = shards.draw(random)
        raise DataError(
            f"{TRIES} clips in a row of {shards.source(number)} are damaged; copy the folder "
            "again, or make it again with: denseav-data prepare"
        )

    def _drawing(self, shards: WeightedShards, random: Generator) -> DrawOther:
        def draw_other(use: Callable[[Clip], T]) -> T:
            for _ in range(TRIES):
                number = shards.draw(random)
                try:
                    return use(shards.clip(number))
                except DamagedClip as damage:
                    self._warn(shards.source(number), str(damage))
                except (ValueError, OSError) as error:
                    self._warn(shards.source(number), f"clip {number}: {error}")
            raise DamagedClip("many shards")

        return draw_other

    def _warn(self, source: str, what: str) -> None:
        if (source, what) not in self._reported:
            self._reported.add((source, what))
            _log.warning("%s: %s is damaged; other clips stand in for it", source, what)


def _mixed(example: Example, partner: Example, mixing: Mixing, random: Generator) -> Tensor:
    return mix(
        example.plain_S,
        example.audio_mask_S,
        partner.plain_S,
        partner.audio_mask_S,
        gain_db=random.uniform(mixing.gain_low_db, mixing.gain_high_db),
        level=mixing.level,
        normalized=mixing.normalized,
    )
