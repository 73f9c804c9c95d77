"""The two things of the demonstration clip that move by themselves: a bird and a toy car.

Each is painted once and then placed on a picture for any time of the clip, as the script has it,
and says which box of the picture it fills. It knows no sound.
"""

import math

import numpy as np
from numpy.random import Generator

from denseav.train.demo_paint import (
    Box,
    Canvas,
    Field,
    Sprite,
    ellipse,
    paint,
    rounded,
    union,
)
from denseav.train.demo_script import Script, pulse


class Bird:
    """A blue bird on a branch: its beak opens, its wing lifts and it bobs at each note."""

    FEET_XY = (546.0, 174.0)

    def __init__(self, script: Script, rng: Generator) -> None:
        self._beats_s = script.beats_s("bird")
        self._body = _bird_body(rng)
        self._wing = _bird_wing(rng)
        self._beak = _bird_beak()
        self._lid = _bird_lid()

    def draw(self, picture_HW3: Field, time_s: float) -> Box:
        """Paint the bird and return its box; at rest it breathes and blinks."""
        note = pulse(time_s, tuple(beat + 0.08 for beat in self._beats_s), 0.07, 0.13)
        breath = 1 + 0.008 * math.sin(2 * math.pi * time_s / 2.5)
        x, y = self.FEET_XY
        tall = breath + 0.05 * note
        paint(picture_HW3, self._beak, (x - 47, y - 66 * tall), turn_deg=-32 * note)
        body = paint(picture_HW3, self._body, (x, y), scale_xy=(breath, tall))
        wing = paint(picture_HW3, self._wing, (x - 6, y - 50 * tall), turn_deg=-16 * note)
        if time_s % 3.7 > 3.58:
            paint(picture_HW3, self._lid, (x - 31, y - 71 * tall))
        return union(body, wing)


def _bird_body(rng: Generator) -> Sprite:
    """Return the bird but for its wing and lower beak, looking left, its feet on the pivot."""
    canvas = Canvas(156, 112)
    x, y = 66.0, 104.0
    down_HW = 1 + 0.07 * canvas.noise(rng, (2.25, 1.25))
    tail = rounded(
        (x + 22, y - 40), (x + 84, y - 16), (x + 80, y - 4), (x + 64, y - 6), (x + 16, y - 22)
    )
    canvas.fill(tail, "#1f4f92", down_HW)
    for leg in (-4.0, 10.0):
        canvas.stroke(np.array([[x + leg, y - 18], [x + leg - 2, y - 1]]), 2.6, "#5b4632")
        canvas.stroke(np.array([[x + leg - 9, y], [x + leg + 4, y]]), 2.6, "#5b4632")
    light_HW = canvas.ball(x - 2, y - 44, 52) * down_HW
    outline = rounded(
        (x - 44, y - 92), (x - 16, y - 100), (x + 6, y - 74), (x + 34, y - 52), (x + 42, y - 28),
        (x + 18, y - 10), (x - 18, y - 10), (x - 38, y - 30), (x - 40, y - 52), (x - 56, y - 68),
    )  # fmt: skip
    canvas.fill(outline, "#3f86d2", light_HW)
    breast = rounded(
        (x - 45, y - 60), (x - 24, y - 62), (x - 8, y - 46), (x - 2, y - 20), (x - 8, y - 12),
        (x - 20, y - 12), (x - 36, y - 30),
    )  # fmt: skip
    canvas.fill(breast, "#ef8b3c", light_HW)
    canvas.fill(rounded((x - 46, y - 73), (x - 44, y - 62), (x - 66, y - 65)), "#f0b429")
    canvas.fill(ellipse(x - 31, y - 71, 6.2, 6.2), "#e9f1fa")
    canvas.fill(ellipse(x - 32, y - 71, 4.6, 4.6), "#16161c")
    canvas.fill(ellipse(x - 33.5, y - 72.8, 1.4, 1.4), "#ffffff")
    return canvas.sprite(x, y)


