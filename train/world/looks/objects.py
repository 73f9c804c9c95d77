"""The world's objects: each class is a shape, never a colour or a texture.

A class is a function that draws outlines with a `Pen`; the paint box gives paints, patterns, light
and a mirror, from the same pools for all.
"""

from collections.abc import Callable

from numpy.random import Generator

from denseav.train.world.looks import animals, machines
from denseav.train.world.looks import instruments as tools
from denseav.train.world.looks.painting import MARGIN, Pen, Picture, picture

SPRITE_SIDE = 96

_SHAPES: dict[str, Callable[[Pen], None]] = {
    "bell": tools.bell,
    "drum": tools.drum,
    "bird": animals.bird,
    "dog": animals.dog,
    "tractor": machines.tractor,
    "clock": machines.clock,
    "kettle": tools.kettle,
    "fountain": tools.fountain,
    "guitar": tools.guitar,
    "telephone": machines.telephone,
    "robot": machines.robot,
    "helicopter": machines.helicopter,
    "trumpet": tools.trumpet,
    "sheep": animals.sheep,
    "rocket": machines.rocket,
    "hammer": tools.hammer,
}


def sprite(name: str, rng: Generator, side: int = SPRITE_SIDE) -> Picture:
    """Draw one object of a class.

    Parameters
    ----------
    name : str
        One of `world_classes.CLASSES`.
    rng : Generator
        Draws proportions, details, paints, patterns, light and mirror.
    side : int
        Pixels of the picture's side; the same object in any size.

    Returns
    -------
    ndarray uint8 [side, side, 4]
        Red, green, blue, straight alpha; upright, centred, 1-2 of 96 pixels from the picture's
        edge on its longer side. Alpha over 127 is the exact mask.
    """
    pen = Pen(rng)
    _SHAPES[name](pen)
    return picture(pen, side, MARGIN * side / SPRITE_SIDE)
