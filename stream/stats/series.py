"""A series: values of one kind, one at a time, to percentiles, a rate and a histogram.

Percentiles come from the newest 18,000 values (10 minutes at 30 a second), so that a run of days
needs no more memory than one of minutes; counts and histograms cover the whole run.

Axes: N the newest values, L the intervals of the histogram.
"""

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NEWEST_VALUES = 18_000
WINDOW_S = 10.0
EDGES_MS = (1, 2, 5, 10, 20, 33, 50, 75, 100, 150, 200, 300, 500, 1000, 2000, 5000)


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How many values lay in each interval: `count_L[i]` at most `EDGES_MS[i]`, the last above."""

    count_L: tuple[int, ...]
    sum_ms: float


class Series:
    """Values of one kind, in ms, and when each was added; `count` is of all there ever were."""

    def __init__(self) -> None:
        self.count = 0
        self._sum_ms = 0.0
        self._count_L = [0] * (len(EDGES_MS) + 1)
        # Filled, not zeroed: memory that is only promised would look like growth later.
        self._time_s_N = np.full(NEWEST_VALUES, -np.inf)
        self._value_ms_N = np.full(NEWEST_VALUES, np.nan)

    def add(self, time_s: float, value_ms: float = 0.0) -> None:
        """Take one value; times never go back."""
        slot = self.count % NEWEST_VALUES
        self._time_s_N[slot] = time_s
        self._value_ms_N[slot] = value_ms
        self._count_L[bisect_left(EDGES_MS, value_ms)] += 1
        self._sum_ms += value_ms
        self.count += 1

    def since(self, time_s: float = -np.inf) -> NDArray[np.float64]:
        """Return a copy of the values added at or after `time_s`, in no order."""
        return self._value_ms_N[: self.count][self._time_s_N[: self.count] >= time_s]

    def percentiles(self, which: tuple[int, ...], since_s: float) -> dict[str, float | None]:
        """Return `{"p50": ms, ...}` of the values since then; a percentile of nothing is None."""
        value_ms_N = self.since(since_s)
        if not len(value_ms_N):
            return {f"p{percent}": None for percent in which}
        found = np.percentile(value_ms_N, which)
        return {f"p{p}": round(float(value), 3) for p, value in zip(which, found, strict=True)}

    def rate(self, now_s: float) -> float:
        """Return how many a second there were in the last 10, down to now: a stall lowers it."""
        times_s = self._time_s_N[self._time_s_N >= now_s - WINDOW_S]
        if len(times_s) < 2 or now_s <= times_s.min():
            return 0.0
        return float((len(times_s) - 1) / (now_s - times_s.min()))

    def histogram(self) -> Histogram:
        """Return the histogram of all values there ever were."""
        return Histogram(count_L=tuple(self._count_L), sum_ms=self._sum_ms)
