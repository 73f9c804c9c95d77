"""How heat becomes strength: a threshold that stays, a ceiling that follows slowly and late."""

import numpy as np
import pytest

from denseav.export.runtime.bundle import Head
from denseav.stream.display.heat_scale import Scale
from denseav.stream.types import Frame, Heatmap

HEADS = [
    Head(name="speech", threshold=1.0, ceiling=2.0),
    Head(name="sound", threshold=0, ceiling=4),
]
PICTURE = np.zeros((4, 4, 3), np.uint8)


def heatmap(
    time_s: float, speech: float, sound: float = -1.0, valid_K: tuple[bool, ...] = (True, True)
) -> Heatmap:
    """A map that is cold but for one place of each head."""
    heat_KHW = np.full((2, 3, 3), -5, np.float32)
    heat_KHW[:, 1, 1] = speech, sound
    return Heatmap(Frame(PICTURE, 0, time_s), heat_KHW, valid_K, 0.0, 0.0, -20.0, time_s)


def watch(
    scale: Scale, seconds: float, speech: float, begin_s: float = 0.0, fps: float = 5
) -> None:
    for i in range(round(seconds * fps)):
        scale.strength(heatmap(begin_s + i / fps, speech))


def test_one_heatmap_never_scales_itself():
    for peak in (1.5, 2.0, 50.0):
        scale = Scale(HEADS)
        strength_KHW = scale.strength(heatmap(0.0, peak))
        assert strength_KHW[0].max() == pytest.approx(min(1, peak - 1))
        np.testing.assert_array_equal(scale.ceilings, [2, 4])


def test_a_second_of_heat_hardly_moves_the_ceiling_and_a_minute_does():
    scale = Scale(HEADS)
    watch(scale, 1, speech=3.0)
    assert 2.0 < scale.ceilings[0] < 2.2
    watch(scale, 59, speech=3.0, begin_s=1)
    assert scale.ceilings[0] == pytest.approx(3.0, abs=0.02)


def test_no_step_is_larger_than_a_hundredth_of_the_range():
    scale, random = Scale(HEADS), np.random.default_rng(0)
    for i in range(200):
        before = scale.ceilings
        scale.strength(heatmap(i / 30, random.uniform(-9, 99), random.uniform(-9, 99)))
        assert (np.abs(scale.ceilings - before) <= 0.01 * (before - [1, 0])).all()


def test_a_tenth_of_the_peaks_end_up_above_the_ceiling():
    scale, random = Scale(HEADS), np.random.default_rng(1)
    above = []
    for i in range(4_000):
        peak = float(1 + random.uniform(0.01, 1))
        above.append(peak > scale.ceilings[0])
        scale.strength(heatmap(i / 5, peak))
    assert np.mean(above[1_000:]) == pytest.approx(0.1, abs=0.02)


def test_weak_heat_comes_into_sight_but_never_past_twice_what_the_model_says():
    scale = Scale(HEADS)
    watch(scale, 600, speech=1.01)
    assert scale.ceilings[0] == pytest.approx(1.5)
    assert scale.strength(heatmap(601, 1.01))[0].max() == pytest.approx(0.02, abs=1e-4)


def test_a_room_that_is_too_hot_moves_the_ceiling_to_four_times_the_range_at_most():
    scale = Scale(HEADS)
    watch(scale, 120, speech=1000.0)
    assert scale.ceilings.tolist() == [5, 4]


@pytest.mark.parametrize("valid_K", [(False, False), (True, True)])
def test_silence_and_what_is_below_the_threshold_move_nothing_and_show_nothing(
    valid_K: tuple[bool, ...],
):
    scale = Scale(HEADS)
    peak = 1.0 if valid_K[0] else 9.0  # below the energy floor a head is not valid, however hot
    for i in range(300):
        strength_KHW = scale.strength(heatmap(i / 5, peak, peak - 1, valid_K=valid_K))
        assert not strength_KHW.any()
    np.testing.assert_array_equal(scale.ceilings, [2, 4])


def test_after_a_long_silence_the_threshold_is_where_it_was():
    scale = Scale(HEADS)
    watch(scale, 60, speech=3.0)
    for i in range(600):
        scale.strength(heatmap(60 + i, 9.0, 9.0, valid_K=(False, False)))
    assert not scale.strength(heatmap(700, 1.0)).any()
    assert scale.strength(heatmap(700, 1.1)).any()


def test_a_pause_is_no_leap_and_a_clock_that_turns_back_moves_nothing():
    scale = Scale(HEADS)
    scale.strength(heatmap(0.0, 3.0))
    scale.strength(heatmap(1e6, 3.0))
    after = scale.ceilings
    assert 2.0 < after[0] < 2.04
    scale.strength(heatmap(5.0, 3.0))
    np.testing.assert_array_equal(scale.ceilings, after)


def test_what_is_no_number_shows_nothing_and_harms_nothing():
    scale = Scale(HEADS)
    for i in range(10):
        assert not scale.strength(heatmap(i, float("nan"), float("nan"))).any()
    np.testing.assert_array_equal(scale.ceilings, [2, 4])
    assert scale.strength(heatmap(11, float("inf")))[0].max() == 1
