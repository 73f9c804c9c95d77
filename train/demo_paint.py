"""A small paint box: shapes become lit, textured sprites, and sprites land on a picture.

Points and colours enter; `Sprite`s leave, drawn four times too large and scaled down for smooth
edges. It knows none of the objects. Axes: H W pixels, N points, 4 = blue, green, red, alpha (colour
already multiplied by alpha). Lengths are in picture pixels, colours and alphas in [0, 1].
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

FINE = 4  # canvas pixels per picture pixel
KEPT = 2  # sprite pixels per picture pixel
SHADE_XY = np.array([0.8, 1.6])  # where a raised thing's shade falls

Field = NDArray[np.floating[Any]]
Points = NDArray[np.float64]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in picture pixels; right and bottom are just outside."""


@dataclass(frozen=True, slots=True, eq=False)
class Sprite:
    """A painted thing, float32 [H, W, 4] at two pixels per picture pixel, and what it turns on."""

    image_HW4: Field
    pivot_xy: tuple[float, float]


class Canvas:
    """Something to paint one sprite on.

    `x_HW` and `y_HW` give each canvas pixel's place, for fields of light and texture.
    """

    def __init__(self, width: int, height: int) -> None:
        self.image_HW4: Field = np.zeros((height * FINE, width * FINE, 4), np.float32)
        y_HW, x_HW = np.mgrid[0 : height * FINE, 0 : width * FINE].astype(np.float32) / FINE
        self.x_HW: Field = x_HW
        self.y_HW: Field = y_HW

    def blend(self, alpha_HW: Field, colour: str, light: Field | float = 1.0) -> None:
        """Lay a colour ("#rrggbb") times a field of light on, as thick as `alpha_HW` says."""
        self._blend((slice(None), slice(None)), alpha_HW, colour, light)

    def fill(self, points_N2: Points, colour: str, light: Field | float = 1.0) -> None:
        """Fill a polygon."""
        mask_HW = np.zeros(self.x_HW.shape, np.uint8)
        cv2.fillPoly(mask_HW, [_fixed(points_N2)], 255, cv2.LINE_AA, shift=4)
        self._blend_mask(mask_HW, colour, light)

    def stroke(
        self, points_N2: Points, width: float, colour: str, light: Field | float = 1.0
    ) -> None:
        """Draw an open line `width` picture pixels wide."""
        mask_HW = np.zeros(self.x_HW.shape, np.uint8)
        thick = max(1, round(width * FINE))
        cv2.polylines(mask_HW, [_fixed(points_N2)], False, 255, thick, cv2.LINE_AA, shift=4)
        self._blend_mask(mask_HW, colour, light)

    def _blend_mask(self, mask_HW: NDArray[np.uint8], colour: str, light: Field | float) -> None:
        x, y, width, height = cv2.boundingRect(mask_HW)
        area = slice(y, y + height), slice(x, x + width)
        self._blend(area, mask_HW[area].astype(np.float32) / 255, colour, light)

    def _blend(
        self, area: tuple[slice, slice], alpha_HW: Field, colour: str, light: Field | float
    ) -> None:
        lit_HW = np.asarray(light, np.float32)
        lit_HW1 = lit_HW[area][..., None] if lit_HW.ndim else lit_HW
        under_HW4 = self.image_HW4[area]
        under_HW4 *= 1 - alpha_HW[..., None]
        under_HW4[..., :3] += alpha_HW[..., None] * np.clip(lit_HW1 * blue_green_red(colour), 0, 1)
        under_HW4[..., 3] += alpha_HW

    def column(self, left: float, right: float) -> Field:
        """Return the light on an upright cylinder between two x, lit from the left."""
        across_HW = (self.x_HW - left) / (right - left)
        shine_HW = np.exp(-(((across_HW - 0.3) / 0.13) ** 2))
        round_HW = np.clip(1 - (2 * across_HW - 1) ** 2, 0, 1)
        lit: Field = 0.5 + 0.5 * round_HW**0.6 + 0.35 * shine_HW
        return lit

    def ball(self, x: float, y: float, radius: float) -> Field:
        """Return the light on a ball, lit from the upper left."""
        away_HW = np.hypot(self.x_HW - x + 0.35 * radius, self.y_HW - y + 0.4 * radius) / radius
        lit: Field = 1.2 - 0.5 * np.clip(away_HW / 1.5, 0, 1) ** 1.5
        lit += 0.25 * np.exp(-((away_HW / 0.35) ** 2))
        return lit

    def noise(self, rng: Generator, cell_xy: tuple[float, float]) -> Field:
        """Return cloudy noise of mean 0 and deviation 1, its lumps at most `cell_xy` large."""
        height, width = self.x_HW.shape
        total_HW = np.zeros((height, width), np.float32)
        for octave in range(5):
            fine = 2**octave / FINE
            columns = min(max(2, round(width / cell_xy[0] * fine)), width)
            rows = min(max(2, round(height / cell_xy[1] * fine)), height)
            coarse_HW = rng.standard_normal((rows, columns)).astype(np.float32)
            lumps_HW = cv2.resize(coarse_HW, (width, height), interpolation=cv2.INTER_CUBIC)
            total_HW += lumps_HW.astype(np.float32) / np.float32(1.9**octave)
        total_HW -= total_HW.mean()
        total_HW /= total_HW.std()
        return total_HW

    def sprite(self, pivot_x: float, pivot_y: float) -> Sprite:
        """Scale what is painted down, and hang it on its pivot."""
        size_wh = (self.x_HW.shape[1] * KEPT // FINE, self.x_HW.shape[0] * KEPT // FINE)
        small = cv2.resize(self.image_HW4, size_wh, interpolation=cv2.INTER_AREA)
        return Sprite(small.astype(np.float32), (pivot_x * KEPT, pivot_y * KEPT))


def paint(
    picture_HW3: Field,
    sprite: Sprite,
    xy: tuple[float, float],
    *,
    turn_deg: float = 0.0,
    scale_xy: tuple[float, float] = (1.0, 1.0),
    opacity: float = 1.0,
) -> Box:
    """Put a sprite's pivot at `xy` of the picture (float32 [H, W, 3] in [0, 1], changed).

    The sprite is scaled, then turned clockwise. Returns the box of what is more than half opaque
    before `opacity`; (0, 0, 0, 0) if none of it is in the picture.
    """
    matrix_23 = _placement(sprite, xy, turn_deg, scale_xy)
    left, top, right, bottom = _reach(sprite, matrix_23, picture_HW3.shape)
    if left >= right or top >= bottom:
        return 0, 0, 0, 0
    matrix_23[:, 2] -= (left, top)
    size_wh = (right - left, bottom - top)
    patch_HW4 = cv2.warpAffine(sprite.image_HW4, matrix_23, size_wh, flags=cv2.INTER_LINEAR)
    under_HW3 = picture_HW3[top:bottom, left:right]
    under_HW3 *= 1 - opacity * patch_HW4[..., 3:]
    under_HW3 += opacity * patch_HW4[..., :3]
    return _solid_box(patch_HW4[..., 3] > 0.5, left, top)


def _placement(
    sprite: Sprite, xy: tuple[float, float], turn_deg: float, scale_xy: tuple[float, float]
) -> Points:
    """Return the affine matrix [2, 3] from sprite pixels to picture pixels."""
    angle = np.deg2rad(turn_deg)
    turn_22 = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear_22 = turn_22 @ np.diag(scale_xy) / KEPT
    # OpenCV counts from the middle of the first pixel, this file from the picture's corner.
    shift_2 = np.array(xy) - 0.5 - linear_22 @ (np.array(sprite.pivot_xy) - 0.5)
    return np.column_stack([linear_22, shift_2])


def _reach(sprite: Sprite, matrix_23: Points, shape: tuple[int, ...]) -> Box:
    """Return the part of the picture that a placed sprite can touch."""
    height, width = sprite.image_HW4.shape[:2]
    corners_34 = np.array([[0, width, width, 0], [0, 0, height, height], [1, 1, 1, 1]])
    x_4, y_4 = matrix_23 @ corners_34
    left, top = max(0, int(x_4.min()) - 1), max(0, int(y_4.min()) - 1)
    return left, top, min(shape[1], int(x_4.max()) + 2), min(shape[0], int(y_4.max()) + 2)


def _solid_box(solid_HW: NDArray[np.bool_], left: int, top: int) -> Box:
    columns = np.flatnonzero(solid_HW.any(axis=0))
    rows = np.flatnonzero(solid_HW.any(axis=1))
    if not len(columns):
        return 0, 0, 0, 0
    right, bottom = left + int(columns[-1]) + 1, top + int(rows[-1]) + 1
    return left + int(columns[0]), top + int(rows[0]), right, bottom


def union(first: Box, *others: Box) -> Box:
    """Return the smallest box round all of them."""
    lefts, tops, rights, bottoms = zip(first, *others, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def ellipse(
    x: float,
    y: float,
    radius_x: float,
    radius_y: float,
    start_deg: float = 0,
    stop_deg: float = 360,
) -> Points:
    """Return points along an ellipse, clockwise from the right as pictures have it."""
    angles_N = np.deg2rad(np.linspace(start_deg, stop_deg, 73))
    return np.column_stack([x + radius_x * np.cos(angles_N), y + radius_y * np.sin(angles_N)])


def rounded(*corners: tuple[float, float]) -> Points:
    """Return a closed outline with its corners cut round (Chaikin's subdivision, four times)."""
    points_N2 = np.array(corners, dtype=np.float64)
    for _ in range(4):
        ahead_N2 = np.roll(points_N2, -1, axis=0)
        pairs_N22 = np.stack(
            [0.75 * points_N2 + 0.25 * ahead_N2, 0.25 * points_N2 + 0.75 * ahead_N2], 1
        )
        points_N2 = pairs_N22.reshape(-1, 2)
    return points_N2


def blue_green_red(colour: str) -> Field:
    """Return "#rrggbb" as three numbers in [0, 1], in OpenCV's order."""
    levels_3: Field = np.array([int(colour[i : i + 2], 16) for i in (5, 3, 1)], np.float32)
    return levels_3 / np.float32(255)


def _fixed(points_N2: Points) -> NDArray[np.int32]:
    """Return canvas coordinates with four fractional bits, as OpenCV's drawing takes them."""
    return np.round((points_N2 * FINE - 0.5) * 16).astype(np.int32)
