"""What one training step is given: pictures and sound of B clips, stacked, and their loader.

The very next batch after a restart is the one that an uninterrupted run would have seen.

Axes: B clips, 3 red green blue, H W pixels, S samples at 16 kHz.

Errors
------
DataError            the settings, the shards or the saved state cannot be used
"""

import copy
import dataclasses
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from denseav.train.clips import Example
from denseav.train.errors import DataError
from denseav.train.rows import DataSettings, Row, Rows
from denseav.train.shards import StreamingDataLoader

SPEECH, SOUND, UNKNOWN = 0, 1, -1


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """B clips, each a picture and the sound that goes with it.

    Attributes
    ----------
    image_B3HW : float32, normalised by ImageNet's mean and deviation.
    wave_BS : float32 in [-1, 1] at 16 kHz, as recorded: the zero-mean unit-variance form that
        HuBERT takes is made by who encodes it. Zero where there is no sound.
    audio_mask_BS : float32, 1 where there is sound, 0 in padding and masked spans.
    positive_mask_BS : float32, 1 where the sound belongs to the picture, 0 where another clip
        was spliced in, between the two in a cross-fade.
    image_mask_B1HW : float32, 1 where the picture is the clip's own, 0 where it was mixed in.
    kind_B : int64, `SPEECH`, `SOUND` or `UNKNOWN`: what the clip's data set promises.
    partner : for mix-and-separate, B clips of the other kind in the same order; else None.
    mixed_wave_BS : for mix-and-separate, this batch's sound and the partner's in one wave,
        without splices; else None.
    """

    image_B3HW: Tensor
    wave_BS: Tensor
    audio_mask_BS: Tensor
    positive_mask_BS: Tensor
    image_mask_B1HW: Tensor
    kind_B: Tensor
    partner: "Batch | None" = None
    mixed_wave_BS: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of clips B."""
        return len(self.kind_B)

    @property
    def mixed_mask_BS(self) -> Tensor:  # noqa: N802 - the axes are part of the name
        """Return where the mixed wave sounds: where either of its two parts does."""
        assert self.partner is not None, "only a mixed batch has a mixed mask"
        return torch.maximum(self.audio_mask_BS, self.partner.audio_mask_BS)

    def to(self, device: torch.device | str) -> Self:
        """Return the batch on a device; copies from pinned memory do not wait."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """Return the batch in page-locked memory; the loader calls it where there is a GPU."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        parts: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            part = getattr(self, field.name)
            parts[field.name] = change(part) if isinstance(part, Tensor) else part
        if self.partner is not None:
            parts["partner"] = self.partner._map(change)
        return dataclasses.replace(self, **parts)


class Loader(StreamingDataLoader):  # type: ignore[misc]
    """Batches of one epoch each time it is iterated, or of all epochs to come with `endless`."""

    def __init__(self, rows: Rows, settings: DataSettings) -> None:
        workers = min(settings.workers, len(os.sched_getaffinity(0)))
        context = multiprocessing.get_context("forkserver") if workers else None
        if context:
            context.set_forkserver_preload([__name__])
        super().__init__(
            rows,
            batch_size=settings.batch_size,
            num_workers=workers,
            collate_fn=_stack_rows,
            multiprocessing_context=context,
            pin_memory=torch.cuda.is_available(),
            drop_last=settings.shuffle,
        )

    def endless(self) -> Iterator[Batch]:
        """Yield batches, epoch after epoch."""
        while True:
            yield from self

    def state_dict(self) -> dict[str, Any]:
        """Return where the order is: after the batches that were yielded, none more."""
        state: dict[str, Any] = super().state_dict()
        return state | {"clips": self.dataset.clips}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where a state was saved, also on other ranks or with other workers.

        Raises
        ------
        DataError
            When it was saved with other shards or another seed.
        """
        state = copy.deepcopy(state)
        clips = state.pop("clips")
        if clips != self.dataset.clips:
            raise DataError(
                f"the checkpoint was made with {clips} clips, and {self.dataset.folder} has "
                f"{self.dataset.clips}; give the shards it was made with, or start a new run"
            )
        if state["dataset"]["seed"] != self.dataset.seed:
            raise DataError(
                f"the checkpoint was made with seed {state['dataset']['seed']}, not "
                f"{self.dataset.seed}; give that seed, or start a new run"
            )
        state["dataset"]["input_dir_path"] = self.dataset.input_dir.path
        super().load_state_dict(state)


def make_loader(settings: DataSettings, *, rank: int, world: int, seed: int) -> Loader:
    """Open the shards of one process.

    Parameters
    ----------
    settings : what is loaded, and how.
    rank, world : this process, and how many there are; their clips do not overlap.
    seed : of the order and of all changes; the same on every rank.

    Raises
    ------
    DataError
        When shards are missing, or there are too few for a batch.
    """
    rows = Rows(settings, rank, world, seed)
    if settings.batch_size * world > rows.clips and settings.shuffle:
        raise DataError(
            f"a batch of {settings.batch_size} on each of {world} processes needs more than the "
            f"{rows.clips} clips in {settings.shards}; lower batch_size to "
            f"{max(rows.clips // world, 1)}"
        )
    return Loader(rows, settings)


def _stack_rows(rows: Sequence[Row]) -> Batch:
    batch = _stack([row.example for row in rows])
    partners = [row.partner for row in rows if row.partner is not None]
    if not partners:
        return batch
    mixed = [row.mixed_S for row in rows if row.mixed_S is not None]
    return dataclasses.replace(batch, partner=_stack(partners), mixed_wave_BS=torch.stack(mixed))


def _stack(examples: Sequence[Example]) -> Batch:
    return Batch(
        image_B3HW=torch.stack([example.image_3HW for example in examples]),
        wave_BS=torch.stack([example.wave_S for example in examples]),
        audio_mask_BS=torch.stack([example.audio_mask_S for example in examples]),
        positive_mask_BS=torch.stack([example.positive_mask_S for example in examples]),
        image_mask_B1HW=torch.stack([example.image_mask_1HW for example in examples]),
        kind_B=torch.tensor([example.kind for example in examples]),
    )
