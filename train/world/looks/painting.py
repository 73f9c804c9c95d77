"""The world's paint box: outlines become small lit, textured pictures with exact masks.

Colours, textures and light are drawn at random from pools that know nothing of what is painted, so
that only shape tells things apart. Axes: H W pixels, N points, 3 = red green blue, 4 = those and
alpha. Outlines live on a plane of any scale, x to the right, y down; painting fits them to the
picture.
"""

from dataclasses import dataclass
from enum import IntEnum

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

FINE = 2  # canvas pixels per picture pixel
MARGIN = 1.5  # picture pixels left free round a thing
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
LUMAS = np.array([0.58, 0.42, 0.74, 0.12, 0.93, 0.28])
"""How light each tone is, from body to gap; the same for all things."""
LUMA_SPREAD = 0.06
TEXTURE = 0.15
"""How much a pattern may change a surface's lightness, at most."""

Points = NDArray[np.float64]
Field = NDArray[np.float32]
Picture = NDArray[np.uint8]
Pair = tuple[float, float]


class Tone(IntEnum):
    """The paints of one thing: related in lightness, so that parts show, and free in hue."""

    NONE = 0
    BODY = 1
    LIMB = 2
    TRIM = 3
    INK = 4
    SPARK = 5
    GAP = 6


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """An outline [N, 2] to fill (`width` 0) or a line to draw `width` thick."""

    points_N2: Points
    width: float
    tone: Tone


class Pen:
    """What draws one thing: collects its parts, back to front, and varies them at random."""

    def __init__(self, rng: Generator) -> None:
        self.rng = rng
        self.parts: list[Part] = []

    def near(self, value: float, spread: float = 0.12) -> float:
        """Return `value` times a factor between 1 - spread and 1 + spread."""
        return float(value * self.rng.uniform(1 - spread, 1 + spread))

    def chance(self, probability: float) -> bool:
        """Return true that often."""
        return bool(self.rng.random() < probability)

    def count(self, least: int, most: int) -> int:
        """Return a whole number between the two, both included."""
        return int(self.rng.integers(least, most + 1))

    def fill(self, points: Points | list[Pair], tone: Tone) -> None:
        """Add a filled outline."""
        self.parts.append(Part(np.asarray(points, np.float64), 0.0, tone))

    def line(self, points: Points | list[Pair], width: float, tone: Tone) -> None:
        """Add an open line with round ends."""
        self.parts.append(Part(np.asarray(points, np.float64), width, tone))

    def disc(self, x: float, y: float, radius: float, tone: Tone) -> None:
        """Add a filled circle."""
        self.fill(ellipse(x, y, radius, radius), tone)

    def box(self, left: float, top: float, right: float, bottom: float, tone: Tone) -> None:
        """Add a filled rectangle."""
        self.fill([(left, top), (right, top), (right, bottom), (left, bottom)], tone)

    def eye(self, x: float, y: float, radius: float) -> None:
        """Add a light disc with a pupil (or a dark one: the paints decide)."""
        self.disc(x, y, radius, Tone.SPARK)
        self.disc(x, y, 0.5 * radius, Tone.INK)


def ellipse(
    x: float,
    y: float,
    radius_x: float,
    radius_y: float,
    start_deg: float = 0,
    stop_deg: float = 360,
) -> Points:
    """Return points [N, 2] along an ellipse, clockwise from the right as pictures have it."""
    angles_N = np.deg2rad(np.linspace(start_deg, stop_deg, 25))
    return np.column_stack([x + radius_x * np.cos(angles_N), y + radius_y * np.sin(angles_N)])


def rounded(*corners: Pair) -> Points:
    """Return a closed outline with its corners cut round (Chaikin's subdivision, three times)."""
    points_N2 = np.array(corners, dtype=np.float64)
    for _ in range(3):
        ahead_N2 = np.roll(points_N2, -1, axis=0)
        pairs_N22 = np.stack(
            [0.75 * points_N2 + 0.25 * ahead_N2, 0.25 * points_N2 + 0.75 * ahead_N2], 1
        )
        points_N2 = pairs_N22.reshape(-1, 2)
    return points_N2


def turned(points: Points | list[Pair], degrees: float, x: float, y: float) -> Points:
    """Return the points turned clockwise about (x, y)."""
    angle = np.deg2rad(degrees)
    turn_22 = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    moved: Points = (np.asarray(points, np.float64) - (x, y)) @ turn_22 + (x, y)
    return moved


