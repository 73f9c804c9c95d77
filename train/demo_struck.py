"""The two things of the demonstration clip that are struck: a drum and a bell.

Each is painted once and then placed on a picture for any time of the clip, moving with the beats
of the script, and says which box of the picture it fills. It knows no sound.
"""

import numpy as np
from numpy.random import Generator

from denseav.train.demo_paint import (
    SHADE_XY,
    Box,
    Canvas,
    Field,
    Points,
    Sprite,
    ellipse,
    paint,
    rounded,
    union,
)
from denseav.train.demo_script import Script, pulse, shaken


class Drum:
    """A red drum with a skin that shakes and two sticks."""

    CENTRE_XY = (140.0, 288.0)

    def __init__(self, script: Script, rng: Generator) -> None:
        self._beats_s = script.beats_s("drum")
        self._body = _drum_body(rng)
        self._skin = _drum_skin(rng)
        self._stick = _drum_stick()

    def draw(self, picture_HW3: Field, time_s: float) -> Box:
        """Paint the drum; the sticks take turns."""
        x, y = self.CENTRE_XY
        shake = shaken(time_s, self._beats_s, 11.0, 0.16)
        squash = (1 + 0.02 * shake, 1 - 0.035 * shake)
        body = paint(picture_HW3, self._body, (x, y + 92), scale_xy=squash)
        skin = paint(picture_HW3, self._skin, (x, y + 3.5 * shake), scale_xy=(1, 1 + 0.16 * shake))
        for side, turn in ((-1, self._beats_s[::2]), (1, self._beats_s[1::2])):
            lift_deg = 20 * (1 - pulse(time_s, turn, 0.12, 0.2))
            grip = (x + side * 78, y - 44)
            paint(picture_HW3, self._stick, grip, turn_deg=side * lift_deg, scale_xy=(-side, 1))
        return union(body, skin)


def _drum_body(rng: Generator) -> Sprite:
    canvas = Canvas(164, 126)
    x, top, bottom, radius_x, radius_y = 82.0, 24.0, 100.0, 70.0, 20.0
    grain_HW = canvas.noise(rng, (7.5, 100))
    light_HW = canvas.column(x - radius_x, x + radius_x) * (1 + 0.05 * grain_HW)
    low = ellipse(x, bottom, radius_x, radius_y, 0, 180)
    canvas.fill(np.vstack([[[x + radius_x, top]], low, [[x - radius_x, top]]]), "#c22f2b", light_HW)
    around = np.deg2rad(np.linspace(180, 0, 17))
    depths = np.where(np.arange(17) % 2, bottom - 6, top + 10) + radius_y * np.sin(around)
    rope = np.column_stack([x + radius_x * np.cos(around), depths])
    canvas.stroke(rope + SHADE_XY, 2.6, "#5e1513")
    canvas.stroke(rope, 2.4, "#f3e7cf", light_HW)
    for y, colour in ((bottom - 4, "#e0a93b"), (top + 4, "#e8b64a")):
        hoop = ellipse(x, y, radius_x + 1.5, radius_y + 0.5, 0, 180)
        canvas.stroke(hoop + SHADE_XY, 9.0, "#6b3a12", light_HW)
        canvas.stroke(hoop, 9.0, colour, light_HW)
    canvas.fill(ellipse(x, top, radius_x + 5, radius_y + 3), "#d69c34", light_HW)
    return canvas.sprite(x, top + 92)


def _drum_skin(rng: Generator) -> Sprite:
    canvas = Canvas(150, 56)
    x, y = 75.0, 28.0
    stain_HW = canvas.noise(rng, (6, 6))
    light_HW = (canvas.ball(x, y, 75) - 0.08) * (1 + 0.025 * stain_HW)
    canvas.fill(ellipse(x, y, 70, 20), "#8d6a3a")
    canvas.fill(ellipse(x, y + 0.8, 68, 18.8), "#f4e6c8", light_HW)
    canvas.stroke(ellipse(x, y + 0.8, 55, 14.5), 1.0, "#cdb489")
    return canvas.sprite(x, y)


def _drum_stick() -> Sprite:
    """Return a stick that points right and down from its grip, its tip 60 px across, 40 px down."""
    canvas = Canvas(84, 56)
    canvas.stroke(np.array([[6.0, 5.0], [64.0, 42.0]]), 5.0, "#7a4a1d")
    canvas.stroke(np.array([[6.0, 4.0], [64.0, 41.0]]), 2.6, "#d9a566")
    canvas.fill(ellipse(66, 43, 7, 6), "#efd3a0", canvas.ball(66, 43, 7))
    return canvas.sprite(6, 5)


