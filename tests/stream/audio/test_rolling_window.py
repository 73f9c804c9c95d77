import time

import numpy as np
import pytest
import soxr
from numpy.typing import NDArray

from denseav.export.runtime.bundle import SAMPLE_RATE_HZ, TOKEN_HOP_SAMPLES, TOKEN_SPAN_SAMPLES
from denseav.stream.audio.resampler import Resampler
from denseav.stream.audio.ring_buffer import RingBuffer
from denseav.stream.audio.rolling_window import RollingWindow
from denseav.stream.types import AudioBlock

Samples = NDArray[np.float32]


def noise(rate_hz: int, seconds: float, channels: int = 1, seed: int = 0) -> Samples:
    draw = np.random.default_rng(seed).standard_normal((round(rate_hz * seconds), channels))
    return (0.1 * draw).astype(np.float32)


def blocks(samples_SC: Samples, rate_hz: int, size: int, start_s: float = 0.0) -> list[AudioBlock]:
    return [
        AudioBlock(samples_SC[at : at + size], rate_hz, at, start_s + at / rate_hz)
        for at in range(0, len(samples_SC), size)
    ]


def roll(samples_SC: Samples, rate_hz: int, size: int, window_samples: int) -> RollingWindow:
    rolling = RollingWindow(window_samples)
    for block in blocks(samples_SC, rate_hz, size):
        rolling.push(block)
    return rolling


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("size", [64, 441, 1024, 4096])
def test_resampling_in_blocks_equals_resampling_the_whole(rate_hz: int, size: int) -> None:
    samples_SC = noise(rate_hz, 0.7, channels=2)
    resampler = Resampler(rate_hz)
    parts = [resampler.push(samples_SC[at : at + size]) for at in range(0, len(samples_SC), size)]
    wave_S = np.concatenate([*parts, resampler.finish()])
    whole_S = soxr.resample(samples_SC.mean(axis=1), rate_hz, SAMPLE_RATE_HZ)
    assert len(wave_S) == len(whole_S)
    assert np.abs(wave_S - whole_S).max() <= 1e-4


def test_resampling_keeps_a_tone_below_and_removes_one_above_the_new_band() -> None:
    time_S = np.arange(48_000) / 48_000
    for tone_hz, kept in ((1_000, True), (11_000, False)):
        tone_S1 = np.sin(2 * np.pi * tone_hz * time_S, dtype=np.float32)[:, None]
        resampler = Resampler(48_000)
        wave_S = np.concatenate([resampler.push(tone_S1), resampler.finish()])[1000:-1000]
        rms = float(np.sqrt(np.mean(wave_S**2)))
        assert rms == pytest.approx(np.sqrt(0.5) if kept else 0.0, abs=1e-3)


def test_downmix_hears_every_channel() -> None:
    samples_SC = np.zeros((4_000, 6), np.float32)
    samples_SC[:, 5] = 0.6
    assert Resampler(16_000).push(samples_SC)[2_000] == pytest.approx(0.1, abs=1e-3)


def test_ring_gives_back_what_was_written_across_its_seam() -> None:
    ring, wave_S = RingBuffer(100), np.arange(1, 1001, dtype=np.float32)
    for at in range(0, 1000, 37):
        ring.write(wave_S[at : at + 37])
        np.testing.assert_array_equal(
            ring.read(ring.oldest, ring.end), wave_S[ring.oldest : ring.end]
        )
    assert (ring.oldest, ring.end) == (900, 1000)


def test_ring_reads_zeros_before_the_start() -> None:
    ring = RingBuffer(100)
    ring.write(np.ones(10, np.float32))
    np.testing.assert_array_equal(ring.read(-5, 3), [0, 0, 0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(ring.read(-9, -5), np.zeros(4))


def test_ring_keeps_the_newest_of_a_long_write_and_of_a_long_skip() -> None:
    ring, wave_S = RingBuffer(100), np.arange(250, dtype=np.float32)
    ring.write(wave_S)
    np.testing.assert_array_equal(ring.read(150, 250), wave_S[150:])
    ring.skip(10**12)
    ring.write(wave_S[:3])
    assert ring.end == 10**12 + 253
    np.testing.assert_array_equal(ring.read(ring.end - 5, ring.end), [0, 0, 0, 1, 2])


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (49, 60), (140, 151), (-5, 20)])
def test_ring_refuses_what_it_does_not_hold(start: int, stop: int) -> None:
    ring = RingBuffer(100)
    ring.write(np.ones(150, np.float32))
    with pytest.raises(IndexError, match="50 to 150"):
        ring.read(start, stop)


