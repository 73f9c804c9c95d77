"""The world's backgrounds: surfaces of many kinds, strewn with things that mean nothing.

The clutter is painted by the same paint box as the objects, patterns and light included, so that
neither texture nor an outline alone tells an object. Axes: H W pixels, 3 = red green blue.
"""

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from denseav.train.world.looks.painting import (
    Field,
    Pen,
    Picture,
    Tone,
    clouds,
    colour,
    ellipse,
    picture,
    rounded,
    texture,
    turned,
    turned_grid,
)


def background(rng: Generator, height: int, width: int, *, held_out: bool) -> Picture:
    """Paint a background.

    Parameters
    ----------
    rng : Generator
        Draws the kind, its paints and the clutter.
    height, width : int
        Pixels, at least 16.
    held_out : bool
        Of the kinds kept for tests, which are never seen otherwise. The clutter is the same.

    Returns
    -------
    ndarray uint8 [H, W, 3]
    """
    kinds = _HELD_OUT if held_out else _SEEN
    blend_HW = kinds[int(rng.integers(len(kinds)))](rng, height, width)
    middle = rng.uniform(0.2, 0.8)
    apart = rng.uniform(0.08, 0.45) * rng.choice([-1, 1])
    first_3, second_3 = (
        colour(rng, float(np.clip(middle + apart * by, 0.03, 0.97))) for by in (-0.5, 0.5)
    )
    surface_HW3 = first_3 + blend_HW[..., None] * (second_3 - first_3)
    ramp_HW, _ = turned_grid(height, width, rng.uniform(0, 2 * np.pi), max(height, width))
    surface_HW3 *= 1 + np.float32(rng.uniform(0, 0.4)) * (ramp_HW - ramp_HW.mean())[..., None]
    image_HW3 = np.round(np.clip(surface_HW3, 0, 1) * 255).astype(np.uint8)
    for _ in range(int(rng.integers(0, 7))):
        _strew(image_HW3, rng)
    return image_HW3


def _gradient(rng: Generator, height: int, width: int) -> Field:
    ramp_HW, _ = turned_grid(height, width, rng.uniform(0, 2 * np.pi), 1.0)
    grain_HW = rng.standard_normal((height, width), np.float32) * np.float32(rng.uniform(0, 0.1))
    grain_HW += (ramp_HW - ramp_HW.min()) / np.ptp(ramp_HW)
    return grain_HW


def _cloudy(rng: Generator, height: int, width: int) -> Field:
    return 0.5 + 0.5 * clouds(rng, height, width, rng.uniform(0.05, 0.5) * height)


def _stripes(rng: Generator, height: int, width: int) -> Field:
    x_HW, _ = turned_grid(height, width, rng.uniform(0, np.pi), rng.uniform(0.03, 0.2) * height)
    x_HW += clouds(rng, height, width, 0.4 * height) * np.float32(rng.uniform(0, 1))
    return _sharp(np.sin(np.pi * x_HW), rng)


def _tiles(rng: Generator, height: int, width: int) -> Field:
    cell = rng.uniform(0.06, 0.25) * height
    x_HW, y_HW = turned_grid(height, width, rng.uniform(-0.5, 0.5), cell)
    shades_RC = rng.random((64, 64), np.float32)
    shade_HW = shades_RC[np.floor(y_HW).astype(int) % 64, np.floor(x_HW).astype(int) % 64]
    joint_HW = (x_HW % 1 < 0.08) | (y_HW % 1 < 0.08)
    return np.where(joint_HW, np.float32(rng.choice([-0.4, 1.4])), shade_HW)


def _planks(rng: Generator, height: int, width: int) -> Field:
    x_HW, y_HW = turned_grid(height, width, rng.uniform(0, np.pi), rng.uniform(0.1, 0.3) * height)
    shade_HW = rng.random(64, np.float32)[np.floor(x_HW).astype(int) % 64]
    grain = rng.uniform(5, 12)
    wave_HW = np.sin(grain * x_HW + clouds(rng, height, width, 0.3 * height) * 3 + 0.3 * y_HW)
    return np.where(x_HW % 1 < 0.06, np.float32(-0.4), 0.7 * shade_HW + 0.3 * wave_HW)


def _blobs(rng: Generator, height: int, width: int) -> Field:
    lumps_HW = clouds(rng, height, width, rng.uniform(0.1, 0.4) * height)
    bands = np.float32(rng.uniform(1.5, 4))
    return (np.round((0.5 + 0.5 * lumps_HW) * bands) / bands).astype(np.float32)


def _speckles(rng: Generator, height: int, width: int) -> Field:
    return 0.5 + 0.5 * texture(rng, height, width, rng.uniform(0.03, 0.12) * height)


