"""The parts of the world, each known by its number: looks, backgrounds, sounds, names and tunes.

A number enters, a part leaves, the same on every machine; a part is made when it is first asked
for, and kept. Training and test have different voices, sound parameters, backgrounds and looks.

Axes: H W pixels, S samples at 16 kHz.
"""

from functools import cache, lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from denseav.train.world.classes import CLASSES
from denseav.train.world.looks.backgrounds import background
from denseav.train.world.looks.objects import SPRITE_SIDE, sprite
from denseav.train.world.sounds.classes import sound
from denseav.train.world.sounds.tunes import tune
from denseav.train.world.speech.phrases import Spoken, speak

LOOKS = 200
"""How many looks a class has; sounds, spoken names and tunes too."""

BACKGROUNDS = 1_000
BACKGROUND_SIDE = 192
PLAIN = -1
"""The number of a background with nothing on it."""

FINER = 4
"""Fine looks and backgrounds have so many times the pixels a side, for what people watch."""
FINE_LOOKS = 48
FINE_BACKGROUNDS = 4
"""How many of each are kept."""

DURATIONS_S = (0.70, 0.766, 0.848, 0.976, 1.123, 1.289, 1.69)
DURATION_SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
"""How long sounds and tunes last: so many, in shares, at most so long. Phrases last as long."""

_LOOK, _BACKGROUND, _SOUND, _SPEECH, _TUNE = range(5)


class Library:
    """All parts of training, or those held out for test."""

    def __init__(self, *, held_out: bool) -> None:
        self.held_out = held_out
        self.look = lru_cache(maxsize=len(CLASSES) * LOOKS)(self._look)
        self.background = lru_cache(maxsize=BACKGROUNDS)(self._background)
        self.fine_look = lru_cache(maxsize=FINE_LOOKS)(partial(self._look, finer=FINER))
        self.fine_background = lru_cache(maxsize=FINE_BACKGROUNDS)(
            partial(self._background, finer=FINER)
        )
        self.sound = lru_cache(maxsize=len(CLASSES) * LOOKS)(self._sound)
        self.speech = lru_cache(maxsize=len(CLASSES) * LOOKS)(self._speech)
        self.tune = lru_cache(maxsize=len(CLASSES) * LOOKS)(self._tune)

    def _look(self, name: str, number: int, finer: int = 1) -> NDArray[np.uint8]:
        """Return uint8 [H, W, 4]: red, green and blue times alpha, and alpha."""
        sprite_HW4 = sprite(name, self._random(_LOOK, name, number), finer * SPRITE_SIDE)
        covered_HW1 = sprite_HW4[..., 3:].astype(np.float32) / 255
        colour_HW3 = (sprite_HW4[..., :3] * covered_HW1).astype(np.uint8)
        return np.concatenate((colour_HW3, sprite_HW4[..., 3:]), axis=2)

    def _background(self, number: int, finer: int = 1) -> NDArray[np.uint8]:
        if number == PLAIN:
            return np.full((finer * BACKGROUND_SIDE, finer * BACKGROUND_SIDE, 3), 128, np.uint8)
        random = np.random.default_rng([_BACKGROUND, number, self.held_out])
        side = finer * BACKGROUND_SIDE
        return background(random, side, side, held_out=self.held_out)

    def _sound(self, name: str, number: int) -> NDArray[np.float32]:
        random = self._random(_SOUND, name, number)
        return sound(name, random, _duration_s(random), held_out=self.held_out)

    def _speech(self, name: str, number: int) -> Spoken:
        return speak(name, self._random(_SPEECH, name, number), held_out=self.held_out)

    def _tune(self, name: str, number: int) -> NDArray[np.float32]:
        random = self._random(_TUNE, name, number)
        return tune(name, random, _duration_s(random), held_out=self.held_out)

    def _random(self, part: int, name: str, number: int) -> np.random.Generator:
        return np.random.default_rng([part, CLASSES.index(name), number, self.held_out])


def _duration_s(random: np.random.Generator) -> float:
    return float(np.interp(random.random(), DURATION_SHARES, DURATIONS_S))


@cache
def library(*, held_out: bool) -> Library:
    """Return the one library of training or of test."""
    return Library(held_out=held_out)
