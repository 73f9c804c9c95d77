"""Counts and stamps enter, times on the one monotonic clock leave.

A device counts its samples by a crystal of its own, whose rate is off by some parts in a million
(100 are 360 ms an hour), and what it brings arrives late by a varying delay, but never early.
So the time of a sample is a line under all arrivals: its offset and its rate are fitted to those
that came with the least delay. Nothing here knows devices or threads.
"""

from collections import deque
from collections.abc import Sequence
from itertools import pairwise

BUCKET_S = 1.0  # of the arrivals in so long, the one with the least delay is remembered
BUCKETS = 120
RATE_ERROR_MAX = 1e-3  # the worst crystals; a steeper line is a young one's jitter
STEP_S = 0.03  # arrivals that all come so much later, or one so much earlier, are another line's
STEP_BUCKETS = 5
DRIVER_DELAY_MAX_S = 1.0

Point = tuple[float, float]  # a sample's time by its count, and how much later than that it came


class SampleClock:
    """Tells the time of a sample from its count, by a fitted offset and rate.

    The line is the highest one on average that no arrival of the last two minutes lies under:
    an edge of their lower hull (Moon, Skelly, Towsley: Estimation and Removal of Clock Skew from
    Network Delay Measurements, 1999). Stalls and bursts therefore leave it where it is. When all
    sound has come over 30 ms late for five seconds, some was lost without a word, and the line
    begins anew.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._least: deque[Point] = deque(maxlen=BUCKETS)
        self._newest: Point | None = None  # the least of the bucket that is being filled
        self._bucket_end_s = float("inf")
        self._at_s, self._offset_s, self._slope = 0.0, float("inf"), 0.0

    @property
    def rate_error_ppm(self) -> float:
        """How much slower the device counts than it says, in parts per million."""
        return 1e6 * self._slope

    def observe(self, end_sample: int, came_s: float) -> float:
        """Learn that the samples before `end_sample` had come by `came_s`.

        Returns
        -------
        How much later than by the clock they came, in seconds; never negative.
        """
        counted_s = end_sample / self._rate_hz
        point = counted_s, came_s - counted_s
        if self._newest is None or self._late_s(point) < -STEP_S:
            self._begin(point, came_s)
        elif came_s >= self._bucket_end_s:
            self._close_bucket()
            self._newest, self._bucket_end_s = point, came_s + BUCKET_S
        elif point[1] < self._newest[1]:
            self._newest = point
        late_s = self._late_s(point)
        if late_s < 0:
            self._at_s, self._offset_s = point
        return max(0.0, late_s)

    def time_of(self, sample: int) -> float:
        """Return when the sample was captured, in seconds of `time.monotonic()`."""
        counted_s = sample / self._rate_hz
        return counted_s + self._line_s(counted_s)

    def _begin(self, point: Point, came_s: float) -> None:
        self._least.clear()
        self._newest, self._bucket_end_s = point, came_s + BUCKET_S
        self._at_s, self._offset_s = point

    def _close_bucket(self) -> None:
        assert self._newest is not None
        self._least.append(self._newest)
        recent = list(self._least)[-STEP_BUCKETS:]
        if len(self._least) > STEP_BUCKETS and min(map(self._late_s, recent)) > STEP_S:
            self._least.clear()
            self._least.extend(recent)
        self._at_s, self._offset_s, self._slope = line_below(self._least)

    def _line_s(self, counted_s: float) -> float:
        return self._offset_s + self._slope * (counted_s - self._at_s)

    def _late_s(self, point: Point) -> float:
        return point[1] - self._line_s(point[0])


def line_below(points: Sequence[Point]) -> tuple[float, float, float]:
    """Return the line under all points that is nearest to them on average: x, y there, slope.

    Parameters
    ----------
    points : by ascending x; the slope is kept within `RATE_ERROR_MAX`.
    """
    mean_x = sum(x for x, _ in points) / len(points)
    hull = _lower_hull(points)
    slope = 0.0
    for (x0, y0), (x1, y1) in pairwise(hull):
        slope = (y1 - y0) / (x1 - x0)
        if x1 >= mean_x:
            break
    slope = max(-RATE_ERROR_MAX, min(RATE_ERROR_MAX, slope))
    last_x = points[-1][0]
    return last_x, min(y + slope * (last_x - x) for x, y in points), slope


def _lower_hull(points: Sequence[Point]) -> list[Point]:
    hull: list[Point] = []
    for x, y in points:
        while hull and hull[-1][0] >= x:
            hull.pop()
        while len(hull) > 1:
            (x0, y0), (x1, y1) = hull[-2:]
            if (y1 - y0) * (x - x0) < (y - y0) * (x1 - x0):
                break
            hull.pop()
        hull.append((x, y))
    return hull


def driver_time_s(stamp_ms: float, grabbed_s: float) -> float:
    """Return a driver's time of a frame, or when it was grabbed where that makes no sense.

    Parameters
    ----------
    stamp_ms : milliseconds of the monotonic clock, as Video4Linux gives them; other drivers give
        zeros, positions in a stream, or another clock, which all lie elsewhere.
    grabbed_s : when the frame was handed over, on the same clock.
    """
    stamp_s = stamp_ms / 1000
    return stamp_s if 0 <= grabbed_s - stamp_s <= DRIVER_DELAY_MAX_S else grabbed_s
