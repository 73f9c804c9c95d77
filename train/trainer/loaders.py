"""Where clips come from: settings enter, a loader to learn from and sets to be measured on leave.

Errors
------
DataError            shards cannot be used
SettingsError        there are too few made things for a batch
"""

import dataclasses
import time
from collections.abc import Iterable, Iterator
from typing import Protocol

from denseav.train.data.batch import Batch
from denseav.train.data.example import NO_AUGMENTATION
from denseav.train.data.loader import make_loader
from denseav.train.data.recordings import SoundLoader
from denseav.train.data.toy import ToyLoader
from denseav.train.distributed.collectives import rank, world_size
from denseav.train.trainer.checkpointer import Resumable
from denseav.train.trainer.settings import Settings
from denseav.train.world.loader import WorldLoader


class Batches(Resumable, Protocol):
    """A loader of training batches."""

    def endless(self) -> Iterator[Batch]:
        """Yield batches without end."""


class TimedBatches(Iterator[Batch]):
    """Batches, and how long they were waited for."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches
        self._waited_s = 0.0

    def __next__(self) -> Batch:
        """Return the next batch."""
        began = time.perf_counter()
        batch = next(self._batches)
        self._waited_s += time.perf_counter() - began
        return batch

    def waited_s(self) -> float:
        """Return the seconds since this was asked last in which a batch was waited for."""
        waited_s, self._waited_s = self._waited_s, 0.0
        return waited_s


def clips_of_step(settings: Settings) -> int:
    """Return how many clips all processes learn from in a step."""
    source = settings.data or settings.made or settings.world or settings.sound
    assert source is not None, "settings have one or the other"
    return source.batch_size * world_size() * settings.optimization.accumulate


def open_loader(settings: Settings) -> Batches:
    """Open what this process learns from."""
    return _loader(settings, rank(), world_size())


def open_bank(settings: Settings) -> Batches:
    """Open what a single process would learn from, in batches as large as those of all."""
    source = {
        name: dataclasses.replace(part, batch_size=part.batch_size * world_size())
        for name in ("data", "made", "world", "sound")
        if (part := getattr(settings, name)) is not None
    }
    return _loader(dataclasses.replace(settings, **source), 0, 1)


def _loader(settings: Settings, rank: int, world_size: int) -> Batches:
    own = {"rank": rank, "world_size": world_size, "seed": settings.seed}
    if settings.made is not None:
        return ToyLoader(settings.made, mixtures=settings.separation is not None, **own)
    if settings.world is not None:
        return WorldLoader(settings.world, mixtures=settings.separation is not None, **own)
    if settings.sound is not None:
        return SoundLoader(settings.sound, rank=rank, seed=settings.seed)
    assert settings.data is not None, "settings have one or the other"
    loader: Batches = make_loader(settings.data, **own)
    return loader


def held_out(settings: Settings) -> dict[str, Iterable[Batch]]:
    """Return this process's validation batches, unchanged by chance, of each set there is.

    One set has the name ""; of two, each has the name of its setting.
    """
    own = {"rank": rank(), "world_size": world_size(), "seed": settings.seed}
    if settings.made is not None:
        return {"": [ToyLoader(settings.made, mixtures=False, **own).one_of_each()]}
    if settings.world is not None:
        return {"": WorldLoader(settings.world, mixtures=False, **own).held_out()}
    if settings.validation is None:
        return {}
    plain = dataclasses.replace(
        settings.validation, others="", mixing=None, changes=NO_AUGMENTATION, shuffle=False
    )
    shards = make_loader(plain, **own)
    if not settings.validation.others:
        return {"": shards}
    others = make_loader(dataclasses.replace(plain, shards=settings.validation.others), **own)
    return {"shards": shards, "others": others}
