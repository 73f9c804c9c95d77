"""Which pictures have waited, by the times at which they came: a reader at each kind of camera."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from denseav.stream.sources.arrival_pace import ArrivalPace


class Reader:
    """Takes pictures that lie ready from their times on, as a camera's thread does."""

    def __init__(self, fps: float = 25.0) -> None:
        self.pace = ArrivalPace(fps, 0.0)
        self.taken: list[tuple[float, float]] = []  # ready, taken
        self.dropped = 0
        self._now_s = 0.0

    def read(self, ready_s: Sequence[float]) -> None:
        for at_s in ready_s:
            self._now_s = max(self._now_s + 0.001, at_s)
            if self.pace.waited(self._now_s):
                self.dropped += 1
                continue
            self.taken.append((at_s, self._now_s))
            if self.pace.spread_s:
                self._now_s += self.pace.spread_s
                self.pace.asked(self._now_s)


def bursts(every_s: float, count: int, until_s: float = 60.0) -> list[float]:
    return [every_s * at for at in range(1, int(until_s / every_s)) for _ in range(count)]


def test_pictures_wait_until_one_comes_after_its_usual_time() -> None:
    pace = ArrivalPace(fps=25, now_s=10.0)
    assert [pace.waited(10 + 0.002 * index) for index in range(1, 11)] == [True] * 10
    assert [pace.waited(10.06 + 0.04 * index) for index in range(20)] == [False] * 20
    assert pace.waited(12.0)  # after a stall
    assert pace.waited(12.005)
    assert not pace.waited(12.04)


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), 1e9])
def test_pictures_are_not_held_back_for_long_whatever_rate_is_said(fps: float) -> None:
    pace = ArrivalPace(fps, now_s=10.0)
    waited = [pace.waited(10 + 0.001 * index) for index in range(1, 700)]
    assert waited == sorted(waited, reverse=True)
    assert not waited[-1]


@pytest.mark.parametrize("period_s", [0.1, 0.13, 0.17, 0.2004, 0.22])
@pytest.mark.parametrize("held_s", [0.41, 0.5, 0.7])
def test_what_a_network_held_up_is_no_picture_of_now(period_s: float, held_s: float) -> None:
    """Of each that is taken the stamp says when it came: at most a third of a second late."""
    reader, late_s = Reader(), []
    made_s = [period_s * at for at in range(1, 400)]
    held = [np.floor(at_s / 4) * 4 + 4 for at_s in made_s]  # until each of these moments
    came_s = [
        end_s if at_s > 4 and end_s - held_s < at_s else at_s
        for at_s, end_s in zip(made_s, held, strict=True)
    ]
    for at_s, arrives_s in zip(made_s, came_s, strict=True):
        before = len(reader.taken)
        reader.read([arrives_s])
        late_s += [arrives_s - at_s] * (len(reader.taken) - before)
    assert len(late_s) > 200
    assert max(late_s) < 0.33


def test_one_gap_that_is_no_pause_makes_no_bursts() -> None:
    """Of five pictures a second some come just within a pause's length, some just beyond."""
    reader = Reader()
    gaps_s = [0.198, 0.201, 0.202, 0.201, 0.201, 0.232, 0.193, 0.201, 0.201, 0.202] * 3
    reader.read(np.cumsum(gaps_s).tolist())
    assert reader.pace.spread_s == 0
    assert all(taken_s == ready_s for ready_s, taken_s in reader.taken)


@pytest.mark.parametrize("period_s", [0.04, 0.1, 0.25, 0.4, 0.6, 1.0, 2.0])
def test_a_slow_cameras_pictures_all_count(period_s: float) -> None:
    reader = Reader()
    reader.read([period_s * at for at in range(1, 40)])
    assert reader.dropped <= 1
    assert all(taken_s == ready_s for ready_s, taken_s in reader.taken)
    assert (reader.pace.usual_pause_s > 0) == (period_s > 0.2)


@pytest.mark.parametrize("period_s", [0.4, 0.6, 1.0, 2.0])
def test_a_picture_of_a_slow_camera_that_is_taken_late_costs_none(period_s: float) -> None:
    for late_s in np.linspace(0.05, 0.95, 37) * period_s:
        reader = Reader()
        ready_s = period_s * np.arange(1, 13)
        ready_s[5] += late_s
        reader.read(ready_s.tolist())
        assert reader.dropped <= 1 + (ready_s[6] - ready_s[5] < 0.1), late_s


def test_an_uneven_slow_cameras_pictures_count() -> None:
    reader = Reader()
    reader.read(np.random.default_rng(0).uniform(0.5, 1.6, 60).cumsum().tolist())
    assert reader.dropped <= 2


@pytest.mark.parametrize(("every_s", "count"), [(0.6, 6), (1, 2), (1, 5), (2, 10), (2, 50)])
def test_the_pictures_of_bursts_are_taken_one_by_one(every_s: float, count: int) -> None:
    reader = Reader()
    reader.read(bursts(every_s, count))
    assert reader.dropped <= 2 * count
    steady = [taken_s for _, taken_s in reader.taken[3 * count :]]
    assert np.diff(steady).max() < 0.65 * every_s
    assert all(taken_s - ready_s < every_s for ready_s, taken_s in reader.taken)


def test_bursts_that_end_leave_nothing_behind() -> None:
    reader = Reader()
    reader.read([*bursts(1, 5, 20), *(20 + 0.04 * at for at in range(300))])
    assert reader.pace.spread_s == 0
    assert all(taken_s - ready_s < 0.01 for ready_s, taken_s in reader.taken[-200:])


def test_what_a_network_held_up_is_dropped_each_time() -> None:
    times_s: NDArray[np.float64] = 0.04 * np.arange(1, 600)
    for from_s, to_s in ((5, 7), (12, 13.5), (18, 18.4)):
        times_s = np.where((times_s > from_s) & (times_s < to_s), to_s, times_s)
    reader = Reader()
    reader.read(times_s.tolist())
    ready_s = [round(at_s, 6) for at_s, _ in reader.taken]
    assert all(ready_s.count(held_s) <= 1 for held_s in (7.0, 13.5, 18.4))
    assert reader.dropped < 150
