"""Tunes: the melody alone tells the class, in any key, at any tempo, on any instrument."""

from itertools import product

import numpy as np
import pytest

from denseav.models.audio_encoder import SAMPLE_RATE_HZ
from denseav.train.world.classes import CLASSES
from denseav.train.world.sounds.level import LEVEL_DBFS, active_rms
from denseav.train.world.sounds.tunes import MELODIES, ROUNDS, STEPS, tune
from tests.support.train.world_hearing import spectrum

LENGTHS_S = (0.7, 1.5)
A_SEMITONE = 3
"""Places of a listener's scale."""
SCALE_HZ = 160 * 2 ** (np.arange(40 * A_SEMITONE) / 12 / A_SEMITONE)


@pytest.fixture(scope="module")
def heard():
    """Classes, lengths and tunes, by whether they are held out."""
    return {
        held_out: [
            (name, length_s, tune(name, np.random.default_rng(seed), length_s, held_out=held_out))
            for seed, (name, length_s) in enumerate(product(CLASSES, LENGTHS_S))
        ]
        for held_out in (False, True)
    }


def scale_of(wave_S):
    """Return how loud each place of the scale is, by two harmonics, every 10 ms."""
    padded_S = np.pad(np.asarray(wave_S, np.float64), 512)
    frames = np.lib.stride_tricks.sliding_window_view(padded_S, 1_024)[::160] * np.hanning(1_024)
    loud = np.log(np.abs(np.fft.rfft(frames)) + 1e-2)
    bins = np.arange(loud.shape[1]) * SAMPLE_RATE_HZ / 1_024
    found = [
        np.interp(SCALE_HZ, bins, frame) + 0.5 * np.interp(2 * SCALE_HZ, bins, frame)
        for frame in loud
    ]
    return found - np.mean(found, axis=1, keepdims=True)


def recognized(wave_S):
    """Return the class whose melody fits best, of all keys and tempi."""
    found = scale_of(wave_S)
    at = np.arange(len(found))
    keys = np.arange(24 * A_SEMITONE)[:, None]
    fits = {}
    for name, melody in MELODIES.items():
        heights = np.repeat([height for height, _ in melody], [steps for _, steps in melody])
        for rounds in np.linspace(*ROUNDS, 5):
            step = (at / len(at) * STEPS * rounds).astype(int) % STEPS
            fit = found[at, heights[step] * A_SEMITONE + keys].mean(1).max()
            fits[name] = max(fits.get(name, -np.inf), fit)
    return max(fits, key=fits.get)


def test_every_class_has_a_melody_with_a_rhythm_and_an_order_of_its_own():
    assert tuple(MELODIES) == CLASSES
    assert {sum(steps for _, steps in melody) for melody in MELODIES.values()} == {STEPS}
    rhythms = {tuple(steps for _, steps in melody) for melody in MELODIES.values()}
    orders = {tuple(np.argsort([height for height, _ in notes])) for notes in MELODIES.values()}
    assert len(rhythms) == len(orders) == len(CLASSES)


def test_who_knows_the_melodies_recognizes_them(heard):
    for tunes in heard.values():
        right = [recognized(wave_S) == name for name, _, wave_S in tunes]
        assert np.mean(right) > 0.9, "chance is 0.0625"


@pytest.mark.parametrize(
    "measure",
    [lambda bands: bands.mean(0) @ np.arange(32) / bands.mean(0).sum(), lambda bands: bands.std()],
    ids=["brightness", "spread"],
)
def test_the_sound_of_a_tune_does_not_tell_the_class(heard, measure):
    found = [(name, measure(np.exp(spectrum(w)))) for part in heard.values() for name, _, w in part]
    names, values = (np.array(part) for part in zip(*found, strict=True))
    means = np.array([values[names == name].mean() for name in names])
    assert means.var() / values.var() < 0.5  # 0.24 by chance


def test_a_tune_is_as_long_as_asked_at_the_level_and_sounds_all_through(heard):
    for tunes in heard.values():
        for name, length_s, wave_S in tunes:
            assert wave_S.dtype == np.float32
            assert len(wave_S) == round(length_s * SAMPLE_RATE_HZ)
            assert np.abs(wave_S).max() < 1
            assert 20 * np.log10(active_rms(wave_S)) == pytest.approx(LEVEL_DBFS, abs=0.5)
            power_F = np.mean(wave_S[: len(wave_S) // 160 * 160].reshape(-1, 160) ** 2, axis=1)
            loud = np.flatnonzero(10 * np.log10(power_F + 1e-12) > LEVEL_DBFS - 25)
            assert np.diff([-1, *loud, len(power_F)]).max() <= 30, name
