"""Several sets of shards as one: folders and weights enter, clips leave, by number or drawn.

Clips are numbered through all folders, in the order in which these are named. What a weight does to
the order of clips is the sampler's; here it says how often a folder is drawn from.

Errors
------
DataError            a folder holds no whole set of shards, or a weight is none
"""

import math
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate

from numpy.random import Generator

from denseav.train.data.shards import Clip, Shards
from denseav.train.errors import DataError

Sources = str | Mapping[str, float]
"""One folder or address of shards, or several with their weights."""


class WeightedShards:
    """Sets of shards. May be sent to other processes.

    Parameters
    ----------
    sources : one, or several with their weights.
    cache_gb : of copies elsewhere, as `RemoteFolder` takes it.

    Attributes
    ----------
    sizes : for each folder, how many clips each of its shards holds.
    weights : each folder's part of all that is drawn; their sum is 1.
    """

    def __init__(self, sources: Sources, cache_gb: float | None = None) -> None:
        weights = {sources: 1.0} if isinstance(sources, str) else sources
        check_weights(weights)
        self._folders = [Shards(source, cache_gb) for source in weights]
        self._ends = list(accumulate(folder.clips for folder in self._folders))
        self.sizes = [folder.sizes for folder in self._folders]
        self.weights = [weight / math.fsum(weights.values()) for weight in weights.values()]

    @property
    def clips(self) -> int:
        """How many clips there are."""
        return self._ends[-1]

    def clip(self, number: int) -> Clip:
        """Return one clip.

        Raises
        ------
        DamagedClip
            When its bytes are not what was written.
        """
        at = bisect_right(self._ends, number)
        return self._folders[at].clip(number - self._first(at))

    def source(self, number: int) -> str:
        """Return the folder or address that a clip is in."""
        return self._folders[bisect_right(self._ends, number)].source

    def draw(self, random: Generator) -> int:
        """Return the number of any clip: of a folder by its weight, there each as likely."""
        at = 0 if len(self._folders) == 1 else int(random.choice(len(self.weights), p=self.weights))
        return self._first(at) + int(random.integers(self._folders[at].clips))

    def _first(self, at: int) -> int:
        return self._ends[at - 1] if at else 0


def check_weights(weights: Mapping[str, float]) -> None:
    """Look at weights without their folders.

    Raises
    ------
    DataError
        When there is none, or one is not above zero.
    """
    if not weights:
        raise DataError("name one folder of shards at least")
    for folder, weight in weights.items():
        if not (math.isfinite(weight) and weight > 0):
            raise DataError(f"the weight of {folder} must be above 0, not {weight}")