def _bird_wing(rng: Generator) -> Sprite:
    canvas = Canvas(84, 60)
    plume_HW = 1 + 0.08 * canvas.noise(rng, (5, 1))
    light_HW = canvas.ball(28, 24, 44) * plume_HW
    wing = rounded((6, 12), (26, 4), (54, 18), (80, 44), (58, 46), (30, 44), (10, 32))
    canvas.fill(wing, "#2a65b4", light_HW)
    for x, y in ((26.0, 38.0), (38.0, 40.0), (50.0, 41.0)):
        feather = np.array([[x - 12, y - 16], [x + 2, y - 6], [x + 14, y]])
        canvas.stroke(feather, 1.4, "#1c4a8a")
    return canvas.sprite(10, 16)


def _bird_beak() -> Sprite:
    canvas = Canvas(32, 20)
    canvas.fill(rounded((28, 4), (28, 14), (6, 7)), "#d1901d")
    return canvas.sprite(28, 7)


def _bird_lid() -> Sprite:
    canvas = Canvas(16, 16)
    canvas.fill(ellipse(8, 8, 6.4, 6.4), "#3a7cc4")
    canvas.stroke(ellipse(8, 6, 5, 4, 20, 160), 1.4, "#1a3c6a")
    return canvas.sprite(8, 8)


class Car:
    """A green toy car that drives across the table and back, shaking and smoking as it goes."""

    WHEELS_Y = 452.0
    ENDS_X = (112.0, 532.0)
    WHEEL_RADIUS = 17.0

    def __init__(self, script: Script, rng: Generator) -> None:
        self._drives = script.sounding("car")
        self._body = _car_body(rng)
        self._wheel = _car_wheel()
        self._puff = _car_puff()
        self._shadow = _car_shadow()

    def x(self, time_s: float) -> float:
        """Return where its middle is: each drive takes it from one end to the other."""
        left, right = self.ENDS_X
        place = 0.0
        for direction, drive in zip((1, -1) * len(self._drives), self._drives, strict=False):
            share = (time_s - drive.start_s) / (drive.stop_s - drive.start_s)
            share = min(max(share, 0.0), 1.0)
            place += direction * share * share * (3 - 2 * share)
        return left + place * (right - left)

    def draw(self, picture_HW3: Field, time_s: float) -> Box:
        """Paint the shadow, the smoke, the body and the wheels; return the box without smoke."""
        x, y = self.x(time_s), self.WHEELS_Y
        running = any(drive.start_s <= time_s < drive.stop_s for drive in self._drives)
        shake = 1.6 * math.sin(2 * math.pi * 9 * time_s) if running else 0.0
        paint(picture_HW3, self._shadow, (x, y + 14))
        self._draw_smoke(picture_HW3, time_s)
        body = paint(picture_HW3, self._body, (x, y + shake), turn_deg=0.5 * shake)
        roll_deg = math.degrees((x - self.ENDS_X[0]) / self.WHEEL_RADIUS)
        wheels = [
            paint(picture_HW3, self._wheel, (x + side, y), turn_deg=roll_deg) for side in (-42, 44)
        ]
        return union(body, *wheels)

    def _draw_smoke(self, picture_HW3: Field, time_s: float) -> None:
        """Paint the puffs of the last second, each left where the exhaust was."""
        for drive in self._drives:
            for count in range(int((drive.stop_s - drive.start_s) / 0.16)):
                born_s = drive.start_s + 0.16 * count
                age_s = time_s - born_s
                if not 0 <= age_s < 0.9:
                    continue
                place = (self.x(born_s) - 84 - 14 * age_s, self.WHEELS_Y - 6 - 34 * age_s)
                size = 0.5 + 1.1 * age_s
                fade = 0.75 * (1 - age_s / 0.9)
                paint(picture_HW3, self._puff, place, scale_xy=(size, size), opacity=fade)


