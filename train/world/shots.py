"""Shots of the world: a scene in motion for some seconds, in which things sound and are named.

A random generator enters, a `Shot` leaves: each of three things sounds or is named alone, then one
sounds while another is named. One thing appears after the beginning; a fourth, where there is one,
is never heard and vanishes. Shots are for people to watch, and for what runs live.

Axes: H W pixels, 3 = red green blue, N things, S samples at 48 kHz.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import soxr
from numpy.random import Generator
from numpy.typing import NDArray

from denseav.models.audio_encoder import SAMPLE_RATE_HZ
from denseav.train.world.clips import AudioEvent, Head
from denseav.train.world.library import Library
from denseav.train.world.scenes import Masks, Picture, Scene, compose, draw, seen_shares
from denseav.train.world.sounds.classes import sound
from denseav.train.world.sounds.level import noise
from denseav.train.world.speech.phrases import Word, speak

HEIGHT, WIDTH = 480, 640
FRAME_RATE = 30
RATE_HZ = 48_000
FRAME_SAMPLES = RATE_HZ // FRAME_RATE
SCALE = 3.75
SCENE_SIZE = (128, 171)
"""A scene's own height and width: things are as large as the network knows them."""

ROOM_DB = -45.0
"""Room noise under what sounds: at -68 dBFS, where nothing that runs live listens."""
LEAD_S, GAP_S = 0.6, 0.45
LATER_S = 0.3
"""Of two things heard at once, the second begins so much later."""
SOUND_S = (1.7, 2.3)
SWAY = (5.0, 13.0)
PERIOD_S = (5.0, 9.0)
SEEN_SHARE = 0.8
"""So much of each thing is seen at all times, if that can be had."""

ROLES: tuple[tuple[tuple[tuple[Head, int], ...], ...], ...] = (
    ((("sound", 0),), (("speech", 1),), (("sound", 1),), (("sound", 2), ("speech", 0))),
    ((("speech", 0),), (("sound", 1),), (("speech", 2),), (("sound", 0), ("speech", 1))),
)
"""Who is heard after whom, and who at once; a shot has one of these."""

_TRIES = 30
_LOOKED_AT = 12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shot:
    """A scene in motion, and what is heard of it in seconds of the shot.

    `wave_S` is float32, as long as the `frames`.
    """

    scene: Scene
    frames: int
    events: tuple[AudioEvent, ...]
    wave_S: NDArray[np.float32]


def make_shot(
    random: Generator, library: Library, names: Sequence[str], silent_s: float = 0.0
) -> Shot:
    """Make a shot.

    Parameters
    ----------
    random, library : what decides, and what it is made of.
    names : three things that are heard, and perhaps one that is not.
    silent_s : how long nothing at all is heard at the end, room noise included.
    """
    performed, starts_s = _performed(random, library, names)
    stop_s = max(event.stop_s for event, _ in performed) + GAP_S
    frames = math.ceil((stop_s + silent_s) * FRAME_RATE)
    wave_S = np.zeros(frames * FRAME_SAMPLES, np.float32)
    audible = len(wave_S) if not silent_s else round((stop_s - GAP_S) * RATE_HZ)
    wave_S[:audible] = _room(random, audible)
    for event, part_S in performed:
        first = round(event.start_s * RATE_HZ)
        wave_S[first : first + len(part_S)] += part_S
    scene = _moving(
        random=random,
        library=library,
        names=tuple(names),
        length_s=frames / FRAME_RATE,
        starts_s=starts_s,
    )
    return Shot(
        scene=scene, frames=frames, events=tuple(event for event, _ in performed), wave_S=wave_S
    )


def look(shot: Shot, library: Library, index: int) -> tuple[Picture, Masks]:
    """Return a frame, uint8 [480, 640, 3], and where each thing is seen, bool [N, 480, 640]."""
    picture_HW3, masks_NHW = draw(shot.scene, library, index / FRAME_RATE, SCALE)
    return np.ascontiguousarray(picture_HW3[:, :WIDTH]), masks_NHW[..., :WIDTH]


def box(mask_HW: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """Return left, top, right and bottom (just outside) of a mask, None when it is empty."""
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _performed(
    random: Generator, library: Library, names: Sequence[str]
) -> tuple[list[tuple[AudioEvent, NDArray[np.float32]]], list[float]]:
    """Return what is heard, each with its wave, and when each turn begins."""
    performed, starts_s, time_s = [], [], LEAD_S
    for turn in ROLES[int(random.integers(len(ROLES)))]:
        starts_s.append(time_s)
        for later, (head, number) in enumerate(turn):
            start_s = round((time_s + later * LATER_S) * FRAME_RATE) / FRAME_RATE
            performed.append(
                _perform(
                    random=random, library=library, head=head, name=names[number], start_s=start_s
                )
            )
        time_s = max(event.stop_s for event, _ in performed) + GAP_S
    return performed, starts_s


def _perform(
    random: Generator, library: Library, head: Head, name: str, start_s: float
) -> tuple[AudioEvent, NDArray[np.float32]]:
    words: tuple[Word, ...] = ()
    if head == "sound":
        made_S = sound(name, random, random.uniform(*SOUND_S), held_out=library.held_out)
    else:
        spoken = speak(name, random, held_out=library.held_out)
        made_S = spoken.wave_S
        words = tuple(
            replace(word, start_s=word.start_s + start_s, stop_s=word.stop_s + start_s)
            for word in spoken.words
        )
    stop_s = start_s + len(made_S) / SAMPLE_RATE_HZ
    event = AudioEvent(name=name, head=head, start_s=start_s, stop_s=stop_s, words=words)
    return event, soxr.resample(made_S, SAMPLE_RATE_HZ, RATE_HZ)


def _room(random: Generator, samples: int) -> NDArray[np.float32]:
    made_S = noise(random, math.ceil(samples * SAMPLE_RATE_HZ / RATE_HZ))
    room_S = soxr.resample(made_S, SAMPLE_RATE_HZ, RATE_HZ)[:samples]
    return np.asarray(room_S * np.float32(10 ** (ROOM_DB / 20)), np.float32)


def _moving(
    random: Generator,
    library: Library,
    names: tuple[str, ...],
    length_s: float,
    starts_s: Sequence[float],
) -> Scene:
    """Return a scene whose things sway and are well seen all the time, coming and going."""
    times_s = np.linspace(0, length_s, _LOOKED_AT)
    best, most = None, -1.0
    for _ in range(_TRIES):
        scene = _swaying(random, compose(random, library, *SCENE_SIZE, names))
        share = min(float(seen_shares(scene, library, time_s).min()) for time_s in times_s)
        if best is None or share > most:
            best, most = scene, share
        if share >= SEEN_SHARE:
            break
    assert best is not None
    comes_s, goes_s = (round(starts_s[turn] + 0.8, 1) for turn in (0, 2))
    things = [
        replace(
            thing,
            appears_s=comes_s if thing.name == names[2] else thing.appears_s,
            vanishes_s=goes_s if thing.name in names[3:] else thing.vanishes_s,
        )
        for thing in best.things
    ]
    return replace(best, things=tuple(things))


def _swaying(random: Generator, scene: Scene) -> Scene:
    things = tuple(
        replace(
            thing,
            sway_x=float(random.uniform(*SWAY)),
            sway_y=float(random.uniform(*SWAY) / 2),
            period_s=float(random.uniform(*PERIOD_S)),
        )
        for thing in scene.things
    )
    return replace(scene, things=things)