def test_window_is_the_resampled_sound_that_ends_on_a_token() -> None:
    samples_SC = noise(48_000, 3, channels=2)
    rolling = roll(samples_SC, 48_000, 480, window_samples=16_000)
    end = rolling.newest_end(None)
    assert end is not None
    assert (end - TOKEN_SPAN_SAMPLES) % TOKEN_HOP_SAMPLES == 0
    whole_S = soxr.resample(samples_SC.mean(axis=1), 48_000, SAMPLE_RATE_HZ)
    assert np.abs(rolling.window(end) - whole_S[end - 16_000 : end]).max() <= 1e-4


@pytest.mark.parametrize("size", [64, 1000, 4096])
def test_window_does_not_depend_on_the_block_size(size: int) -> None:
    samples_SC = noise(44_100, 2)
    end = TOKEN_SPAN_SAMPLES + 5 * TOKEN_HOP_SAMPLES
    expected_S = roll(samples_SC, 44_100, 441, 20_000).window(end)
    assert np.abs(roll(samples_SC, 44_100, size, 20_000).window(end) - expected_S).max() <= 1e-4


def test_first_window_is_silent_before_the_stream_began() -> None:
    rolling = roll(np.ones((16_000, 1), np.float32), 16_000, 160, window_samples=10_000)
    window_S = rolling.window(TOKEN_SPAN_SAMPLES)
    assert not window_S[: 10_000 - TOKEN_SPAN_SAMPLES].any()
    assert window_S[-1000:] == pytest.approx(1.0, abs=1e-3)


def test_no_token_before_one_is_complete() -> None:
    rolling = RollingWindow(16_000)
    assert rolling.newest_end(None) is None
    rolling.push(AudioBlock(np.ones((TOKEN_SPAN_SAMPLES - 1, 1), np.float32), 16_000, 0, 0.0))
    assert rolling.newest_end(None) is None


@pytest.mark.parametrize("gap", [1, 4_321, 500_000])
def test_a_gap_becomes_exactly_as_much_silence(gap: int) -> None:
    before_SC, after_SC = noise(48_000, 1), noise(48_000, 1, seed=1)
    whole_SC = np.concatenate([before_SC, np.zeros((gap, 1), np.float32), after_SC])
    rolling = RollingWindow(32_000)
    for block in blocks(before_SC, 48_000, 480):
        rolling.push(block)
    for block in blocks(after_SC, 48_000, 480):
        first = block.first_sample + 48_000 + gap
        rolling.push(AudioBlock(block.samples_SC, 48_000, first, first / 48_000))
    end = rolling.newest_end(None)
    assert end is not None
    whole_S = soxr.resample(whole_SC[:, 0], 48_000, SAMPLE_RATE_HZ)
    tail_S = whole_S[end - 10_000 : end]
    error = float(np.abs(rolling.window(end)[-10_000:] - tail_S).max())
    # After a long gap the resampler begins anew, up to half a sample off.
    assert error <= (1e-4 if gap < 100_000 else 0.2)
    best = np.argmax(
        np.correlate(rolling.window(end)[-9_000:-1_000], tail_S[2_000:-2_000], "valid")
    )
    assert best == 1_000


def test_a_gap_of_an_hour_is_taken_at_once() -> None:
    rolling = RollingWindow(16_000)
    rolling.push(AudioBlock(noise(48_000, 0.5), 48_000, 0, 0.0))
    begin = time.monotonic()
    rolling.push(AudioBlock(noise(48_000, 0.5), 48_000, 3600 * 48_000, 3600.0))
    assert time.monotonic() - begin < 1
    end = rolling.newest_end(None)
    assert end is not None
    assert end > 3600 * SAMPLE_RATE_HZ
    assert rolling.time_of(end) == pytest.approx(end / SAMPLE_RATE_HZ, abs=1e-6)


