"""The world's objects: each class is a shape, never a colour or a texture.

A class is a function that draws outlines with a `Pen`; the paint box gives paints, patterns, light
and a mirror, from the same pools for all.
"""

from collections.abc import Callable

from numpy.random import Generator

from denseav.train import world_objects_animals as animals
from denseav.train import world_objects_machines as machines
from denseav.train import world_objects_tools as tools
from denseav.train.world_paint import Pen, Picture, picture

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
    "owl": animals.owl,
    "bee": animals.bee,
    "guitar": tools.guitar,
    "telephone": machines.telephone,
    "robot": machines.robot,
    "helicopter": machines.helicopter,
    "trumpet": tools.trumpet,
    "sheep": animals.sheep,
    "rocket": machines.rocket,
    "frog": animals.frog,
    "hammer": tools.hammer,
    "scissors": tools.scissors,
}


def sprite(name: str, rng: Generator) -> Picture:
    """Draw one object of a class.

    Parameters
    ----------
    name : str
        One of `world_classes.CLASSES`.
    rng : Generator
        Draws proportions, details, paints, patterns, light and mirror.

    Returns
    -------
    ndarray uint8 [96, 96, 4]
        Red, green, blue, straight alpha; upright, centred, 1-2 pixels from the picture's edge on
        its longer side. Alpha over 127 is the exact mask.
    """
    pen = Pen(rng)
    _SHAPES[name](pen)
    return picture(pen, SPRITE_SIDE)
