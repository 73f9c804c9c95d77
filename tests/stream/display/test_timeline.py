"""The strip: what is drawn where, of sound and heads that came when."""

import numpy as np
import pytest
from numpy.typing import NDArray

from denseav.export.runtime.bundle import Head
from denseav.stream.display.timeline import Strip
from denseav.stream.types import AudioBlock, Frame, Heatmap

HEADS = [Head(name="speech", threshold=0, ceiling=1), Head(name="sound", threshold=0, ceiling=1)]
ORANGE, SKY_BLUE, WHITE = (0, 159, 230), (233, 180, 86), (245, 245, 245)
RATE_HZ, BLOCK = 16_000, 320
WIDTH, SIZE = 720, 13
PICTURE = np.zeros((480, 640, 3), np.uint8)


def sound(strip: Strip, begin_s: float, end_s: float, level: float = 0.5, first: int = 0) -> None:
    """Give a square wave in blocks of 20 ms."""
    for i in range(round((end_s - begin_s) * RATE_HZ / BLOCK)):
        samples_SC = np.tile(np.float32([level, -level]), BLOCK // 2)[:, None]
        strip.audio(AudioBlock(samples_SC, RATE_HZ, BLOCK * i, begin_s + i * BLOCK / RATE_HZ))


def heat(
    strip: Strip, time_s: float, *level_K: float, valid_K: tuple[bool, ...] = (True, True)
) -> None:
    cold_KHW = np.zeros((2, 1, 1), np.float32)
    frame = Frame(PICTURE, 0, time_s)
    strip.heatmap(Heatmap(frame, cold_KHW, valid_K, 0.0, 0.1, -20.0, time_s), level_K)


def run(strip: Strip, begin_s: float, end_s: float, speech: float, sound_level: float = 0) -> None:
    for time_s in np.arange(begin_s, end_s, 1 / 30):
        heat(strip, float(time_s), speech, sound_level)


def draw(strip: Strip) -> NDArray[np.uint8]:
    return strip.draw(WIDTH, SIZE, ("speech", "sound"))


def plot(strip: Strip) -> NDArray[np.uint8]:
    """What is right of the names, which end where the second marks begin."""
    canvas = draw(strip)
    return canvas[:, canvas.shape[1] - _plot_width(canvas) :]


def _plot_width(canvas: NDArray[np.uint8]) -> int:
    empty = draw(Strip(HEADS))
    names = np.nonzero((empty > 60).any(axis=(0, 2)))[0]
    return WIDTH - (int(names.max()) + SIZE + 1)


def seconds_of(plot_HW3: NDArray[np.uint8], colour: tuple[int, ...], rows: slice) -> np.ndarray:
    """How long before the newest moment a colour is seen, in seconds."""
    near_HW = np.abs(plot_HW3[rows].astype(int) - colour).max(axis=2) < 12
    x = np.nonzero(near_HW.any(axis=0))[0]
    return 10 * (plot_HW3.shape[1] - 0.5 - x) / plot_HW3.shape[1]


WAVE, SPEECH, SOUND = slice(4, 36), slice(40, 60), slice(64, 84)


def test_sound_is_where_it_was_heard():
    strip = Strip(HEADS)
    heat(strip, 20.0, 0, 0)
    sound(strip, 16.0, 17.0)
    ago_s = seconds_of(plot(strip), WHITE, WAVE)
    assert ago_s.max() == pytest.approx(4.0, abs=0.05)
    assert ago_s.min() == pytest.approx(3.0, abs=0.05)


def test_a_head_is_up_as_long_as_it_was_active_and_as_high():
    strip = Strip(HEADS)
    run(strip, 0, 6, 0)
    run(strip, 6, 8, 1.0)
    run(strip, 8, 10, 0)
    shown = plot(strip)
    ago_s = seconds_of(shown[:-1], SKY_BLUE, slice(42, 50))
    assert ago_s.max() == pytest.approx(4.0, abs=0.1)
    assert ago_s.min() == pytest.approx(2.0, abs=0.1)
    half = Strip(HEADS)
    run(half, 0, 10, 0.5)
    full_rows = (np.abs(shown[:, -210].astype(int) - SKY_BLUE).max(axis=1) < 12).sum()
    half_rows = (np.abs(plot(half)[:, -210].astype(int) - SKY_BLUE).max(axis=1) < 12).sum()
    assert half_rows == pytest.approx(full_rows / 2, abs=1)


def test_each_head_has_its_lane_and_its_colour():
    strip = Strip(HEADS)
    run(strip, 0, 10, 0.9, 0.9)
    column_H3 = plot(strip)[:, -100].astype(int)
    blue = np.nonzero(np.abs(column_H3 - SKY_BLUE).max(axis=1) < 12)[0]
    orange = np.nonzero(np.abs(column_H3 - ORANGE).max(axis=1) < 12)[0]
    assert blue.max() < orange.min()
    assert len(blue) == len(orange) > 10


def test_louder_sound_reaches_further_and_silence_draws_nothing():
    def rows(level: float) -> int:
        strip = Strip(HEADS)
        heat(strip, 10.0, 0, 0)
        sound(strip, 2.0, 9.0, level)
        return int((np.abs(plot(strip)[:, -200].astype(int) - WHITE).max(axis=1) < 30).sum())

    reached = [rows(level) for level in (0.0, 0.01, 0.1, 1.0)]
    assert reached == sorted(set(reached))
    assert reached[0] == 0
    assert reached[-1] >= 30


def test_an_onset_draws_a_line_through_the_sound_and_going_on_draws_none():
    strip = Strip(HEADS)
    run(strip, 0, 4, 0)
    run(strip, 4, 9, 1.0)
    lines = plot(strip)[2].astype(int)  # above the sound's envelope
    bluish = np.nonzero(lines[:, 0] - lines[:, 2] > 40)[0]
    assert len(bluish) == 1
    ago_s = 10 * (len(lines) - 0.5 - bluish[0]) / len(lines)
    assert ago_s == pytest.approx(5.0, abs=0.1)


def test_a_head_that_flickers_has_one_onset():
    strip = Strip(HEADS)
    run(strip, 0, 4, 0)
    for i in range(60):
        heat(strip, 4 + i / 30, float(i % 2), 0)
    lines = plot(strip)[2].astype(int)
    assert (lines[:, 0] - lines[:, 2] > 40).sum() == 1


def test_heads_that_mean_nothing_have_no_ground_line():
    def lit(valid: bool) -> int:
        strip = Strip(HEADS)
        for i in range(300):
            heat(strip, i / 30, 0, 0, valid_K=(valid, valid))
        return int((plot(strip)[..., 1] > 70).sum())

    assert lit(valid=False) == 0
    assert lit(valid=True) > 1000


def test_everything_moves_left_at_the_pace_of_time():
    strip = Strip(HEADS)
    sound(strip, 1.0, 1.5)
    heat(strip, 4.0, 0, 0)
    before_s = seconds_of(plot(strip), WHITE, WAVE)
    heat(strip, 7.0, 0, 0)
    after_s = seconds_of(plot(strip), WHITE, WAVE)
    assert after_s.max() - before_s.max() == pytest.approx(3.0, abs=0.05)
    heat(strip, 12.0, 0, 0)
    assert not len(seconds_of(plot(strip), WHITE, WAVE))


def test_sound_that_is_ahead_of_its_picture_waits_and_late_sound_is_still_drawn():
    strip = Strip(HEADS)
    sound(strip, 10.5, 11.0)
    heat(strip, 10.0, 0, 0)
    assert not len(seconds_of(plot(strip), WHITE, WAVE))
    heat(strip, 11.0, 0, 0)
    assert len(seconds_of(plot(strip), WHITE, WAVE))
    sound(strip, 5.0, 5.2)
    assert seconds_of(plot(strip), WHITE, WAVE).max() == pytest.approx(6.0, abs=0.05)


def test_a_gap_of_the_pictures_is_not_filled_with_the_last_level():
    strip = Strip(HEADS)
    run(strip, 0, 3, 1.0)
    run(strip, 7, 9, 1.0)
    ago_s = np.sort(seconds_of(plot(strip), SKY_BLUE, slice(42, 50)))
    assert np.diff(ago_s).max() == pytest.approx(4.0, abs=0.1)


def test_after_hours_and_leaps_of_time_it_is_as_small_as_ever():
    strip = Strip(HEADS)
    for begin_s in (0.0, 7_200.0, 100_000.0, 99_000.0):
        sound(strip, begin_s, begin_s + 1)
        run(strip, begin_s, begin_s + 1, 1.0)
    arrays = [strip._loudness._peaks, *strip._levels_K, *strip._valid_K]
    assert {len(columns._value_N) for columns in arrays} == {1024}
    for i in range(5000):
        heat(strip, 200_000 + i, 1.0, 1.0)
    assert len(strip._onsets) <= 128
    assert draw(strip).shape == (88, WIDTH, 3)


@pytest.mark.parametrize("samples", [1, 7, 320, 16_000, 480_000])
def test_blocks_of_any_length_and_of_any_channels_are_taken(samples: int):
    strip = Strip(HEADS)
    strip.audio(AudioBlock(np.full((samples, 3), 0.5, np.float32), RATE_HZ, 0, 5.0))
    heat(strip, 5.0 + samples / RATE_HZ, 0, 0)
    assert len(seconds_of(plot(strip), WHITE, WAVE)) or samples < 320
    strip.audio(AudioBlock(np.zeros((0, 1), np.float32), RATE_HZ, samples, 9.0))


@pytest.mark.parametrize(("height", "width"), [(480, 640), (1080, 1920), (640, 360), (240, 320)])
def test_it_lies_under_the_picture_and_keeps_it(height: int, width: int):
    picture = np.full((height, width, 3), 77, np.uint8)
    canvas = Strip(HEADS).under(picture, ("speech",))
    np.testing.assert_array_equal(canvas[:height], picture)
    assert canvas.shape[0] % 2 == 0
    assert 0.05 < canvas.shape[0] / height - 1 < 1 / 3


def test_hidden_or_on_small_pictures_it_is_not_there():
    for height, width in ((64, 64), (120, 160)):
        picture = np.zeros((height, width, 3), np.uint8)
        assert Strip(HEADS).under(picture, ()) is picture
    assert Strip(HEADS, shown=False).under(PICTURE, ()) is PICTURE


def test_the_name_of_a_head_that_is_not_shown_is_grey():
    strip = Strip(HEADS)
    both, one = draw(strip), strip.draw(WIDTH, SIZE, ("speech",))
    changed = np.nonzero((both != one).any(axis=(1, 2)))[0]
    assert changed.min() >= SOUND.start - 4
    assert np.ptp(one[changed].astype(int), axis=2).max() <= 8
    assert np.ptp(both[changed].astype(int), axis=2).max() > 100