def _car_body(rng: Generator) -> Sprite:
    """Return the car but for its wheels, looking right, the middle of its axles on the pivot."""
    canvas = Canvas(180, 96)
    x, y = 90.0, 78.0
    wear_HW = 1 + 0.035 * canvas.noise(rng, (7.5, 7.5))
    fall_HW = 1.25 - 0.75 * np.clip((canvas.y_HW - 14) / 66, 0, 1)
    light_HW = fall_HW * wear_HW
    canvas.stroke(np.array([[x - 84, y - 4], [x - 66, y - 4]]), 6.0, "#6d7076")
    cabin = rounded(
        (x - 52, y - 30),
        (x - 36, y - 66),
        (x - 26, y - 70),
        (x + 14, y - 70),
        (x + 24, y - 64),
        (x + 46, y - 30),
    )
    canvas.fill(cabin, "#2f9e58", light_HW)
    glass_HW = 0.75 + 0.5 * (np.mod(canvas.x_HW + canvas.y_HW, 46) < 16)
    back = rounded((x - 38, y - 36), (x - 29, y - 60), (x - 8, y - 61), (x - 8, y - 36))
    front = rounded((x - 2, y - 36), (x - 2, y - 61), (x + 13, y - 60), (x + 30, y - 36))
    for pane in (back, front):
        canvas.fill(pane, "#9fd0e6", glass_HW)
    hull = rounded(
        (x - 78, y + 2), (x - 79, y - 30), (x - 62, y - 40), (x + 44, y - 40), (x + 74, y - 34),
        (x + 80, y - 14), (x + 79, y + 2), (x + 40, y + 5), (x - 40, y + 5),
    )  # fmt: skip
    canvas.fill(hull, "#33a85e", light_HW)
    canvas.stroke(np.array([[x - 74, y - 20], [x + 74, y - 20]]), 4.0, "#f2e9d2", light_HW)
    canvas.stroke(np.array([[x - 5, y - 34], [x - 5, y - 2]]), 1.2, "#1e6e3c")
    canvas.stroke(np.array([[x - 16, y - 27], [x - 9, y - 27]]), 2.4, "#e8e8e8")
    canvas.fill(ellipse(x + 72, y - 24, 5, 6.5), "#ffe9a0", canvas.ball(x + 72, y - 24, 7))
    canvas.fill(ellipse(x - 75, y - 24, 3.5, 6), "#d8402f")
    for bumper in (-71.0, 71.0):
        ends = np.array([[x + bumper - 10, y], [x + bumper + 10, y]])
        canvas.stroke(ends, 6.0, "#c6cad0", fall_HW + 0.35)
    for arch in (-42.0, 44.0):
        canvas.fill(ellipse(x + arch, y - 1, 21, 20), "#173a25")
    return canvas.sprite(x, y)


def _car_wheel() -> Sprite:
    canvas = Canvas(40, 40)
    canvas.fill(ellipse(20, 20, 17, 17), "#26262b", canvas.ball(20, 20, 17))
    canvas.fill(ellipse(20, 20, 10, 10), "#d9dce1", canvas.ball(20, 20, 14))
    for spoke_deg in range(0, 180, 45):
        ends = ellipse(20, 20, 9, 9, spoke_deg, spoke_deg + 180)[[0, -1]]
        canvas.stroke(ends, 2.0, "#7d828c")
    canvas.fill(ellipse(20, 20, 3.4, 3.4), "#d8402f")
    return canvas.sprite(20, 20)


def _car_puff() -> Sprite:
    canvas = Canvas(48, 48)
    away_HW = np.hypot(canvas.x_HW - 24, canvas.y_HW - 24) / 20
    canvas.blend(np.exp(-2.5 * away_HW**2), "#d5d5da")
    return canvas.sprite(24, 24)


def _car_shadow() -> Sprite:
    canvas = Canvas(220, 40)
    away_HW = np.hypot((canvas.x_HW - 110) / 88, (canvas.y_HW - 20) / 9)
    canvas.blend(0.6 * np.exp(-(away_HW**4)), "#1a0f08")
    return canvas.sprite(110, 20)
