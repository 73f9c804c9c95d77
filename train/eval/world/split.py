"""A test split of the world: any seed enters, clips that no training has seen leave, one by one.

Voices, sounds, looks and backgrounds are those held out. A clip depends on the seed, its kind and
its number alone, so that more clips are the same ones and others after them.

N things, H W pixels, S samples at 16 kHz.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from denseav.train.errors import DataError
from denseav.train.metrics.localization import Mask
from denseav.train.world.classes import CLASSES
from denseav.train.world.clips import (
    KINDS,
    AudioEvent,
    Clip,
    Head,
    Kind,
    make_clip,
    place_event,
    room,
)
from denseav.train.world.library import BACKGROUND_SIDE, library
from denseav.train.world.scenes import Masks, Picture, draw

LEAST_SIDE = 96
"""Below it, things would not fit."""

_CLIP, _ONE_OF_EACH = 0, 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A clip, its picture, and where each thing of its scene is seen, bool [N, H, W]."""

    clip: Clip
    picture_HW3: Picture
    masks_NHW: Masks

    def truth(self, name: str) -> Mask:
        """Return where a thing is seen, bool [H, W]."""
        mask_HW: Mask = self.masks_NHW[self.clip.scene.names.index(name)]
        return mask_HW


@dataclass(frozen=True, kw_only=True)
class Split:
    """All clips of a seed, as large and as long as a model takes them.

    Attributes
    ----------
    seed : decides everything; not negative.
    size : height and width of the pictures, in pixels.
    samples : length of the sounds.
    """

    seed: int
    size: tuple[int, int]
    samples: int

    def __post_init__(self) -> None:
        if min(self.size) < LEAST_SIDE or max(self.size) > BACKGROUND_SIDE:
            raise DataError(
                f"the world's pictures have {LEAST_SIDE} to {BACKGROUND_SIDE} pixels a side, and "
                f"this model takes {self.size[0]}x{self.size[1]}; export it with --frame-size"
            )

    def case(self, kind: Kind, number: int) -> Case:
        """Return a clip; of those with two things heard, the scene has at least two."""
        parts, random = library(held_out=True), self._random(_CLIP, KINDS.index(kind), number)
        fewest = 2 if kind == "both" else 1
        clip = make_clip(
            random, parts, kind, size=self.size, things=(fewest, 4), samples=self.samples
        )
        picture_HW3, masks_NHW = draw(clip.scene, parts)
        return Case(clip=clip, picture_HW3=picture_HW3, masks_NHW=masks_NHW)

    def one_of_each_class(self, head: Head) -> list[tuple[AudioEvent, NDArray[np.float32]]]:
        """Return every class once, heard in a room: what belongs to no picture, and to all."""
        parts, random = library(held_out=True), self._random(_ONE_OF_EACH, len(head), 0)
        calls = [
            place_event(random=random, library=parts, head=head, name=name, samples=self.samples)
            for name in CLASSES
        ]
        return [(event, wave_S + room(random, self.samples)) for event, wave_S in calls]

    def _random(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *key])
