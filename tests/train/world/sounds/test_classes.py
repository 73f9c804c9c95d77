import numpy as np
import pytest

from denseav.models.audio_encoder import SAMPLE_RATE_HZ
from denseav.train.world.classes import CLASSES
from denseav.train.world.sounds.classes import SOUNDS, sound
from denseav.train.world.sounds.level import LEVEL_DBFS, active_rms, level, noise
from denseav.train.world.sounds.synthesis import BANDS, Dice, modes, repeated
from tests.support.train.world_hearing import accuracy, spectrum, texture


def make(name, seed, duration_s=1.5, *, held_out=False):
    return sound(name, np.random.default_rng(seed), duration_s, held_out=held_out)


def dbfs(rms):
    return 20 * np.log10(rms)


def test_every_class_has_a_sound():
    assert set(SOUNDS) == set(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("duration_s", [0.7, 1.337, 2.0, 6.0])
def test_a_sound_is_as_long_as_asked_at_the_level_and_below_full_scale(name, duration_s):
    for seed in range(3):
        wave_S = make(name, seed, duration_s, held_out=seed == 2)
        assert wave_S.dtype == np.float32
        assert len(wave_S) == round(duration_s * SAMPLE_RATE_HZ)
        assert np.all(np.isfinite(wave_S))
        assert np.abs(wave_S).max() < 1
        assert dbfs(active_rms(wave_S)) == pytest.approx(LEVEL_DBFS, abs=0.5)
        assert abs(wave_S[0]) < 1e-3
        assert abs(wave_S[-1]) < 1e-3


@pytest.mark.parametrize("name", CLASSES)
def test_a_sound_is_active_all_through(name):
    for seed in range(6):
        wave_S = make(name, seed, 3.0, held_out=bool(seed % 2))
        power_F = np.mean(wave_S[: -(len(wave_S) % 160) or None].reshape(-1, 160) ** 2, axis=1)
        loud = np.flatnonzero(dbfs(np.sqrt(power_F) + 1e-9) > LEVEL_DBFS - 25)
        gaps = np.diff(np.concatenate([[-1], loud, [len(power_F)]])) / 100
        assert gaps.max() <= 0.3, f"{name} is silent for {gaps.max():.2f} s"


@pytest.mark.parametrize("name", CLASSES)
def test_a_seed_gives_the_same_bytes_and_another_seed_another_sound(name):
    assert make(name, 5).tobytes() == make(name, 5).tobytes()
    assert make(name, 5).tobytes() != make(name, 6).tobytes()
    assert make(name, 5).tobytes() != make(name, 5, held_out=True).tobytes()


def test_the_splits_share_no_parameter_and_each_covers_the_range():
    def draws(held_out):
        dice = Dice(np.random.default_rng(0), held_out=held_out)
        return np.array([dice.between(10.0, 10.0 + BANDS) for _ in range(500)])

    train, held_out = np.floor(draws(False)) - 10, np.floor(draws(True)) - 10
    assert set(train) == {0, 2, 4, 6, 8}
    assert set(held_out) == {1, 3, 5, 7}


def test_a_ratio_is_drawn_evenly_in_its_logarithm():
    dice = Dice(np.random.default_rng(0), held_out=False)
    draws = np.array([dice.ratio(100, 400) for _ in range(4_000)])
    assert draws.min() >= 100
    assert draws.max() <= 400
    assert np.median(draws) == pytest.approx(200, rel=0.06)


def test_struck_modes_have_their_pitch_and_die_at_their_rate():
    rng = np.random.default_rng(0)
    wave_S = modes(np.array([800.0]), np.array([1.0]), np.array([0.2]), rng, 1.0)
    spectrum_hz = np.abs(np.fft.rfft(wave_S))
    assert np.argmax(spectrum_hz) == pytest.approx(800, abs=1)
    early, late = (np.abs(wave_S[at : at + 800]).max() for at in (0, 3_200))
    assert late / early == pytest.approx(np.exp(-1), rel=0.02)


def test_repeated_events_keep_their_period_whatever_the_phase():
    click_S = np.concatenate([[1.0], np.zeros(50)])
    for seed in range(20):
        dice = Dice(np.random.default_rng(seed), held_out=False)
        at = np.flatnonzero(repeated(dice, 16_000, 0.1, 0.0, lambda _: click_S))
        assert np.all(np.abs(np.diff(at) - 1_600) <= 1)
        assert at[0] < 1_600
        assert at[-1] >= 16_000 - 1_602


def test_an_ear_that_heard_training_tells_held_out_sounds_apart():
    features, labels = [], []
    for held_out in (False, True):
        for index, name in enumerate(CLASSES):
            for seed in range(14):
                waves = make(name, (index, seed, held_out), 1.2, held_out=held_out)
                features.append(texture(waves))
                labels.append(index)
    features, labels, half = np.array(features), np.array(labels), len(labels) // 2
    share = accuracy(features[:half], labels[:half], features[half:], labels[half:])
    assert share > 0.9, "chance is 0.0625"


def test_the_rocket_is_not_room_noise():
    features, labels = [], []
    for seed in range(60):
        features += [
            texture(make("rocket", seed)),
            texture(noise(np.random.default_rng(seed), 24_000)),
        ]
        labels += [0, 1]
    features, labels = np.array(features), np.array(labels)
    assert accuracy(features[:80], labels[:80], features[80:], labels[80:]) >= 0.9


def test_noise_has_the_level_a_seed_and_many_colours():
    waves = [noise(np.random.default_rng(seed), 16_000) for seed in range(12)]
    assert waves[3].tobytes() == noise(np.random.default_rng(3), 16_000).tobytes()
    assert all(len(w) == 16_000 and w.dtype == np.float32 for w in waves)
    assert all(dbfs(active_rms(w)) == pytest.approx(LEVEL_DBFS, abs=0.5) for w in waves)
    slopes = [np.diff(spectrum(w).mean(0)[[4, 26]])[0] for w in waves]
    assert np.ptp(slopes) > 2


def test_level_brings_any_wave_to_the_same_level_and_leaves_silence():
    rng = np.random.default_rng(0)
    sparse_S = np.where((np.arange(16_000) + 2_000) % 4_000 < 30, rng.standard_normal(16_000), 0)
    for wave_S in (1e-4 * rng.standard_normal(16_000), 50 * rng.standard_normal(16_000), sparse_S):
        levelled_S = level(wave_S)
        assert dbfs(active_rms(levelled_S)) == pytest.approx(LEVEL_DBFS, abs=0.5)
        assert np.abs(levelled_S).max() < 1
        inner = slice(200, -200)
        assert np.allclose(level(levelled_S)[inner], levelled_S[inner], rtol=0.1, atol=0.03)
    assert not level(np.zeros(1_000)).any()
