"""The parts of the world: known by number, kept, apart between splits, the same when fine."""

import ctypes.util

import cv2
import numpy as np
import pytest

from denseav.train.world.classes import CLASSES
from denseav.train.world.library import (
    BACKGROUND_SIDE,
    DURATIONS_S,
    FINE_BACKGROUNDS,
    FINE_LOOKS,
    FINER,
    LOOKS,
    Library,
    library,
)
from denseav.train.world.looks.objects import SPRITE_SIDE
from denseav.train.world.speech.phrases import voices

needs_voice = pytest.mark.skipif(
    ctypes.util.find_library("espeak-ng") is None, reason="espeak-ng is not installed"
)
TRAIN, TEST = library(held_out=False), library(held_out=True)


def shrunk(picture, side):
    return cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA).astype(int)


@pytest.mark.parametrize("held_out", [False, True])
def test_a_number_is_the_same_part_in_every_library(held_out):
    one, other = Library(held_out=held_out), Library(held_out=held_out)
    assert np.array_equal(one.look("dog", 7), other.look("dog", 7))
    assert np.array_equal(one.background(7), other.background(7))
    assert np.array_equal(one.sound("dog", 7), other.sound("dog", 7))
    assert np.array_equal(one.tune("dog", 7), other.tune("dog", 7))


@needs_voice
def test_a_spoken_name_is_the_same_in_every_library():
    one, other = (Library(held_out=True).speech("bell", 3) for _ in range(2))
    assert (one.text, one.voice, one.words) == (other.text, other.voice, other.words)
    assert np.array_equal(one.wave_S, other.wave_S)


def test_another_number_or_class_is_another_part():
    assert not np.array_equal(TRAIN.look("dog", 0), TRAIN.look("dog", 1))
    assert not np.array_equal(TRAIN.look("dog", 0), TRAIN.look("bell", 0))
    assert not np.array_equal(TRAIN.background(0), TRAIN.background(1))
    assert TRAIN.sound("dog", 0).tobytes() != TRAIN.sound("dog", 1).tobytes()


def test_training_and_test_share_no_part():
    for name in CLASSES:
        train, test = ({parts.look(name, n).tobytes() for n in range(8)} for parts in (TRAIN, TEST))
        assert not train & test
        train, test = ({p.sound(name, n).tobytes() for n in range(3)} for p in (TRAIN, TEST))
        assert not train & test
        train, test = ({p.tune(name, n).tobytes() for n in range(2)} for p in (TRAIN, TEST))
        assert not train & test
    train, test = ({parts.background(n).tobytes() for n in range(20)} for parts in (TRAIN, TEST))
    assert not train & test


@needs_voice
def test_nobody_speaks_in_both_splits():
    heard = [{parts.speech("bell", n).voice for n in range(12)} for parts in (TRAIN, TEST)]
    assert heard[0] <= set(voices(held_out=False))
    assert heard[1] <= set(voices(held_out=True))
    assert not heard[0] & heard[1]


def test_a_part_is_made_once_and_the_fine_ones_are_few():
    assert TRAIN.look("clock", 4) is TRAIN.look("clock", 4)
    assert TRAIN.background(4) is TRAIN.background(4)
    assert TRAIN.look.cache_info().maxsize == len(CLASSES) * LOOKS
    parts = Library(held_out=True)
    for number in range(FINE_BACKGROUNDS + 1):
        parts.fine_background(number)
    assert parts.fine_background.cache_info().currsize == FINE_BACKGROUNDS
    assert parts.fine_look.cache_info().maxsize == FINE_LOOKS


@pytest.mark.parametrize("name", CLASSES)
def test_a_fine_look_is_the_same_object_with_more_pixels(name):
    for number in range(2):
        coarse_HW4, fine_HW4 = TEST.look(name, number), TEST.fine_look(name, number)
        assert fine_HW4.shape == (FINER * SPRITE_SIDE, FINER * SPRITE_SIDE, 4)
        small_HW4 = shrunk(fine_HW4, SPRITE_SIDE)
        one, other = coarse_HW4[..., 3] > 127, small_HW4[..., 3] > 127
        assert (one & other).sum() / (one | other).sum() > 0.93
        assert np.abs(coarse_HW4[..., :3] - small_HW4[..., :3])[one].mean() < 18
        assert (fine_HW4[..., :3] <= fine_HW4[..., 3:]).all()


def test_a_fine_background_of_the_test_is_the_same_surface():
    apart = []
    for number in range(8):
        small_HW3 = shrunk(TEST.fine_background(number), BACKGROUND_SIDE)
        apart.append(np.abs(TEST.background(number) - small_HW3).mean())
    strangers = np.abs(TEST.background(0).astype(int) - TEST.background(1)).mean()
    assert max(apart) < 12 < strangers


def test_sounds_last_as_long_as_phrases_do():
    lengths = [len(TRAIN.sound(name, n)) / 16_000 for name in CLASSES for n in range(3)]
    assert DURATIONS_S[0] - 0.001 <= min(lengths)
    assert max(lengths) <= DURATIONS_S[-1] + 0.001
    assert np.median(lengths) == pytest.approx(DURATIONS_S[3], abs=0.15)