def colour(rng: Generator, luma: float) -> Field:
    """Return a colour [3] in [0, 1] of any hue that is as light as `luma` says."""
    hue = rng.uniform(0, 6)
    pure_3 = np.clip(np.abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    mixed_3: Field = (1 + rng.uniform(0, 1) * (pure_3 - 1)).astype(np.float32)
    light = float(mixed_3 @ LUMA)
    if light > luma:
        return mixed_3 * np.float32(luma / light)
    return mixed_3 + (1 - mixed_3) * np.float32((luma - light) / max(1 - light, 1e-6))


def texture(rng: Generator, height: int, width: int, cell: float) -> Field:
    """Return a surface pattern [H, W] in [-1, 1] of one of five kinds, `cell` pixels large."""
    kind = int(rng.integers(5))
    if kind == 0:
        return np.zeros((height, width), np.float32)
    if kind == 1:
        return clouds(rng, height, width, cell)
    angle = rng.uniform(0, np.pi)
    x_HW, y_HW = turned_grid(height, width, angle, cell)
    if kind == 2:
        return _steep(np.sin(np.pi * x_HW))
    if kind == 3:
        return _steep(np.sin(np.pi * x_HW) * np.sin(np.pi * y_HW))
    return _steep(np.cos(np.pi * x_HW) + np.cos(np.pi * y_HW) - np.float32(0.7))


def turned_grid(height: int, width: int, angle: float, cell: float) -> tuple[Field, Field]:
    """Return x and y [H, W] of turned axes, in cells."""
    across, down = np.cos(angle) / cell, np.sin(angle) / cell
    x_W = np.arange(width, dtype=np.float32)
    y_H1 = np.arange(height, dtype=np.float32)[:, None]
    return (
        x_W * np.float32(across) + y_H1 * np.float32(down),
        y_H1 * np.float32(across) - x_W * np.float32(down),
    )


def clouds(rng: Generator, height: int, width: int, cell: float) -> Field:
    """Return cloudy noise [H, W] clipped to [-1, 1], its lumps `cell` pixels large and less."""
    total_HW = np.zeros((height, width), np.float32)
    for octave in range(3):
        step = max(cell / 2**octave, 1.0)
        rows, columns = max(2, round(height / step)), max(2, round(width / step))
        coarse_HW = rng.standard_normal((rows, columns), np.float32) / np.float32(2 * 1.8**octave)
        total_HW += cv2.resize(coarse_HW, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(total_HW, -1, 1)


def _steep(wave_HW: Field) -> Field:
    return np.clip(3 * wave_HW, -1, 1)


def picture(pen: Pen, side: int, margin: float = MARGIN) -> Picture:
    """Paint what a pen has drawn.

    Parameters
    ----------
    pen : Pen
        At least one part; its generator draws paints, textures, light and a mirror.
    side : int
        Pixels of the square picture; the thing touches its margin on the longer side.
    margin : float
        Pixels left free round the thing.

    Returns
    -------
    ndarray uint8 [side, side, 4]
        Red, green, blue, straight alpha. Holes are closed: they get a paint of their own.
    """
    rng, size = pen.rng, side * FINE
    tone_HW, edge_HW = _traced(pen.parts, _placed(pen, size, FINE * margin), size, rng)
    solid_HW = _closed(tone_HW)
    tone_HW[(solid_HW > 0) & (tone_HW == 0)] = Tone.GAP
    paints_73 = _paints(rng)
    strength_7 = (rng.uniform(0, TEXTURE, 7) * (rng.random(7) < 0.7)).astype(np.float32)
    pattern_HW = texture(rng, size, size, rng.uniform(0.04, 0.16) * size)
    lit_HW = 1 + pattern_HW * strength_7[tone_HW]
    lit_HW *= 1 - edge_HW.astype(np.float32) * np.float32(rng.uniform(0.2, 0.8) / 255)
    colour_HW3 = paints_73[tone_HW] * lit_HW[..., None]
    alpha_HW = solid_HW.astype(np.float32) / 255
    fine_HW4 = np.dstack([colour_HW3 * alpha_HW[..., None], alpha_HW])
    small_HW4 = np.asarray(
        cv2.resize(fine_HW4, (side, side), None, 0, 0, cv2.INTER_AREA), np.float32
    )
    cover_HW = small_HW4[..., 3]
    small_HW4[..., :3] *= (_light(cover_HW, rng) / np.maximum(cover_HW, 1e-3))[..., None]
    return np.round(np.clip(small_HW4, 0, 1) * 255).astype(np.uint8)


def _placed(pen: Pen, size: int, free: float) -> tuple[Points, float, Points]:
    """Return what takes outlines to the canvas: points @ matrix [2, 2] * scale + shift [2]."""
    rng = pen.rng
    stretch = rng.uniform(0.88, 1.12)
    mirror = rng.choice([-1.0, 1.0])
    matrix_22 = np.array([[mirror * stretch, 0], [rng.uniform(-0.08, 0.08), 1 / stretch]])
    low_2, high_2 = np.full(2, np.inf), np.full(2, -np.inf)
    for part in pen.parts:
        points_N2 = part.points_N2 @ matrix_22
        low_2 = np.minimum(low_2, points_N2.min(axis=0) - part.width / 2)
        high_2 = np.maximum(high_2, points_N2.max(axis=0) + part.width / 2)
    scale = float((size - 2 * free) / (high_2 - low_2).max())
    return matrix_22, scale, size / 2 - scale * (low_2 + high_2) / 2


def _traced(
    parts: list[Part], place: tuple[Points, float, Points], size: int, rng: Generator
) -> tuple[Picture, Picture]:
    """Return maps [H, W] of tones and of the edges (255) between parts."""
    matrix_22, scale, shift_2 = place
    tone_HW, edge_HW = np.zeros((size, size), np.uint8), np.zeros((size, size), np.uint8)
    edge = max(1, round(size * rng.uniform(0.008, 0.022)))
    for part in parts:
        points_N2 = part.points_N2 @ matrix_22 * scale + shift_2
        fixed = [np.round((points_N2 - 0.5) * 16).astype(np.int32)]
        if part.width:
            thick = max(1, round(part.width * scale))
            cv2.polylines(edge_HW, fixed, False, 255, thick + edge, cv2.LINE_8, 4)
            cv2.polylines(edge_HW, fixed, False, 0, thick, cv2.LINE_8, 4)
            cv2.polylines(tone_HW, fixed, False, int(part.tone), thick, cv2.LINE_8, 4)
        else:
            cv2.fillPoly(edge_HW, fixed, 0, cv2.LINE_8, 4)
            cv2.polylines(edge_HW, fixed, True, 255, edge, cv2.LINE_8, 4)
            cv2.fillPoly(tone_HW, fixed, int(part.tone), cv2.LINE_8, 4)
    return tone_HW, edge_HW


def _closed(tone_HW: Picture) -> Picture:
    """Return the mask [H, W] (255 inside) of everything painted, its holes closed."""
    contours, _ = cv2.findContours(tone_HW, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    solid_HW = np.zeros_like(tone_HW)
    cv2.drawContours(solid_HW, contours, -1, 255, cv2.FILLED)
    return solid_HW


def _paints(rng: Generator) -> Field:
    """Return a colour for each tone, [7, 3]: of any hue, as light as the tone has to be."""
    lumas = LUMAS + rng.uniform(-LUMA_SPREAD, LUMA_SPREAD, len(LUMAS))
    return np.stack([np.zeros(3, np.float32), *(colour(rng, luma) for luma in lumas)])


def _light(cover_HW: Field, rng: Generator) -> Field:
    """Return how brightly each place of a rounded thing is lit, [H, W] near 1."""
    side = len(cover_HW)
    sigma = side * rng.uniform(0.02, 0.07)
    soft_HW = cv2.GaussianBlur(cover_HW, (0, 0), sigma)
    towards = rng.uniform(0, 2 * np.pi)
    slope_HW = np.cos(towards) * cv2.Sobel(soft_HW, cv2.CV_32F, 1, 0, scale=0.125)
    slope_HW += np.sin(towards) * cv2.Sobel(soft_HW, cv2.CV_32F, 0, 1, scale=0.125)
    ramp_HW, _ = turned_grid(side, side, towards, side / 2)
    ramp_HW -= ramp_HW.mean()
    bulge = np.float32(rng.uniform(0, 1.0) * sigma)
    lit: Field = np.clip(
        1 + bulge * slope_HW - np.float32(rng.uniform(0, 0.25)) * ramp_HW, 0.3, 1.6
    )
    return lit.astype(np.float32)
