"""Clips of the world: what is heard, when, of whom; and nothing but the sound tells the kinds."""

import ctypes.util
from itertools import pairwise

import numpy as np
import pytest

from denseav.models.audio_encoder import SAMPLE_RATE_HZ
from denseav.train.world.classes import CLASSES
from denseav.train.world.clips import (
    HEADS,
    KINDS,
    LEVEL_DB,
    NOISE_DB,
    make_clip,
    place_event,
    room,
)
from denseav.train.world.library import library
from denseav.train.world.sounds.level import LEVEL_DBFS, active_rms

pytestmark = pytest.mark.skipif(
    ctypes.util.find_library("espeak-ng") is None, reason="espeak-ng is not installed"
)
PARTS = library(held_out=False)
SIZE = (96, 96)
EACH = 160
FARTHEST = 1.95 * np.sqrt(2 / EACH)
"""Distributions of so many are farther apart by chance once in a thousand."""
UNEVEN = 37.7
"""Chi squared of sixteen classes is larger by chance once in a thousand."""


def clip_of(kind, seed, **options):
    return make_clip(np.random.default_rng([seed, 3]), PARTS, kind, size=SIZE, **options)


def dbfs(rms):
    return 20 * np.log10(rms + 1e-12)


def apart(first, second):
    """Return the largest distance of two distributions (Kolmogorov and Smirnov)."""
    values = np.sort(np.concatenate([first, second]))
    shares = [np.searchsorted(np.sort(v), values, "right") / len(v) for v in (first, second)]
    return np.abs(shares[0] - shares[1]).max()


def unevenness(names):
    expected = len(names) / len(CLASSES)
    return sum((names.count(name) - expected) ** 2 / expected for name in CLASSES)


