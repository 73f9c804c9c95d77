"""The order of clips: which of them make a process's next batch, and where that stands.

Every epoch takes the shards in a new order, a few at a time, and the clips of those in a new
order: clips mix over a thousand neighbours, and a disk reads on in the same few files. The
order depends on the seed and the epoch alone; processes deal its batches out among themselves.
So the whole state is the epoch and how many of its clips are taken, by all processes together,
and the rest of an epoch can be dealt out to another number of processes.

Errors
------
DataError            a state was saved with other clips or another seed
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from denseav.train.errors import DataError

SHARDS_AT_ONCE = 16

ClipIndex = tuple[int, int]
"""An epoch, counted from 0, and a clip's number."""


class ClipSampler:
    """Deals out the clips of a set of shards. Where it stands moves with `advance` alone.

    Parameters
    ----------
    sizes : how many clips each shard holds.
    batch_size : clips of one batch of one process.
    rank, world_size : this process, and how many there are.
    seed : of the order; the same on every rank.
    shuffle : in a new order every epoch, without a last, smaller batch; otherwise all, in
        the order they are stored.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        batch_size: int,
        *,
        rank: int,
        world_size: int,
        seed: int,
        shuffle: bool,
    ) -> None:
        self._sizes, self._batch_size, self._seed = list(sizes), batch_size, seed
        self._rank, self.world_size, self._shuffle = rank, world_size, shuffle
        self._epoch = self._taken = 0

    def batches(self) -> Iterator[list[ClipIndex]]:
        """Yield what is left of the epoch for this process, without moving on."""
        epoch, numbers = self._epoch, self._numbers()
        step = self._batch_size * self.world_size
        for start in range(self._taken, self._whole_steps(), step):
            at = start + self._rank * self._batch_size
            if mine := numbers[at : at + self._batch_size].tolist():
                yield [(epoch, number) for number in mine]

    def advance(self) -> None:
        """Count one batch on every process as taken."""
        self._taken += self._batch_size * self.world_size

    def next_epoch(self) -> None:
        """Begin the next epoch."""
        self._epoch, self._taken = self._epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Return where the order stands, as JSON can hold it."""
        clips = sum(self._sizes)
        return {"epoch": self._epoch, "taken": self._taken, "clips": clips, "seed": self._seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand where a state was saved, by any number of processes.

        Raises
        ------
        DataError
            When it was saved with other clips or another seed.
        """
        for name, here in self.state_dict().items():
            if name in ("clips", "seed") and state[name] != here:
                raise DataError(
                    f"the checkpoint was made with {name} {state[name]}, not {here}; give the "
                    "shards and the seed it was made with, or start a new run"
                )
        self._epoch, self._taken = state["epoch"], state["taken"]

    def _whole_steps(self) -> int:
        """Return where the last batch of the epoch ends, counted from the epoch's start."""
        clips, step = sum(self._sizes), self._batch_size * self.world_size
        return clips - (clips - self._taken) % step if self._shuffle else clips

    def _numbers(self) -> NDArray[np.int64]:
        if not self._shuffle:
            return np.arange(sum(self._sizes))
        random = np.random.default_rng([self._seed, self._epoch])
        starts = np.cumsum([0, *self._sizes[:-1]])
        shards = random.permutation(len(self._sizes))
        pools = []
        for at in range(0, len(shards), SHARDS_AT_ONCE):
            few = shards[at : at + SHARDS_AT_ONCE]
            pool = np.concatenate([starts[shard] + np.arange(self._sizes[shard]) for shard in few])
            pools.append(random.permutation(pool))
        return np.concatenate(pools)