class Bell:
    """A brass bell that swings under a wooden frame, and its clapper."""

    PIVOT_XY = (335.0, 152.0)

    def __init__(self, script: Script, rng: Generator) -> None:
        self._beats_s = script.beats_s("bell")
        self._frame = _bell_frame(rng)
        self._bell = _bell_body(rng)
        self._clapper = _bell_clapper()

    def draw(self, picture_HW3: Field, time_s: float) -> Box:
        """Paint the frame, the clapper behind the rim and the bell."""
        swing = shaken(time_s, self._beats_s, 1.25, 0.75)
        paint(picture_HW3, self._frame, (self.PIVOT_XY[0], self.PIVOT_XY[1] - 12))
        clapper = paint(picture_HW3, self._clapper, self.PIVOT_XY, turn_deg=-9 * swing)
        bell = paint(picture_HW3, self._bell, self.PIVOT_XY, turn_deg=13 * swing)
        return union(bell, clapper)


def _bell_frame(rng: Generator) -> Sprite:
    canvas = Canvas(192, 250)
    upright_HW = 1 + 0.16 * canvas.noise(rng, (2.5, 100))
    level_HW = 1 + 0.16 * canvas.noise(rng, (100, 2.5))
    for left in (14.0, 164.0):
        light_HW = canvas.column(left, left + 14) * upright_HW
        foot_HW = canvas.column(left - 9, left + 23) * upright_HW
        canvas.fill(_corners(left - 9, 234, left + 23, 244), "#7a4f28", foot_HW)
        canvas.fill(_corners(left, 14, left + 14, 236), "#8a5a2e", light_HW)
    fall_HW = 1.2 - 0.6 * np.clip((canvas.y_HW - 6) / 18, 0, 1)
    canvas.fill(_corners(2, 6, 190, 24), "#94622f", fall_HW * level_HW)
    canvas.stroke(np.array([[96.0, 22.0], [96.0, 33.0]]), 5.0, "#4c4a48")
    return canvas.sprite(96, 20)


def _bell_body(rng: Generator) -> Sprite:
    canvas = Canvas(132, 130)
    x = 66.0
    right = [
        (0, 8),
        (16, 9),
        (26, 20),
        (30, 44),
        (36, 72),
        (48, 92),
        (58, 104),
        (58, 108),
        (0, 112),
    ]
    outline = np.array([(x + a, b) for a, b in right] + [(x - a, b) for a, b in right[::-1]])
    tarnish_HW = 1 + 0.05 * canvas.noise(rng, (6.5, 6.5))
    wide_HW = 26 + 32 * np.clip((canvas.y_HW - 10) / 100, 0, 1) ** 1.8
    across_HW = (canvas.x_HW - x) / wide_HW
    light_HW = 0.45 + 0.55 * np.clip(1 - across_HW**2, 0, 1) ** 0.5
    light_HW += 0.5 * np.exp(-(((across_HW + 0.42) / 0.16) ** 2))
    light_HW += 0.18 * np.exp(-(((across_HW - 0.62) / 0.12) ** 2))
    canvas.stroke(ellipse(x, 7, 6, 6), 4.0, "#8f6a1e")
    canvas.fill(rounded(*outline), "#d39a2d", light_HW * tarnish_HW)
    for y, half in ((24.0, 25.0), (80.0, 38.0), (86.0, 41.0)):
        ring = ellipse(x, y, half, 4, 20, 160)
        canvas.stroke(ring, 1.6, "#8a5f16", light_HW)
    canvas.stroke(ellipse(x, 102, 55, 7, 8, 172), 5.0, "#e2b04a", light_HW)
    return canvas.sprite(x, 3)


def _bell_clapper() -> Sprite:
    canvas = Canvas(24, 132)
    canvas.stroke(np.array([[12.0, 4.0], [12.0, 112.0]]), 4.0, "#5a4a33")
    canvas.fill(ellipse(12, 116, 9, 9), "#8b7350", canvas.ball(12, 116, 9))
    return canvas.sprite(12, 3)


def _corners(left: float, top: float, right: float, bottom: float) -> Points:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
