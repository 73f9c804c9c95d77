"""The scale of the heads, and the inputs it is set with."""

import numpy as np
import pytest

from denseav.export.builder import probe_inputs
from denseav.export.builder.head_scale import calibrate

HEADS = ("speech", "sound")
HEAT = np.random.default_rng(0).standard_normal((6, 2, 5, 7)).astype(np.float32)


def test_three_quarters_of_negative_maps_stay_under_the_threshold() -> None:
    heads = calibrate(HEADS, HEAT + 3, HEAT)
    for index, head in enumerate(heads):
        maxima = HEAT[:, index].max(axis=(1, 2))
        assert np.mean(maxima <= head.threshold) >= 0.66
        assert head.threshold < head.ceiling <= (HEAT[:, index] + 3).max()


def test_a_head_that_hears_no_difference_still_has_a_scale() -> None:
    for head in calibrate(HEADS, HEAT - 3, HEAT):
        assert head.ceiling > head.threshold


def test_probe_inputs_are_the_same_every_time_and_not_all_alike() -> None:
    frames = probe_inputs.frames(3, 32, 48)
    sounds = probe_inputs.sounds(3, 8000)
    assert np.array_equal(frames, probe_inputs.frames(3, 32, 48))
    assert np.array_equal(sounds, probe_inputs.sounds(3, 8000))
    assert frames.shape == (3, 32, 48, 3)
    assert frames.std(axis=(1, 2)).min() > 5
    assert not np.array_equal(sounds[0], sounds[1])


def test_probe_sounds_are_loud_and_negatives_go_from_silence_to_noise() -> None:
    def rms_dbfs(wave: np.ndarray) -> float:
        return float(20 * np.log10(np.sqrt(np.mean(wave**2)) + 1e-12))

    assert [rms_dbfs(wave) for wave in probe_inputs.sounds(2, 16000)] == pytest.approx(
        [-20, -20], abs=0.1
    )
    levels = [rms_dbfs(wave) for wave in probe_inputs.negatives(16000)]
    assert levels == pytest.approx([-240, -50, -35, -20], abs=0.1)
