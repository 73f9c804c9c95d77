"""Confidence intervals by resampling: a statistic of items enters, a range of it leaves.

The percentile bootstrap (Efron, 1979). What counts as an item is the caller's to say: the metric's
own unit of averaging (class, query, picture), because neighbours in one unit are not independent.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
LEVEL = 0.95
SEED = 0

Drawn = NDArray[np.intp]


def interval(
    statistic: Callable[..., float], counts: Sequence[int], resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Return the 95 % interval of a statistic.

    Parameters
    ----------
    statistic
        Called with one array of drawn indices for each group.
    counts
        How many items each group has; groups are drawn independently.
    resamples
        How often to draw; the draws are always the same.
    """
    random = np.random.default_rng(SEED)
    values = [
        statistic(*(random.integers(count, size=count) for count in counts))
        for _ in range(resamples)
    ]
    low, high = np.quantile(values, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)
