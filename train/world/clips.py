"""Clips of the world: a scene, and two seconds of what is heard in it, known to the sample.

A seed and a kind enter, a `Clip` leaves. Nothing but what is heard tells the kinds apart:
loudness, length, onset and room noise are drawn alike for sounds, speech and tunes, and every class
is as likely to be shown, to sound, to be named and to have its tune played.

Axes: S samples at 16 kHz.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from denseav.models.audio_encoder import SAMPLE_RATE_HZ
from denseav.train.world.classes import CLASSES
from denseav.train.world.library import LOOKS, Library
from denseav.train.world.scenes import Scene, choose_names, compose
from denseav.train.world.sounds.level import noise
from denseav.train.world.speech.phrases import Word

Head = Literal["sound", "speech", "tune"]
# fmt: off
Kind = Literal[
    "sound", "speech", "both", "silence", "noise", "offscreen_sound", "offscreen_speech", "tune",
    "offscreen_tune",
]
# fmt: on
HEADS: tuple[Head, ...] = get_args(Head)
TWO_HEADS = HEADS[:2]
"""What is heard where no more is asked for."""
KINDS: tuple[Kind, ...] = get_args(Kind)

LEVEL_DB = (-12.0, 6.0)
NOISE_DB = (-45.0, -24.0)
"""Room noise under a sound of common level."""
MIX_GAIN_DB = (-3.0, 3.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioEvent:
    """One thing heard: it makes its sound, is named, or its tune is played.

    `words` are timed from the clip's beginning; only speech has some.
    """

    name: str
    head: Head
    start_s: float
    stop_s: float
    words: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clip:
    """A scene and its sound: `wave_S` is float32, `parts` are the waves of each `heard`, alone."""

    kind: Kind
    scene: Scene
    events: tuple[AudioEvent, ...]
    wave_S: NDArray[np.float32]


def make_clip(
    random: Generator,
    library: Library,
    kind: Kind,
    *,
    size: tuple[int, int],
    things: tuple[int, int] = (1, 4),
    samples: int = 2 * SAMPLE_RATE_HZ,
    plain: bool = False,
    during: AudioEvent | None = None,
) -> Clip:
    """Make a clip.

    Parameters
    ----------
    random, library : what decides, and what it is made of.
    kind : what is heard: a thing's sound, its name or tune, a sound and a name at once (of two
        things, or of the only one), or nothing of the scene.
    size : height and width of the picture, in pixels.
    things : the fewest and the most things in the scene.
    samples : length of the sound.
    plain : nothing is on the background.
    during : heard at the same time elsewhere: the shorter of the two lies within the longer.
    """
    count = int(random.integers(things[0], things[1] + 1))
    names = choose_names(random, count)
    wave_S = np.zeros(samples, np.float32)
    events: list[AudioEvent] = []
    for head, name in _subjects(random, kind, names):
        event, part_S = place_event(
            random=random,
            library=library,
            head=head,
            name=name,
            samples=samples,
            during=events[0] if events else during,
        )
        events.append(event)
        wave_S += part_S
    if kind == "noise":
        wave_S += noise(random, samples)
    elif kind != "silence":
        wave_S += room(random, samples)
    wave_S *= np.float32(10 ** (random.uniform(*LEVEL_DB) / 20))
    return Clip(
        kind=kind,
        scene=compose(random, library, *size, names, plain=plain),
        events=tuple(events),
        wave_S=wave_S,
    )


def place_event(
    random: Generator,
    library: Library,
    head: Head,
    name: str,
    samples: int,
    during: AudioEvent | None = None,
) -> tuple[AudioEvent, NDArray[np.float32]]:
    """Return a thing's sound, name or tune somewhere in a wave of `samples`, else silent.

    Of it and what it is heard `during`, the shorter lies within the longer.
    """
    number = int(random.integers(LOOKS))
    words: tuple[Word, ...] = ()
    if head == "speech":
        spoken = library.speech(name, number)
        sounding_S, words = spoken.wave_S, spoken.words
    else:
        sounding_S = (library.sound if head == "sound" else library.tune)(name, number)
    sounding_S = sounding_S[:samples]
    first = _begin(random, len(sounding_S), samples, during)
    wave_S = np.zeros(samples, np.float32)
    wave_S[first : first + len(sounding_S)] = sounding_S
    wave_S *= np.float32(10 ** (random.uniform(*MIX_GAIN_DB) / 20))
    start_s = first / SAMPLE_RATE_HZ
    return AudioEvent(
        name=name,
        head=head,
        start_s=start_s,
        stop_s=start_s + len(sounding_S) / SAMPLE_RATE_HZ,
        words=tuple(
            replace(word, start_s=word.start_s + start_s, stop_s=word.stop_s + start_s)
            for word in words
        ),
    ), wave_S


def _begin(random: Generator, length: int, samples: int, during: AudioEvent | None) -> int:
    least, most = 0, samples - length
    if during is not None:
        start, stop = round(during.start_s * SAMPLE_RATE_HZ), round(during.stop_s * SAMPLE_RATE_HZ)
        least, most = max(least, min(start, stop - length)), min(most, max(start, stop - length))
    return int(random.integers(least, most + 1))


def room(random: Generator, samples: int) -> NDArray[np.float32]:
    """Return room noise, so much quieter than a sound as `NOISE_DB` says."""
    return noise(random, samples) * np.float32(10 ** (random.uniform(*NOISE_DB) / 20))


def _subjects(random: Generator, kind: Kind, names: tuple[str, ...]) -> list[tuple[Head, str]]:
    if kind in ("silence", "noise"):
        return []
    shown = [str(name) for name in random.permutation(names)]
    if kind == "sound" or kind == "speech" or kind == "tune":
        return [(kind, shown[0])]
    if kind == "both":
        return [("sound", shown[0]), ("speech", shown[-1])]
    absent = str(random.choice([name for name in CLASSES if name not in names]))
    off_screen: dict[Kind, Head] = {
        "offscreen_sound": "sound", "offscreen_speech": "speech", "offscreen_tune": "tune",
    }  # fmt: skip
    return [(off_screen[kind], absent)]
