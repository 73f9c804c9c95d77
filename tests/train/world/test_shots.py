"""Shots of the world: who is heard when, who comes and goes, and what moves in sight."""

import ctypes.util
from itertools import pairwise

import numpy as np
import pytest

from denseav.train.world import shots
from denseav.train.world.library import library
from denseav.train.world.shots import (
    FRAME_RATE,
    FRAME_SAMPLES,
    RATE_HZ,
    ROLES,
    SEEN_SHARE,
    box,
    look,
    make_shot,
)

pytestmark = pytest.mark.skipif(
    ctypes.util.find_library("espeak-ng") is None, reason="espeak-ng is not installed"
)
PARTS = library(held_out=True)


def level_dbfs(wave_S):
    return 20 * np.log10(np.sqrt(np.mean(np.square(wave_S, dtype=np.float64))) + 1e-12)


def shot_of(seed, *names, **options):
    return make_shot(np.random.default_rng(seed), PARTS, names, **options)


@pytest.fixture(scope="module")
def shot():
    return shot_of(3, "bell", "dog", "rocket", "sheep")


def test_three_things_are_heard_in_turn_and_two_at_once(shot):
    roles = [[(head, shot.scene.names[n]) for turn in turns for head, n in turn] for turns in ROLES]
    assert [(event.head, event.name) for event in shot.events] in roles
    starts_s = [event.start_s for event in shot.events]
    assert starts_s == sorted(starts_s)
    assert shot.events[-1].start_s < shot.events[-2].stop_s
    assert all(a.stop_s < b.start_s for a, b in pairwise(shot.events[:-1]))
    assert {head for turn in ROLES for events in turn for head, _ in events} == {"sound", "speech"}
    assert len(shot.wave_S) == shot.frames * FRAME_SAMPLES


def test_one_thing_appears_and_the_unheard_one_vanishes(shot):
    scene, last_s = shot.scene, shot.frames / FRAME_RATE
    assert [thing.seen(0.0) for thing in scene.things] == [True, True, False, True]
    assert [thing.seen(last_s) for thing in scene.things] == [True, True, True, False]
    assert "sheep" not in {event.name for event in shot.events}
    for event in shot.events:
        thing = scene.things[scene.names.index(event.name)]
        assert thing.seen(event.start_s)
        assert thing.seen(event.stop_s)


def test_things_move_and_stay_in_sight(shot):
    shares = []
    for second in range(1, int(shot.frames / FRAME_RATE), 2):
        _, masks_NHW = look(shot, PARTS, second * FRAME_RATE)
        shares += [mask.sum() for thing, mask in zip(shot.scene.things, masks_NHW, strict=True)
                   if thing.seen(second)]  # fmt: skip
    assert min(shares) > SEEN_SHARE * 21**2 * shots.SCALE**2 * 0.9
    places = [[thing.place(s) for s in np.linspace(0, 9, 90)] for thing in shot.scene.things]
    assert all(np.ptp(place, axis=0)[0] > 2 * shots.SWAY[0] * 0.9 for place in places)


def test_a_shot_without_sound_at_its_end_has_nothing_there_and_the_others_a_faint_room():
    shot = shot_of(4, "bell", "dog", "rocket", silent_s=2.0)
    stop_s = max(event.stop_s for event in shot.events)
    assert shot.frames / FRAME_RATE == pytest.approx(stop_s + 2.0, abs=0.5)
    assert not shot.wave_S[round(stop_s * RATE_HZ) :].any()
    assert -75 < level_dbfs(shot.wave_S[: RATE_HZ // 2]) < -62
    assert np.abs(shot.wave_S).max() < 1


def test_a_box_is_tight_and_none_is_none():
    mask_HW = np.zeros((20, 30), bool)
    assert box(mask_HW) is None
    mask_HW[4:9, 7:21] = True
    assert box(mask_HW) == (7, 4, 21, 9)
