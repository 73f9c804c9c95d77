"""Channels, rates and stamps of decoded sound, to one channel by sample number."""

from collections.abc import Iterable
from fractions import Fraction

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from denseav.stream.media.mended_faults import Mends
from denseav.stream.media.sound import Channel, Hearing
from tests.support.media import tone

Samples = NDArray[np.float32]
Given = tuple[Samples, int, float | None]


def heard(given: Iterable[Given], channel: Channel | None = None) -> tuple[Samples, list[int], str]:
    """Return what is heard of blocks [S, C] with their rates and times, and where it lies."""
    mends = Mends()
    hearing = Hearing(channel, mends)
    sounds = []
    for samples_SC, rate_hz, time_s in given:
        size, channels = samples_SC.shape
        layout = {1: "mono", 2: "stereo", 6: "5.1"}.get(channels, f"{channels} channels")
        packed = samples_SC.reshape(1, size * channels)
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
        frame.sample_rate, frame.time_base = rate_hz, Fraction(1, rate_hz)
        sounds += hearing.hear(frame, time_s)
    sounds += hearing.finish()
    wave_S = np.concatenate([sound.samples_S for sound in sounds])
    return wave_S, [sound.first_sample for sound in sounds], "; ".join(mends.lines())


def blocks(wave_SC: Samples, rate_hz: int = 48_000, start_s: float = 0.0) -> list[Given]:
    size = 1024
    return [
        (wave_SC[at : at + size], rate_hz, start_s + at / rate_hz)
        for at in range(0, len(wave_SC), size)
    ]


def test_two_channels_are_their_mean() -> None:
    wave_SC = np.concatenate([tone(48_000, 1.0), tone(48_000, 1.0, 1000.0)], axis=1)
    wave_S, _, mended = heard(blocks(wave_SC))
    np.testing.assert_allclose(wave_S, wave_SC.mean(axis=1), atol=1e-6)
    assert mended == ""


@pytest.mark.parametrize(("channel", "column"), [("left", 0), ("right", 1)])
def test_one_channel_can_be_chosen(channel: Channel, column: int) -> None:
    wave_SC = np.concatenate([tone(48_000, 0.5), tone(48_000, 0.5, 1000.0)], axis=1)
    wave_S, _, _ = heard(blocks(wave_SC), channel)
    np.testing.assert_array_equal(wave_S, wave_SC[:, column])


def test_channels_that_cancel_are_heard_by_the_left() -> None:
    wave_SC = tone(48_000, 1.0) * np.array([1, -1], np.float32)
    wave_S, _, mended = heard(blocks(wave_SC))
    np.testing.assert_array_equal(wave_S, wave_SC[:, 0])
    assert "cancel each other, so the left" in mended
    mixed_S, _, said = heard(blocks(wave_SC), "mix")
    assert not mixed_S.any()
    assert "cancel each other in the mix" in said


def test_channels_that_cease_to_cancel_are_mixed_again() -> None:
    apart_SC = tone(48_000, 1.0) * np.array([1, -1], np.float32)
    alike_SC = tone(48_000, 3.0, 700.0) * np.array([1, 0.5], np.float32)
    wave_S, _, _ = heard(blocks(np.concatenate([apart_SC, alike_SC])))
    np.testing.assert_allclose(wave_S[-48_000:], alike_SC[-48_000:].mean(axis=1), atol=1e-6)


def test_silence_says_nothing_of_channels() -> None:
    _, _, mended = heard(blocks(np.zeros((48_000, 2), np.float32)))
    assert mended == ""


@pytest.mark.parametrize("then", [(48_000, 1), (22_050, 2), (44_100, 6)])
def test_sound_that_changes_keeps_its_pitch_and_length(then: tuple[int, int]) -> None:
    rate_hz, channels = then
    given = [
        *blocks(tone(44_100, 2.0, 1000.0, channels=2), 44_100),
        *blocks(tone(rate_hz, 2.0, 1000.0, channels=channels), rate_hz, 2.0),
    ]
    wave_S, _, mended = heard(given)
    assert len(wave_S) == pytest.approx(4 * 44_100, abs=100)
    for part_S in (wave_S[:44_100], wave_S[-44_100:]):
        assert np.argmax(np.abs(np.fft.rfft(part_S * np.hanning(44_100)))) == 1000
    assert "the sound changes from 44100 Hz stereo" in mended


def test_holes_are_jumps_and_what_comes_twice_is_left_out() -> None:
    wave_SC = tone(48_000, 1.0)
    early, late = blocks(wave_SC[:24_576]), blocks(wave_SC[24_576:], start_s=0.512)
    hole = [(samples, rate, (time or 0) + 0.5) for samples, rate, time in late]
    wave_S, firsts, mended = heard([*early, *hole])
    assert "a hole" in mended
    assert len(wave_S) == 48_000
    assert 24_576 + 24_000 in firsts
    twice = [(samples, rate, (time or 0) - 0.1) for samples, rate, time in late]
    wave_S, firsts, mended = heard([*early, *twice])
    assert len(wave_S) == 48_000 - 4_800
    assert firsts == sorted(firsts)
    assert "twice" in mended


@pytest.mark.parametrize("pace", [0.0, 0.01, 0.5])
def test_stamps_that_stand_still_lose_no_sound(pace: float) -> None:
    """As in a copy of a recording whose clock began anew, until the stamps have caught up."""
    wave_SC = tone(48_000, 3.0)
    given = blocks(wave_SC)
    stuck = range(40, 100)
    for i in stuck:
        samples_SC, rate_hz, _ = given[i]
        given[i] = samples_SC, rate_hz, (39 + pace * (i - 39)) * 1024 / rate_hz
    wave_S, firsts, mended = heard(given)
    np.testing.assert_array_equal(wave_S, wave_SC[:, 0])
    assert firsts == list(range(0, len(wave_SC), 1024))
    assert "stand still" in mended


def test_stamps_that_tremble_are_only_rounded() -> None:
    given = [
        (samples, rate, (time or 0) + 0.02 * (-1) ** at)
        for at, (samples, rate, time) in enumerate(blocks(tone(48_000, 1.0)))
    ]
    wave_S, _, mended = heard(given)
    assert len(wave_S) == 48_000
    assert mended == ""


def test_samples_that_are_no_numbers_are_silent() -> None:
    wave_SC = tone(48_000, 0.5)
    wave_SC[5_000:5_010] = [[np.nan], [np.inf], [-np.inf], [1e30], [-3e38]] * 2
    wave_S, _, mended = heard(blocks(wave_SC))
    assert np.isfinite(wave_S).all()
    assert not wave_S[5_000:5_010].any()
    assert "no numbers" in mended


def test_sound_of_impossible_channels_is_silent_and_costs_itself() -> None:
    wave_SC = tone(48_000, 0.3) * np.ones(2, np.float32)
    given = blocks(wave_SC)
    given[5] = (np.ones((1024, 29), np.float32), *given[5][1:])
    wave_S, firsts, mended = heard(given)
    lost = slice(5 * 1024, 6 * 1024)
    np.testing.assert_allclose(wave_S[: lost.start], wave_SC[: lost.start, 0], atol=1e-6)
    np.testing.assert_allclose(wave_S[lost.start :], wave_SC[lost.stop :, 0], atol=1e-6)
    assert lost.stop in firsts
    assert lost.start not in firsts
    assert "damaged sound is silent (at 0.1 s)" in mended
