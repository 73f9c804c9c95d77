"""A microphone's clock against the truth, over an hour of stream time and its worst moments."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from denseav.export.runtime.bundle import SAMPLE_RATE_HZ
from denseav.stream.audio.rolling_window import RollingWindow
from denseav.stream.sources.sample_clock import BUCKETS, SampleClock, driver_time_s, line_below
from denseav.stream.types import AudioBlock

pytestmark = pytest.mark.realtime

RATE_HZ = 48_000
BLOCK = 960
START_S = 123_456.0  # of the monotonic clock: a machine that has run for a day
SKEW_MAX_S = 0.020

Arrivals = Iterator[tuple[int, float, float]]  # end sample, when captured, when it came


def arrivals(seconds: float, ppm: float, seed: int = 0, stalls: bool = True) -> Arrivals:
    """Blocks of a device that counts `ppm` too slowly, handed over as a busy machine does.

    Every callback is late by a scheduling delay with a long tail; 10 ms more by turns, as sound
    servers batch; and about once a minute nothing comes for up to 3 s and then all at once.
    """
    draw = np.random.default_rng(seed)
    count = round(seconds * RATE_HZ / BLOCK)
    delay_s = draw.exponential(0.002, count) + 0.010 * draw.integers(0, 2, count)
    delay_s += np.where(draw.random(count) < 0.01, draw.exponential(0.05, count), 0)
    stall_s = np.where(draw.random(count) < BLOCK / RATE_HZ / 60, draw.uniform(0.1, 3, count), 0)
    free_s = 0.0
    for index in range(count):
        end = (index + 1) * BLOCK
        true_s = START_S + end / RATE_HZ * (1 + 1e-6 * ppm)
        came_s = max(true_s + delay_s[index], free_s)
        free_s = came_s + (stall_s[index] if stalls else 0) + 1e-5
        yield end, true_s, came_s


def errors_s(clock: SampleClock, given: Arrivals) -> list[float]:
    errors = []
    for end, true_s, came_s in given:
        clock.observe(end, came_s)
        errors.append(clock.time_of(end) - true_s)
    return errors


@pytest.mark.parametrize("ppm", [-200, 0, 200])
def test_an_hour_of_drift_stays_within_20_ms(ppm: float) -> None:
    clock = SampleClock(RATE_HZ)
    errors = errors_s(clock, arrivals(3600, ppm))
    worst_s, last_minute_s = max(map(abs, errors)), max(map(abs, errors[-3000:]))
    figures = f"worst {1000 * worst_s:.2f} ms, last minute {1000 * last_minute_s:.2f} ms"
    print(f"{ppm:+} ppm for an hour: {figures}")  # noqa: T201
    assert worst_s < SKEW_MAX_S
    assert last_minute_s < 0.005
    assert clock.rate_error_ppm == pytest.approx(ppm, abs=20)


@pytest.mark.parametrize("ppm", [-200, 200])
def test_the_window_keeps_the_time_that_the_clock_gives(ppm: float) -> None:
    """The ring counts at the nominal rate for ten minutes, 120 ms apart from the truth."""
    clock, rolling = SampleClock(RATE_HZ), RollingWindow(2 * SAMPLE_RATE_HZ)
    worst_s, segments = 0.0, 0
    for end, true_s, came_s in arrivals(600, ppm):
        clock.observe(end, came_s)
        first = end - BLOCK
        silence = np.zeros((BLOCK, 1), np.float32)
        rolling.push(AudioBlock(silence, RATE_HZ, first, clock.time_of(first)))
        if end % RATE_HZ == 0:
            sample = round(end * SAMPLE_RATE_HZ / RATE_HZ)
            worst_s = max(worst_s, abs(rolling.time_of(sample) - true_s))
            assert abs(rolling.sample_at(true_s) - sample) < SKEW_MAX_S * SAMPLE_RATE_HZ
            segments = max(segments, len(rolling._clock))
    assert worst_s < SKEW_MAX_S
    assert segments < 50


def test_memory_does_not_grow() -> None:
    clock = SampleClock(RATE_HZ)
    errors_s(clock, arrivals(300, 50))
    assert len(clock._least) == BUCKETS


def test_a_clock_is_never_later_than_an_arrival() -> None:
    clock = SampleClock(RATE_HZ)
    for end, _, came_s in arrivals(60, 100):
        late_s = clock.observe(end, came_s)
        assert late_s >= 0
        assert clock.time_of(end) == pytest.approx(came_s - late_s, abs=1e-9)
        assert clock.time_of(end) <= came_s + 1e-9


def test_a_burst_after_eight_seconds_moves_nothing() -> None:
    clock = SampleClock(RATE_HZ)
    errors_s(clock, arrivals(60, 0, stalls=False))
    before_s = clock.time_of(0)
    freed_s = START_S + 68.0
    for end in range(60 * RATE_HZ, 68 * RATE_HZ, BLOCK):
        clock.observe(end + BLOCK, freed_s)
    for end in range(68 * RATE_HZ, 80 * RATE_HZ, BLOCK):
        clock.observe(end + BLOCK, START_S + (end + BLOCK) / RATE_HZ + 0.002)
    assert clock.time_of(0) == pytest.approx(before_s, abs=0.003)


def test_sound_lost_without_a_word_moves_the_clock_within_six_seconds() -> None:
    clock, lost_s = SampleClock(RATE_HZ), 0.3
    shifts_s = np.repeat([0.0, lost_s], 60 * RATE_HZ // BLOCK)
    given = zip(arrivals(120, 0), shifts_s, strict=True)
    errors = errors_s(
        clock, ((end, at_s + more, came_s + more) for (end, at_s, came_s), more in given)
    )
    assert max(map(abs, errors[: 60 * RATE_HZ // BLOCK])) < SKEW_MAX_S
    assert errors[61 * RATE_HZ // BLOCK] == pytest.approx(-lost_s, abs=SKEW_MAX_S)
    assert max(map(abs, errors[67 * RATE_HZ // BLOCK :])) < SKEW_MAX_S


def test_a_count_that_was_moved_on_too_far_is_corrected_at_once() -> None:
    clock, moved = SampleClock(RATE_HZ), RATE_HZ // 10
    errors_s(clock, arrivals(60, 0, stalls=False))
    for end in range(60 * RATE_HZ, 62 * RATE_HZ, BLOCK):
        came_s = START_S + end / RATE_HZ + 0.001
        clock.observe(end + moved, came_s)
        assert clock.time_of(end + moved) == pytest.approx(came_s, abs=0.002)


@pytest.mark.parametrize("slope", [0.0, 150e-6, -150e-6])
def test_the_line_lies_under_all_points_and_touches_two(slope: float) -> None:
    draw = np.random.default_rng(1)
    x = np.cumsum(draw.uniform(0.5, 1.5, 100))
    late = draw.exponential(0.01, 100)
    late[[5, 90]] = 0
    at, y, found = line_below(list(zip(x, 7 + slope * x + late, strict=True)))
    assert found == pytest.approx(slope, abs=1e-9)
    assert y == pytest.approx(7 + slope * at)


def test_a_steep_line_is_limited_and_still_under_all_points() -> None:
    points = [(0.0, 0.05), (1.0, 0.0), (2.0, 0.03)]
    at, y, slope = line_below(points)
    assert slope == -1e-3
    assert min(py - (y + slope * (px - at)) for px, py in points) == pytest.approx(0, abs=1e-12)


def test_times_of_samples_ascend_between_fits() -> None:
    clock, times = SampleClock(RATE_HZ), []
    for end, _, came_s in arrivals(120, -200, stalls=False):
        clock.observe(end, came_s)
        times.append(clock.time_of(end))
    assert sum(b <= a for a, b in pairwise(times)) <= 2


@pytest.mark.parametrize(
    ("stamp_ms", "expected_s"),
    [
        (49_980.0, 49.98),  # Video4Linux: a moment ago on the monotonic clock
        (0.0, 50.0),
        (1_700_000_000_000.0, 50.0),  # another clock
        (50_001.0, 50.0),  # later than it was handed over
        (40_000.0, 50.0),
        (float("nan"), 50.0),
    ],
)
def test_a_drivers_stamp_is_used_where_it_makes_sense(stamp_ms: float, expected_s: float) -> None:
    assert driver_time_s(stamp_ms, 50.0) == pytest.approx(expected_s)
