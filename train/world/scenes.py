"""Scenes of the world: up to four things on a background, and exactly where each is seen.

A random generator enters, a `Scene` leaves, and from it a picture and masks of any moment. It
knows no sound. Lengths are in picture pixels of a scene as the network sees it; a scene can be
drawn larger.

Axes: H W pixels, N things.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from denseav.train.world.classes import CLASSES
from denseav.train.world.library import (
    BACKGROUND_SIDE,
    BACKGROUNDS,
    FINER,
    LOOKS,
    PLAIN,
    Library,
)

AREA_PIXELS = (21.0**2, 37.0**2)
"""How much of the picture a thing fills, whatever its shape: size does not tell the class."""
MAX_TURN_DEG = 25.0
SEEN_SHARE = 0.6
"""A thing is in a scene only if so much of it is seen, what covers it and the edge taken off."""

_TRIES = 30

Picture = NDArray[np.uint8]
Masks = NDArray[np.bool_]
Layer = tuple[tuple[slice, slice], Picture]
"""A part of the picture, and uint8 [h, w, 4] for it: red, green and blue times alpha, alpha."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One thing of a scene: what it is, and where its middle is from `appears_s` on.

    It wanders `sway_x` and `sway_y` pixels to each side of there, once in `period_s`.
    """

    name: str
    look: int
    x: float
    y: float
    side: float
    turn_deg: float
    hue: int
    light: float
    sway_x: float = 0.0
    sway_y: float = 0.0
    period_s: float = 4.0
    appears_s: float = 0.0
    vanishes_s: float = math.inf

    def place(self, time_s: float) -> tuple[float, float]:
        """Return where its middle is."""
        angle = 2 * math.pi * time_s / self.period_s
        return self.x + self.sway_x * math.sin(angle), self.y + self.sway_y * math.sin(2 * angle)

    def seen(self, time_s: float) -> bool:
        """Tell whether it is there."""
        return self.appears_s <= time_s < self.vanishes_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Things from back to front on a part of a background."""

    height: int
    width: int
    background: int
    corner: tuple[int, int]
    flipped: bool
    hue: int
    light: float
    things: tuple[Thing, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Return what is in it."""
        return tuple(thing.name for thing in self.things)


def compose(
    random: Generator,
    library: Library,
    height: int,
    width: int,
    names: tuple[str, ...],
    *,
    plain: bool = False,
) -> Scene:
    """Return a scene of the named things, in which enough of each is seen.

    Parameters
    ----------
    random : decides everything else.
    library : what the things look like.
    height, width : of the picture, in pixels; at most `BACKGROUND_SIDE`.
    names : different classes; their order has no meaning.
    plain : on a background with nothing on it.
    """
    ground = Scene(
        height=height,
        width=width,
        background=PLAIN if plain else int(random.integers(BACKGROUNDS)),
        corner=(
            int(random.integers(BACKGROUND_SIDE - height + 1)),
            int(random.integers(BACKGROUND_SIDE - width + 1)),
        ),
        flipped=bool(random.random() < 0.5),
        hue=int(random.integers(180)),
        light=float(random.uniform(0.6, 1.25)),
        things=(),
    )
    best, most = ground, -1.0
    for _ in range(_TRIES):
        things = tuple(
            _thing(random=random, library=library, name=name, height=height, width=width)
            for name in names
        )
        scene = _with(ground, things)
        share = seen_shares(scene, library).min(initial=1.0)
        if share > most:
            best, most = scene, float(share)
        if share >= SEEN_SHARE:
            break
    return best


def choose_names(random: Generator, count: int, wanted: str | None = None) -> tuple[str, ...]:
    """Return different classes in random order, every one as likely as another."""
    others = [name for name in CLASSES if name != wanted]
    chosen = list(random.choice(others, count - (wanted is not None), replace=False))
    names = [str(name) for name in chosen] + ([wanted] if wanted else [])
    random.shuffle(names)
    return tuple(names)


def draw(
    scene: Scene, library: Library, time_s: float = 0.0, scale: float = 1.0
) -> tuple[Picture, Masks]:
    """Draw a moment of a scene.

    Parameters
    ----------
    scene, library : what is drawn.
    time_s : when.
    scale : how much larger than the scene's own size.

    Returns
    -------
    tuple
        uint8 RGB [H, W, 3], and bool [N, H, W]: where each thing is seen, nothing in front.
    """
    picture_HW3 = _ground(scene, library, scale).astype(np.float32)
    layers = _layers(scene, library, time_s, scale)
    for thing, (area, patch_hw4) in zip(scene.things, layers, strict=True):
        colour_hw3 = _recoloured(patch_hw4[..., :3], thing.hue, thing.light)
        under_hw3 = picture_HW3[area]
        under_hw3 *= 1 - patch_hw4[..., 3:] / np.float32(255)
        under_hw3 += colour_hw3
    picture_HW3 = picture_HW3.clip(0, 255).round()
    return picture_HW3.astype(np.uint8), _masks(layers, *picture_HW3.shape[:2])


def seen_shares(scene: Scene, library: Library, time_s: float = 0.0) -> NDArray[np.float64]:
    """Return how much of each thing [N] is seen, of all there is of it."""
    masks_NHW = _masks(_layers(scene, library, time_s, 1.0), scene.height, scene.width)
    looks = [library.look(thing.name, thing.look)[..., 3] > 127 for thing in scene.things]
    whole_N = [
        max(look.mean() * thing.side**2, 1) for thing, look in zip(scene.things, looks, strict=True)
    ]
    shares_N: NDArray[np.float64] = np.minimum(masks_NHW.sum((1, 2)) / np.array(whole_N), 1.0)
    return shares_N


def _layers(scene: Scene, library: Library, time_s: float, scale: float) -> list[Layer]:
    size = round(scene.height * scale), round(scene.width * scale)
    return [_placed(thing, library, time_s, scale, *size) for thing in scene.things]


def _masks(layers: list[Layer], height: int, width: int) -> Masks:
    masks_NHW = np.zeros((len(layers), height, width), bool)
    for index, (area, patch_hw4) in enumerate(layers):
        solid_hw = patch_hw4[..., 3] > 127
        masks_NHW[:index, area[0], area[1]] &= ~solid_hw
        masks_NHW[index, area[0], area[1]] = solid_hw
    return masks_NHW


def _thing(random: Generator, library: Library, name: str, height: int, width: int) -> Thing:
    look = int(random.integers(LOOKS))
    share = (library.look(name, look)[..., 3] > 127).mean()
    side = math.sqrt(random.uniform(*AREA_PIXELS) / share)
    return Thing(
        name=name,
        look=look,
        x=float(random.uniform(0.35 * side, width - 0.35 * side)),
        y=float(random.uniform(0.35 * side, height - 0.35 * side)),
        side=side,
        turn_deg=float(random.uniform(-MAX_TURN_DEG, MAX_TURN_DEG)),
        hue=int(random.integers(180)),
        light=float(random.uniform(0.7, 1.25)),
    )


def _with(scene: Scene, things: tuple[Thing, ...]) -> Scene:
    values = {name: getattr(scene, name) for name in Scene.__slots__ if name != "things"}
    return Scene(things=things, **values)


def _ground(scene: Scene, library: Library, scale: float) -> Picture:
    finer = FINER if scale > 1 else 1
    whole_HW3 = (library.fine_background if finer > 1 else library.background)(scene.background)
    top, left = (finer * at for at in scene.corner)
    part_HW3 = whole_HW3[top : top + finer * scene.height, left : left + finer * scene.width]
    if scene.flipped:
        part_HW3 = part_HW3[:, ::-1]
    picture_HW3 = _recoloured(np.ascontiguousarray(part_HW3), scene.hue, scene.light)
    if scale == 1:
        return picture_HW3
    size = (round(scene.width * scale), round(scene.height * scale))
    return np.asarray(cv2.resize(picture_HW3, size, interpolation=cv2.INTER_AREA), np.uint8)


def _placed(
    thing: Thing, library: Library, time_s: float, scale: float, height: int, width: int
) -> Layer:
    """Return the thing as it lands on the picture; nothing where it is not there."""
    sprite_HW4 = (library.fine_look if scale > 1 else library.look)(thing.name, thing.look)
    x, y = thing.place(time_s)
    reach = thing.side * scale * 0.75 + 1
    left, top = max(0, int(x * scale - reach)), max(0, int(y * scale - reach))
    right = max(left, min(width, int(x * scale + reach) + 2))
    bottom = max(top, min(height, int(y * scale + reach) + 2))
    area = (slice(top, bottom), slice(left, right))
    if left >= right or top >= bottom or not thing.seen(time_s):
        return area, np.zeros((max(bottom - top, 0), max(right - left, 0), 4), np.uint8)
    small = max(2, round(thing.side * scale))
    layer_ss4 = cv2.resize(sprite_HW4, (small, small), interpolation=cv2.INTER_AREA)
    # OpenCV counts from the middle of the first pixel, a scene from the picture's corner.
    middle = (small - 1) / 2
    matrix_23 = np.array(cv2.getRotationMatrix2D((middle, middle), thing.turn_deg, 1.0), np.float64)
    corner = np.array((left, top)) + 0.5 + middle
    matrix_23[:, 2] += np.array((x, y)) * scale - corner
    patch_hw4 = cv2.warpAffine(layer_ss4, matrix_23, (right - left, bottom - top))
    return area, np.asarray(patch_hw4, np.uint8)


def _recoloured(rgb_HW3: Picture, hue: int, light: float) -> Picture:
    """Turn all hues by `hue` of 180 and make it lighter or darker."""
    if not rgb_HW3.size:
        return rgb_HW3
    hsv_HW3 = cv2.cvtColor(np.ascontiguousarray(rgb_HW3), cv2.COLOR_RGB2HSV)
    levels = np.arange(256)
    turned = ((levels + hue) % 180).astype(np.uint8)
    lit = np.clip(levels * light, 0, 255).astype(np.uint8)
    hsv_HW3 = cv2.LUT(hsv_HW3, np.stack((turned, levels.astype(np.uint8), lit), 1)[None])
    return np.asarray(cv2.cvtColor(hsv_HW3, cv2.COLOR_HSV2RGB), np.uint8)
