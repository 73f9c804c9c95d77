"""The order of clips: which of them make a process's next batch, and where that stands.

Every epoch takes the shards in a new order, a few at a time, and the clips of those in a new
order: clips mix over a thousand neighbours, and a disk reads on in the same few files. The
order depends on the seed and the epoch alone; processes deal its batches out among themselves.
Of several folders each has its part of every epoch, mixed with the others': it goes through its own
clips in passes of its own, so that none comes again before all have come. The whole state is the
epoch and how many of its clips are taken, by all processes together, and the rest of an epoch can
be dealt out to another number of processes.

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

Order = NDArray[np.int64]
ClipIndex = tuple[int, int]
"""Which pass through its folder it is, counted from 0, and a clip's number."""


class ClipSampler:
    """Deals out the clips of sets of shards. Where it stands moves with `advance` alone.

    Parameters
    ----------
    sizes : for each folder, how many clips each of its shards holds.
    weights : each folder's part of an epoch, which has as many clips as all folders; their sum is
        1. Without `shuffle` they do not count.
    batch_size : clips of one batch of one process.
    rank, world_size : this process, and how many there are.
    seed : of the order; the same on every rank.
    shuffle : in a new order every epoch, without a last, smaller batch; otherwise all, in
        the order they are stored.
    """

    def __init__(
        self,
        sizes: Sequence[Sequence[int]],
        weights: Sequence[float],
        batch_size: int,
        *,
        rank: int,
        world_size: int,
        seed: int,
        shuffle: bool,
    ) -> None:
        self._sizes, self._weights = [list(of_one) for of_one in sizes], list(weights)
        self._clips = sum(map(sum, self._sizes))
        self._batch_size, self._seed = batch_size, seed
        self._rank, self.world_size, self._shuffle = rank, world_size, shuffle
        self._epoch = self._taken = 0

    def batches(self) -> Iterator[list[ClipIndex]]:
        """Yield what is left of the epoch for this process, without moving on."""
        order_N2 = self._order()
        step = self._batch_size * self.world_size
        for start in range(self._taken, self._whole_steps(), step):
            at = start + self._rank * self._batch_size
            if mine := order_N2[at : at + self._batch_size].tolist():
                yield [(number_of_pass, number) for number_of_pass, number in mine]

    def advance(self) -> None:
        """Count one batch on every process as taken."""
        self._taken += self._batch_size * self.world_size

    def next_epoch(self) -> None:
        """Begin the next epoch."""
        self._epoch, self._taken = self._epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Return where the order stands, as JSON can hold it."""
        state = {"epoch": self._epoch, "taken": self._taken}
        return state | {"clips": self._clips, "seed": self._seed} | self._parts()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand where a state was saved, by any number of processes.

        Raises
        ------
        DataError
            When it was saved with other clips or another seed.
        """
        own = self.state_dict()
        for name in ("clips", "seed", "parts"):
            if state.get(name) != own.get(name):
                raise DataError(
                    f"the checkpoint was made with {name} {state.get(name)}, not {own.get(name)}; "
                    "give the shards and the seed it was made with, or start a new run"
                )
        self._epoch, self._taken = state["epoch"], state["taken"]

    def _parts(self) -> dict[str, Any]:
        """Return how many clips and which weight each of several folders has."""
        if len(self._sizes) == 1:
            return {}
        pairs = zip(map(sum, self._sizes), self._weights, strict=True)
        return {"parts": [[clips, round(weight, 6)] for clips, weight in pairs]}

    def _whole_steps(self) -> int:
        """Return where the last batch of the epoch ends, counted from the epoch's start."""
        step = self._batch_size * self.world_size
        return self._clips - (self._clips - self._taken) % step if self._shuffle else self._clips

    def _order(self) -> Order:
        """Return the pass and the number [N, 2] of each clip of the epoch."""
        if not self._shuffle:
            numbers_N = np.arange(self._clips)
            return np.stack((np.full_like(numbers_N, self._epoch), numbers_N), axis=1)
        if len(self._sizes) == 1:
            return self._pass(0, self._epoch)
        ends = np.rint(self._clips * np.cumsum(self._weights)).astype(np.int64)
        counts = np.diff(ends, prepend=0)
        random = np.random.default_rng([self._seed, self._epoch])
        folder_N = random.permutation(np.repeat(np.arange(len(counts)), counts))
        order_N2 = np.empty((self._clips, 2), np.int64)
        for folder, count in enumerate(counts.tolist()):
            order_N2[folder_N == folder] = self._stretch(folder, self._epoch * count, count)
        return order_N2

    def _stretch(self, folder: int, start: int, count: int) -> Order:
        """Return so many clips of a folder, from so far into its passes."""
        clips = sum(self._sizes[folder])
        first, last = start // clips, (start + max(count, 1) - 1) // clips
        passes_N2 = np.concatenate([self._pass(folder, at) for at in range(first, last + 1)])
        at = start - first * clips
        return passes_N2[at : at + count]

    def _pass(self, folder: int, number: int) -> Order:
        """Return all clips of a folder in the order of one pass."""
        sizes = self._sizes[folder]
        # A folder alone has the order that it always had.
        own = [folder] if len(self._sizes) > 1 else []
        random = np.random.default_rng([self._seed, *own, number])
        starts = np.cumsum([0, *sizes[:-1]]) + sum(map(sum, self._sizes[:folder]))
        shards = random.permutation(len(sizes))
        pools = []
        for at in range(0, len(shards), SHARDS_AT_ONCE):
            few = shards[at : at + SHARDS_AT_ONCE]
            pool = np.concatenate([starts[shard] + np.arange(sizes[shard]) for shard in few])
            pools.append(random.permutation(pool))
        numbers_N = np.concatenate(pools)
        return np.stack((np.full_like(numbers_N, number), numbers_N), axis=1)
