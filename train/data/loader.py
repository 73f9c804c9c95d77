"""The loader: shards enter, batches leave.

The very next batch after a restart is the one that an uninterrupted run would have seen, however
many workers load ahead.

Errors
------
DataError            the settings, the shards or the saved state cannot be used
"""

import dataclasses
import logging
import multiprocessing
import os
import pickle
from collections.abc import Iterable, Iterator, Sequence
from threading import Thread
from typing import Any

import torch
from torch.utils.data import DataLoader

from denseav.train.data.batch import Batch
from denseav.train.data.dataset import ClipDataset, DataSettings, Sample
from denseav.train.data.example import Example
from denseav.train.data.sampler import ClipSampler
from denseav.train.data.workers import (
    SHARED_MEMORY,
    ignore_stop_signals,
    shared_memory_bytes,
    usable_cores,
    worker_context,
)
from denseav.train.errors import DataError

AHEAD_BATCHES = 2  # that each worker of PyTorch's loads

log = logging.getLogger(__name__)


class Loader:
    """Batches of what is left of the epoch, whenever it is iterated; `endless` moves on."""

    def __init__(self, samples: ClipDataset, order: ClipSampler, workers: int) -> None:
        self._dataset, self._sampler = samples, order
        self._workers = min(workers, usable_cores())
        self._processes = order.world_size
        self._by_pipe = self._checked = False

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches that are left of the epoch, without moving on."""
        return self._loading()

    def endless(self) -> Iterator[Batch]:
        """Yield batches, epoch after epoch, each counted as taken when it is given."""
        while True:
            for batch in self._loading():
                self._sampler.advance()
                yield batch
            self._sampler.next_epoch()

    def state_dict(self) -> dict[str, Any]:
        """Return where the loading stands: after the batches that `endless` gave, none more."""
        return self._sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where a state was saved, by as many processes and workers as there are now.

        Raises
        ------
        DataError
            When it was saved with other shards or another seed.
        """
        self._sampler.load_state_dict(state)

    def _loading(self) -> Iterator[Batch]:
        if self._workers and not self._checked:
            self._check_shared_memory()
        context = worker_context(__name__) if self._workers else None
        loading: Iterable[Batch | bytes] = DataLoader(
            self._dataset,
            batch_sampler=self._sampler.batches(),
            num_workers=self._workers,
            collate_fn=_packed_samples if self._by_pipe else _stack_samples,
            multiprocessing_context=context,
            worker_init_fn=_end_with_run,
            pin_memory=torch.cuda.is_available(),
            # Of its own: PyTorch's would be one number further on after a restart in mid-epoch.
            generator=torch.Generator(),
        )
        try:
            for batch in loading:
                yield _unpacked(batch) if isinstance(batch, bytes) else batch
        except DataError as error:  # a worker's comes with its traceback before it
            raise DataError(str(error).splitlines()[-1].split("DataError: ")[-1]) from None
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):
                raise
            raise DataError(
                f"a process that loads clips died ({str(error).splitlines()[0]}); give it more "
                "memory, or fewer --data.workers"
            ) from None

    def _check_shared_memory(self) -> None:
        """Use less of it where it cannot hold what is loaded ahead: a worker would die or wait."""
        self._checked = True
        first = next(iter(self._sampler.batches()), [])
        one = sum(map(_nbytes, (self._dataset[index] for index in first[:1])))
        needed = one * len(first) * (AHEAD_BATCHES * self._workers + 1) * self._processes
        room = shared_memory_bytes()
        if not room:
            log.warning("%s cannot be written: clips are loaded without workers", SHARED_MEMORY)
            self._workers = 0
        elif needed > room / 2:  # validation's batches come beside
            log.warning(
                "%s has %d MB, and batches loaded ahead take %d: they come by pipe, which is "
                "slower; give a container more (docker run --shm-size)",
                SHARED_MEMORY,
                room / 1e6,
                needed / 1e6,
            )
            self._by_pipe = True


def make_loader(settings: DataSettings, *, rank: int, world_size: int, seed: int) -> Loader:
    """Open the shards of one process.

    Parameters
    ----------
    settings : what is loaded, and how.
    rank, world_size : this process, and how many there are; their clips do not overlap.
    seed : of the order and of all changes; the same on every rank.

    Raises
    ------
    DataError
        When shards are missing, or there are too few for a batch.
    """
    samples = ClipDataset(settings, seed)
    clips = samples.shards.clips
    if settings.shuffle and settings.batch_size * world_size > clips:
        raise DataError(
            f"a batch of {settings.batch_size} on each of {world_size} processes needs more than "
            f"the {clips} clips in {settings.shards}; lower batch_size to "
            f"{max(clips // world_size, 1)}"
        )
    if not settings.shuffle and settings.batch_size * (world_size - 1) >= clips:
        raise DataError(
            f"the {clips} clips in {settings.shards} do not reach all of {world_size} processes in "
            f"batches of {settings.batch_size}; lower validation.batch_size to "
            f"{max((clips - 1) // (world_size - 1), 1)}"
        )
    order = ClipSampler(
        samples.shards.sizes,
        samples.shards.weights,
        settings.batch_size,
        rank=rank,
        world_size=world_size,
        seed=seed,
        shuffle=settings.shuffle,
    )
    return Loader(samples, order, settings.workers)


def _end_with_run(_: int) -> None:
    """End this worker with its run, even a killed one: it and its server keep each other alive.

    Signals that ask the run to end, and come to all of its processes, are for the run alone.
    """
    ignore_stop_signals()
    run = multiprocessing.parent_process()
    assert run is not None

    def wait() -> None:
        run.join()
        os._exit(0)

    Thread(target=wait, daemon=True).start()


def _stack_samples(samples: Sequence[Sample]) -> Batch:
    batch = _stack([sample.example for sample in samples])
    partners = [sample.partner for sample in samples if sample.partner is not None]
    if not partners:
        return batch
    mixed = [sample.mixed_S for sample in samples if sample.mixed_S is not None]
    return dataclasses.replace(batch, partner=_stack(partners), mixed_wave_BS=torch.stack(mixed))


def _packed_samples(samples: Sequence[Sample]) -> bytes:
    return pickle.dumps(_stack_samples(samples))


def _unpacked(packed: bytes) -> Batch:
    batch: Batch = pickle.loads(packed)
    return batch.pin_memory() if torch.cuda.is_available() else batch


def _nbytes(sample: Sample) -> int:
    return len(pickle.dumps(_stack_samples([sample])))


def _stack(examples: Sequence[Example]) -> Batch:
    return Batch(
        image_B3HW=torch.stack([example.image_3HW for example in examples]),
        wave_BS=torch.stack([example.wave_S for example in examples]),
        audio_mask_BS=torch.stack([example.audio_mask_S for example in examples]),
        positive_mask_BS=torch.stack([example.positive_mask_S for example in examples]),
        image_mask_B1HW=torch.stack([example.image_mask_1HW for example in examples]),
        kind_B=torch.tensor([example.kind for example in examples]),
    )