def quietest(wave_S):
    """Return the level of the quietest 50 ms, in dBFS: the room."""
    power = np.mean(wave_S[: len(wave_S) // 800 * 800].reshape(-1, 800) ** 2, axis=1)
    return dbfs(np.sqrt(power.min()))


@pytest.fixture(scope="module")
def many():
    """Many clips of each of the kinds that training has."""
    random = np.random.default_rng(1)
    clips = {kind: [] for kind in HEADS}
    for kinds in (("sound", "speech"), ("tune",)):
        for _ in range(EACH):
            for kind in kinds:
                clips[kind].append(make_clip(random, PARTS, kind, size=SIZE))
    return clips


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_same_clip_and_another_seed_another(kind):
    one, same, other = (clip_of(kind, seed) for seed in (1, 1, 2))
    assert one.wave_S.tobytes() == same.wave_S.tobytes()
    assert (one.scene, one.events, one.kind) == (same.scene, same.events, kind)
    assert one.scene != other.scene
    assert (one.wave_S.tobytes() != other.wave_S.tobytes()) is (kind != "silence")


@pytest.mark.parametrize("kind", HEADS)
def test_one_thing_of_the_scene_is_heard_where_the_clip_says(kind):
    for seed in range(8):
        clip = clip_of(kind, seed)
        (event,) = clip.events
        assert (event.head, event.name in clip.scene.names) == (kind, True)
        assert 0 <= event.start_s < event.stop_s <= 2.0
        first, last = round(event.start_s * SAMPLE_RATE_HZ), round(event.stop_s * SAMPLE_RATE_HZ)
        inside = np.sqrt(np.mean(clip.wave_S[first:last] ** 2))
        outside_S = np.concatenate([clip.wave_S[:first], clip.wave_S[last:]])
        assert dbfs(inside) > dbfs(np.sqrt(np.mean(outside_S**2))) + 8


def test_at_once_one_sounds_and_another_is_named():
    same = 0
    for seed in range(12):
        clip = clip_of("both", seed, things=(2, 4))
        sounding, named = clip.events
        assert (sounding.head, named.head) == ("sound", "speech")
        assert {sounding.name, named.name} <= set(clip.scene.names)
        same += sounding.name == named.name
        shorter, longer = sorted(clip.events, key=lambda event: event.stop_s - event.start_s)
        assert longer.start_s <= shorter.start_s
        assert shorter.stop_s <= longer.stop_s
    assert same == 0
    alone = clip_of("both", 0, things=(1, 1))
    assert {event.name for event in alone.events} == set(alone.scene.names)


@pytest.mark.parametrize("kind", [f"offscreen_{head}" for head in HEADS])
def test_what_is_heard_off_screen_is_not_shown(kind):
    for seed in range(8):
        clip = clip_of(kind, seed)
        (event,) = clip.events
        assert event.head == kind.removeprefix("offscreen_")
        assert event.name not in clip.scene.names


def test_silence_is_nothing_and_noise_is_as_loud_as_a_sound():
    assert not clip_of("silence", 0).wave_S.any()
    for seed in range(8):
        clip = clip_of("noise", seed)
        assert not clip.events
        level_db = dbfs(active_rms(clip.wave_S)) - LEVEL_DBFS
        assert LEVEL_DB[0] - 1 < level_db < LEVEL_DB[1] + 1


def test_room_noise_is_so_much_quieter_than_a_sound():
    random = np.random.default_rng(0)
    levels = [dbfs(active_rms(room(random, 16_000))) - LEVEL_DBFS for _ in range(40)]
    assert NOISE_DB[0] - 0.6 < min(levels) < NOISE_DB[0] + 5
    assert NOISE_DB[1] - 5 < max(levels) < NOISE_DB[1] + 0.6


def test_words_are_timed_from_the_beginning_of_the_clip():
    random = np.random.default_rng(5)
    for _ in range(8):
        event, wave_S = place_event(random, PARTS, "speech", "kettle", 32_000)
        assert "kettle" in [word.text for word in event.words]
        assert event.start_s - 0.01 <= event.words[0].start_s
        assert event.words[-1].stop_s == pytest.approx(event.stop_s, abs=0.01)
        assert all(a.stop_s <= b.start_s + 1e-6 for a, b in pairwise(event.words))
        assert not wave_S[: round(event.start_s * SAMPLE_RATE_HZ)].any()
    assert place_event(random, PARTS, "sound", "kettle", 32_000)[0].words == ()


def test_a_longer_clip_has_room_for_what_is_heard():
    clip = clip_of("speech", 0, samples=5 * SAMPLE_RATE_HZ)
    assert len(clip.wave_S) == 5 * SAMPLE_RATE_HZ
    assert clip.events[0].stop_s <= 5.0


@pytest.mark.parametrize(
    "measure",
    [
        lambda clip: dbfs(active_rms(clip.wave_S)),
        lambda clip: dbfs(np.sqrt(np.mean(clip.wave_S**2))),
        lambda clip: quietest(clip.wave_S),
        lambda clip: clip.events[0].start_s,
        lambda clip: clip.events[0].stop_s - clip.events[0].start_s,
        lambda clip: len(clip.scene.things),
        lambda clip: clip.scene.things[clip.scene.names.index(clip.events[0].name)].x,
        lambda clip: clip.scene.things[clip.scene.names.index(clip.events[0].name)].y,
        lambda clip: clip.scene.things[clip.scene.names.index(clip.events[0].name)].hue,
        lambda clip: clip.scene.background,
    ],
    ids=["level", "energy", "room", "onset", "length", "things", "x", "y", "hue", "background"],
)
def test_speech_and_tunes_are_like_sounds_in(many, measure):
    figures = [np.array([measure(clip) for clip in clips], float) for clips in many.values()]
    sounds, speech, tunes = figures
    assert apart(sounds, speech) < FARTHEST
    assert apart(sounds, tunes) < FARTHEST


def test_every_class_is_shown_sounds_and_is_named_as_often(many):
    shown = [name for clips in many.values() for clip in clips for name in clip.scene.names]
    assert unevenness(shown) < UNEVEN
    for clips in many.values():
        assert unevenness([clip.events[0].name for clip in clips]) < UNEVEN


def test_what_is_heard_is_no_more_in_front_than_the_rest(many):
    clips = [clip for kind in many.values() for clip in kind if len(clip.scene.things) > 1]
    ranks = [
        clip.scene.names.index(clip.events[0].name) / (len(clip.scene.things) - 1) for clip in clips
    ]
    assert np.mean(ranks) == pytest.approx(0.5, abs=3.3 * np.std(ranks) / np.sqrt(len(ranks)))


def test_length_and_level_do_not_tell_the_class(many):
    for clips in many.values():
        names = np.array([clip.events[0].name for clip in clips])
        for figures in (
            np.array([clip.events[0].stop_s - clip.events[0].start_s for clip in clips]),
            np.array([dbfs(active_rms(clip.wave_S)) for clip in clips]),
        ):
            means = np.array([figures[names == name].mean() for name in names])
            assert means.var() / figures.var() < 0.3
