"""What the world says: the name of a thing in a short phrase, spoken by espeak-ng.

Dozens of voices (an accent with the variant of a throat) at random speed and pitch; the
voices of the held-out split are never heard in training. espeak-ng counts the samples of the words,
so their times are exact. Axes: S samples at 16 kHz.

Errors
------
DataError    espeak-ng is not installed, or has not the voices that are asked of it
"""

from dataclasses import dataclass

import numpy as np
import soxr
from numpy.random import Generator
from numpy.typing import NDArray

from denseav.models.audio_encoder import SAMPLE_RATE_HZ
from denseav.train.world.sounds.level import Wave, coloured, level
from denseav.train.world.speech.espeak import Manner, Utterance, utter

SHORTEST_S, LONGEST_S = 0.7, 1.7
QUIET = 0.02
"""Samples below this share of the peak are trimmed at both ends."""

ACCENTS = ("en-us", "en", "en-gb-x-rp")
VARIANTS = ("m1", "m3", "m4", "m7", "f1", "f2", "f4", "Andy", "Annie", "Gene", "adam", "steph")
HELD_OUT_VARIANTS = ("m2", "m5", "f3", "f5", "Alex", "belinda")
FORMS = (
    *("{a} {name}", "the {name}", "a picture of {a} {name}", "look there is {a} {name}"),
    *("here is {a} {name}", "this is {a} {name}", "can you see the {name}", "the {name} is here"),
)

LONGER = (("here is {a} {name}", 1.0), ("look there is {a} {name}", 0.8))
SHORTER = (("this is {a} {name}", 1.2), ("{a} {name}", 1.0))
"""Forms that replace one that does not fit, and by how much they are hurried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Word:
    """One word of a phrase, or two that run together, and when it is heard in the wave."""

    text: str
    start_s: float
    stop_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Spoken:
    """A phrase: its wave [S] (float32, 16 kHz, common level), text, voice and timed words."""

    wave_S: NDArray[np.float32]
    text: str
    voice: str
    words: tuple[Word, ...]


def voices(*, held_out: bool) -> tuple[str, ...]:
    """Return the voices of a split, by the names espeak-ng gives them."""
    variants = HELD_OUT_VARIANTS if held_out else VARIANTS
    return tuple(f"{accent}+{variant}" for accent in ACCENTS for variant in variants)


def speak(name: str, rng: Generator, *, held_out: bool) -> Spoken:
    """Return `name` spoken in a random phrase by a random voice, 0.7 to 1.7 s long.

    A phrase that does not fit is spoken at another speed, or gives way to one that fits.

    Raises
    ------
    DataError
        If espeak-ng is not installed, or does not know the voice.
    """
    voice = str(rng.choice(voices(held_out=held_out)))
    speed_wpm = int(rng.integers(125, 186))
    pitch, spread = (int(value) for value in rng.integers(20, 81, 2))
    phrase = str(rng.choice(FORMS))
    article = "an" if name[0] in "aeiou" else "a"
    attempts = [(phrase, 1.0)]
    for form, hurry in attempts:
        text = form.format(a=article, name=name)
        manner = Manner(voice=voice, speed_wpm=round(speed_wpm * hurry), pitch=pitch, range=spread)
        wave_S, words = _trimmed(text, utter(text, manner))
        length_s = len(wave_S) / SAMPLE_RATE_HZ
        if SHORTEST_S <= length_s <= LONGEST_S:
            break
        if len(attempts) == 1:
            attempts += LONGER if length_s < SHORTEST_S else SHORTER
    return Spoken(wave_S=level(coloured(wave_S, rng)), text=text, voice=voice, words=words)


def _trimmed(text: str, said: Utterance) -> tuple[Wave, tuple[Word, ...]]:
    """Return the wave [S] at 16 kHz without silence at its ends, and the words in its time."""
    wave_S = said.wave_S / 32_768
    loud = np.flatnonzero(np.abs(wave_S) > QUIET * np.abs(wave_S).max())
    first, last = int(loud[0]), int(loud[-1]) + 1
    places = [place for place, _ in said.words] + [len(text)]
    samples = [min(max(sample, first), last) - first for _, sample in said.words] + [last - first]
    words = tuple(
        Word(
            text=text[places[index] : places[index + 1]].strip(),
            start_s=samples[index] / said.rate_hz,
            stop_s=samples[index + 1] / said.rate_hz,
        )
        for index in range(len(said.words))
    )
    return soxr.resample(wave_S[first:last], said.rate_hz, SAMPLE_RATE_HZ), words
