"""What the things of the world sound like: sixteen classes of synthesised sound.

Each call draws its own pitch, rhythm, timbre and phase. The held-out split draws from parts of the
ranges that training never draws from. Axes: S samples at 16 kHz.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from denseav.models.audio_encoder import SAMPLE_RATE_HZ
from denseav.train.world.sounds.level import coloured, level
from denseav.train.world.sounds.noise import fountain, helicopter, kettle, rocket, tractor
from denseav.train.world.sounds.struck import (
    bell,
    clock,
    drum,
    guitar,
    hammer,
    telephone,
)
from denseav.train.world.sounds.synthesis import Dice, Maker
from denseav.train.world.sounds.voiced import (
    bird,
    dog,
    robot,
    sheep,
    trumpet,
)

SOUNDS: dict[str, Maker] = {
    maker.__name__: maker
    for maker in (
        *(bell, drum, clock, guitar, telephone, hammer),
        *(bird, dog, robot, trumpet, sheep),
        *(tractor, kettle, fountain, helicopter, rocket),
    )
}


def sound(name: str, rng: Generator, duration_s: float, *, held_out: bool) -> NDArray[np.float32]:
    """Return a class's sound, float32 [S] at 16 kHz: at the common level, sounding all through.

    Parameters
    ----------
    name : str
        One of `denseav.train.world.classes.CLASSES`.
    rng : Generator
        Source of everything random.
    duration_s : float
        Length of the sound.
    held_out : bool
        Draw the parameters that training never draws.
    """
    made_S = SOUNDS[name](Dice(rng, held_out=held_out), round(duration_s * SAMPLE_RATE_HZ))
    return level(coloured(made_S, rng))