def test_a_new_rate_keeps_absolute_time() -> None:
    rolling = RollingWindow(40_000)
    for rate_hz, first_s, tone_hz in ((48_000, 0.0, 500), (44_100, 1.0, 1000), (16_000, 2.0, 500)):
        time_S = np.arange(rate_hz) / rate_hz
        tone_SC = np.sin(2 * np.pi * tone_hz * time_S, dtype=np.float32)[:, None]
        for block in blocks(tone_SC, rate_hz, 1000, first_s):
            first = block.first_sample + round(first_s * rate_hz)
            rolling.push(AudioBlock(block.samples_SC, rate_hz, first, block.capture_s))
    end = rolling.newest_end(None)
    assert end is not None
    assert 47_000 - TOKEN_HOP_SAMPLES < end <= 48_000
    index_S = np.arange(end - 40_000, end)
    tone = np.where((index_S // 16_000) == 1, 1000, 500)
    expected_S = np.sin(2 * np.pi * tone * index_S / 16_000)
    error_S = np.abs(rolling.window(end) - expected_S)
    away_from_seams = (index_S % 16_000 > 400) & (index_S % 16_000 < 15_600)
    assert error_S[away_from_seams].max() < 0.01


def test_many_changes_of_rate_do_not_add_up() -> None:
    rolling = RollingWindow(16_000)
    for turn in range(200):
        rate_hz = (44_100, 48_000)[turn % 2]
        first, stop = (round(at * 0.0503 * rate_hz) for at in (turn, turn + 1))
        rolling.push(AudioBlock(noise(rate_hz, 1)[: stop - first], rate_hz, first, first / rate_hz))
    last = round(200 * 0.0503 * SAMPLE_RATE_HZ)
    rolling.push(AudioBlock(np.zeros((0, 1), np.float32), SAMPLE_RATE_HZ, last, 200 * 0.0503))
    assert rolling._ring.end == pytest.approx(200 * 0.0503 * SAMPLE_RATE_HZ, abs=1.5)


def test_a_jittering_clock_needs_no_more_memory_as_time_goes_on() -> None:
    rolling = RollingWindow(16_000)
    block_SC = noise(16_000, 0.1)
    for index in range(600):
        capture_s = index / 10 + 0.002 * (index % 2)
        rolling.push(AudioBlock(block_SC, 16_000, 1_600 * index, capture_s))
    assert len(rolling._clock) <= 1 + 5 * 10 + 1
    assert rolling.time_of(16_000 * 58) == pytest.approx(58.0)


def test_sound_that_goes_back_in_time_is_refused() -> None:
    rolling = RollingWindow(16_000)
    rolling.push(AudioBlock(noise(48_000, 0.1), 48_000, 0, 0.0))
    with pytest.raises(ValueError, match="goes back"):
        rolling.push(AudioBlock(noise(48_000, 0.1), 48_000, 100, 0.1))


def test_time_follows_the_blocks_clock_even_when_it_is_shifted() -> None:
    rolling = RollingWindow(16_000)
    with pytest.raises(LookupError):
        rolling.time_of(0)
    for first, capture_s in ((0, 100.0), (48_000, 101.0), (96_000, 105.0), (144_000, 106.0)):
        rolling.push(AudioBlock(noise(48_000, 1), 48_000, first, capture_s))
    assert rolling.time_of(8_000) == pytest.approx(100.5)
    assert rolling.time_of(24_000) == pytest.approx(101.5)
    assert rolling.time_of(40_000) == pytest.approx(105.5)
    assert rolling.time_of(64_000) == pytest.approx(107.0)


def test_each_token_ends_once_and_there_is_none_when_nothing_comes() -> None:
    rolling, ends = RollingWindow(16_000), list[int]()
    assert rolling.newest_end(None) is None
    for block in blocks(noise(48_000, 1.5), 48_000, 480):
        rolling.push(block)
        end = rolling.newest_end(ends[-1] if ends else None)
        if end is not None:
            ends.append(end)
            assert len(rolling.window(end)) == 16_000
            assert rolling.newest_end(end) is None
    assert ends == [TOKEN_SPAN_SAMPLES + k * TOKEN_HOP_SAMPLES for k in range(len(ends))]
    assert len(ends) >= 7


def test_a_window_stays_readable_for_seconds_and_then_is_refused() -> None:
    rolling = RollingWindow(16_000)
    samples_SC = noise(16_000, 12)
    for block in blocks(samples_SC, 16_000, 1600):
        rolling.push(block)
    end = rolling.newest_end(None)
    assert end is not None
    assert len(rolling.window(end - 20 * TOKEN_HOP_SAMPLES)) == 16_000
    with pytest.raises(IndexError):
        rolling.window(end - 30 * TOKEN_HOP_SAMPLES)
    with pytest.raises(IndexError):
        rolling.window(end + TOKEN_HOP_SAMPLES)