def _gratings(rng: Generator, height: int, width: int) -> Field:
    first_HW, second_HW = (
        turned_grid(height, width, rng.uniform(0, np.pi), rng.uniform(0.03, 0.15) * height)[0]
        for _ in range(2)
    )
    plaid_HW: Field = 0.5 + 0.25 * (np.sin(np.pi * first_HW) + np.sin(np.pi * second_HW))
    return plaid_HW


def _rings(rng: Generator, height: int, width: int) -> Field:
    x_HW, y_HW = turned_grid(height, width, 0, 1.0)
    away_HW = np.hypot(x_HW - rng.uniform(0, width), y_HW - rng.uniform(0, height))
    wave_HW = np.sin(away_HW * np.float32(np.pi / (rng.uniform(0.04, 0.2) * height)))
    return _sharp(wave_HW, rng)


def _shards(rng: Generator, height: int, width: int) -> Field:
    """Return the cells nearest to random points, each of its own shade."""
    points_N2 = rng.uniform(0, 1, (int(rng.integers(8, 30)), 2)) * (height, width)
    seeds_HW = np.full((height, width), 255, np.uint8)
    seeds_HW[tuple(points_N2.astype(int).T)] = 0
    _, cell_HW = cv2.distanceTransformWithLabels(seeds_HW, cv2.DIST_L2, 5)
    shade_HW: Field = rng.random(int(cell_HW.max()) + 1, np.float32)[cell_HW]
    return shade_HW


def _unfocused(rng: Generator, height: int, width: int) -> Field:
    """Return discs of light out of focus."""
    field_HW = np.full((height, width), 0.2, np.float32)
    for _ in range(int(rng.integers(15, 40))):
        middle = int(rng.integers(width)), int(rng.integers(height))
        radius = int(rng.uniform(0.03, 0.16) * height)
        cv2.circle(field_HW, middle, radius, float(rng.uniform(0, 1)), cv2.FILLED)
    return cv2.GaussianBlur(field_HW, (0, 0), rng.uniform(0.01, 0.03) * height).astype(np.float32)


def _sharp(wave_HW: Field, rng: Generator) -> Field:
    """Return a wave brought to [0, 1], its flanks soft or steep."""
    sharp_HW: Field = np.clip(0.5 + np.float32(rng.uniform(0.5, 4)) * wave_HW, 0, 1)
    return sharp_HW


_SEEN = (_gradient, _cloudy, _stripes, _tiles, _planks, _blobs, _speckles)
_HELD_OUT = (_gratings, _rings, _shards, _unfocused)


def _strew(image_HW3: Picture, rng: Generator) -> None:
    """Lay a meaningless thing somewhere on the picture, which is changed."""
    height, width = image_HW3.shape[:2]
    side = int(min(height, width) * rng.uniform(0.05, 0.36))
    thing_HW4 = _nonsense(rng, max(side, 6))
    side = len(thing_HW4)
    left, top = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
    under_HW3 = image_HW3[top : top + side, left : left + side]
    alpha_HW1 = thing_HW4[..., 3:].astype(np.float32) / 255
    under_HW3[:] = under_HW3 + alpha_HW1 * (thing_HW4[..., :3].astype(np.float32) - under_HW3)


def _nonsense(rng: Generator, side: int) -> Picture:
    """Paint a thing of random outlines, uint8 [side, side, 4], often the same on both sides."""
    pen, paired = Pen(rng), rng.random() < 0.4
    for size in (1.0, *rng.uniform(0.1, 0.5, int(rng.integers(0, 7)))):
        x, y = rng.uniform(-0.8, 0.8, 2) * (size < 1)
        points_N2 = _outline(rng, x, y, size)
        tone = Tone(int(rng.integers(Tone.BODY, Tone.GAP)))
        thin = size < 1 and pen.chance(0.4)
        for side_2 in ((1, 1), (-1, 1))[: 1 + paired]:
            if thin:
                pen.line(points_N2[: len(points_N2) // 2 + 1] * side_2, pen.near(0.12, 0.4), tone)
            else:
                pen.fill(points_N2 * side_2, tone)
    return picture(pen, side)


def _outline(rng: Generator, x: float, y: float, size: float) -> NDArray[np.float64]:
    corners = int(rng.integers(3, 10))
    flat = rng.uniform(0.3, 1)
    if rng.random() < 0.25:
        return turned(ellipse(x, y, size, size * flat), rng.uniform(0, 180), x, y)
    angles_N = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radii_N = size * rng.uniform(0.35, 1, corners)
    ring = [
        (x + float(r * np.cos(a)), y + float(flat * r * np.sin(a)))
        for r, a in zip(radii_N, angles_N, strict=True)
    ]
    points_N2 = rounded(*ring) if rng.random() < 0.5 else np.array(ring)
    return turned(points_N2, rng.uniform(0, 180), x, y)
