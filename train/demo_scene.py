"""The picture of the demonstration clip: a table in the open, with four things on and over it.

A script and a seed enter; for any time of the clip a picture leaves, with the box of every object
in it. It knows no file and no sound. Axes: H W pixels, 3 = blue, green, red.
"""

import math
from typing import Protocol

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from denseav.train.demo_moving import Bird, Car
from denseav.train.demo_paint import (
    SHADE_XY,
    Box,
    Canvas,
    Field,
    Sprite,
    paint,
    rounded,
)
from denseav.train.demo_script import Script
from denseav.train.demo_struck import Bell, Drum

WIDTH, HEIGHT = 640, 480
TABLE_Y = 326
MARGIN = 16  # how far the sky reaches beyond the picture, for the clouds to drift in


class Thing(Protocol):
    """An object of the scene."""

    def draw(self, picture_HW3: Field, time_s: float) -> Box:
        """Paint the object as it is at `time_s`, and return its box."""


class Scene:
    """Everything in the picture, painted once; `draw` then only places it.

    Attributes
    ----------
    things : the objects by name, from the back to the front.
    """

    def __init__(self, script: Script, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._duration_s = script.duration_s
        self._sky = _sky(rng)
        self._ground = _ground(rng)
        self.things: dict[str, Thing] = {
            "bell": Bell(script, rng),
            "drum": Drum(script, rng),
            "bird": Bird(script, rng),
            "car": Car(script, rng),
        }

    def draw(self, time_s: float) -> tuple[NDArray[np.uint8], dict[str, Box]]:
        """Return the picture at `time_s`, uint8 [480, 640, 3] BGR, and each object's box."""
        picture_HW3: Field = np.zeros((HEIGHT, WIDTH, 3), np.float32)
        drift = 10 * math.sin(2 * math.pi * time_s / self._duration_s)
        paint(picture_HW3, self._sky, (drift, 0.0))
        paint(picture_HW3, self._ground, (0.0, 0.0))
        boxes = {name: thing.draw(picture_HW3, time_s) for name, thing in self.things.items()}
        return np.round(np.clip(picture_HW3, 0, 1) * 255).astype(np.uint8), boxes


def _sky(rng: Generator) -> Sprite:
    """Return the sky with its clouds, wider than the picture by two margins."""
    canvas = Canvas(WIDTH + 2 * MARGIN, 320)
    low_HW = np.clip(canvas.y_HW / 300, 0, 1)
    lumps_HW = canvas.noise(rng, (110, 52))
    cloud_HW = np.clip((lumps_HW + 0.1) / 1.6, 0, 1) * (0.9 - 0.55 * low_HW)
    under_HW = canvas.noise(rng, (175, 75))
    everywhere_HW = np.ones_like(low_HW)
    canvas.blend(everywhere_HW, "#5d9fdc")
    canvas.blend(low_HW**1.2, "#f6e3c4")
    canvas.blend(cloud_HW, "#fffaf2", 1 - 0.05 * np.clip(under_HW, 0, 2))
    return canvas.sprite(MARGIN, 0)


def _ground(rng: Generator) -> Sprite:
    """Return all that stands still before the sky: hills, table, shadows and the branch."""
    canvas = Canvas(WIDTH, HEIGHT)
    _paint_hills(canvas, rng)
    _paint_table(canvas, rng)
    for x, y, radius_x, strength in ((146, 384, 94, 0.6), (264, 366, 30, 0.6), (414, 366, 30, 0.6)):
        away_HW = np.hypot((canvas.x_HW - x) / radius_x, (canvas.y_HW - y) / (radius_x * 0.2))
        canvas.blend(strength * np.exp(-(away_HW**4)), "#1a0f08")
    _paint_branch(canvas, rng)
    return canvas.sprite(0, 0)


def _paint_hills(canvas: Canvas, rng: Generator) -> None:
    """Paint three rows of hills, the far ones paler."""
    across_N = np.linspace(0, WIDTH, 161)
    rows = ((236, 22, 210, "#a9c3c4"), (266, 18, 150, "#86b086"), (298, 12, 260, "#5f9a54"))
    for y, rise, length, colour in rows:
        phase = rng.uniform(0, 2 * np.pi)
        crest_N = y - rise * np.sin(2 * np.pi * across_N / length / 1.7 + phase)
        crest_N -= 0.4 * rise * np.sin(2 * np.pi * across_N / length * 1.3 + 2 * phase)
        outline = np.column_stack([across_N, crest_N])
        outline = np.vstack([outline, [[WIDTH, HEIGHT], [0, HEIGHT]]])
        leafy_HW = 1 + 0.045 * canvas.noise(rng, (16, 10))
        canvas.fill(outline, colour, leafy_HW)


def _paint_table(canvas: Canvas, rng: Generator) -> None:
    """Paint planks that run away from the viewer, lit towards the front."""
    depth_HW = np.clip((canvas.y_HW - TABLE_Y) / (HEIGHT - TABLE_Y), 0, 1)
    # Straight lines that meet far above the table, so that its planks lie flat.
    lane_HW = (canvas.x_HW - 320) / (1 + 0.55 * depth_HW)
    plank_HW = np.floor(lane_HW / 66).astype(np.int64)
    shades = 1 + 0.09 * rng.standard_normal(64)
    grain_HW = cv2.remap(
        canvas.noise(rng, (6, 225)).astype(np.float32),
        np.mod(lane_HW * 1.4 + 5000, 1000).astype(np.float32),
        (depth_HW * 700 + np.mod(plank_HW * 173, 300)).astype(np.float32),
        cv2.INTER_LINEAR,
    )
    seam_HW = 1 - 0.55 * (np.mod(lane_HW, 66) < 1.3)
    light_HW = (0.8 + 0.35 * depth_HW) * shades[plank_HW + 32] * (1 + 0.07 * grain_HW) * seam_HW
    whole = np.array([[0, TABLE_Y], [WIDTH, TABLE_Y], [WIDTH, HEIGHT], [0, HEIGHT]], np.float64)
    canvas.fill(whole, "#b57a48", light_HW)
    edge = np.array([[0, TABLE_Y + 1.0], [WIDTH, TABLE_Y + 1.0]])
    canvas.stroke(edge, 2.5, "#e0b27c")


def _paint_branch(canvas: Canvas, rng: Generator) -> None:
    """Paint the branch that the bird sits on, coming in from the right, and its leaves."""
    bark_HW = 1 + 0.16 * canvas.noise(rng, (10, 1.25))
    fall_HW = 1.25 - 0.6 * np.clip((canvas.y_HW - 165) / 30, 0, 1)
    limb = rounded(
        (476, 178), (520, 172), (580, 170), (700, 150), (700, 180), (584, 184), (520, 180)
    )
    canvas.fill(limb, "#7b5534", bark_HW * fall_HW)
    for _ in range(26):
        x, y = rng.uniform(588, 648), rng.uniform(140, 196)
        turn_deg = rng.uniform(-60, 60)
        _paint_leaf(canvas, x, y, turn_deg, float(rng.uniform(0.8, 1.2)))
    for x, y, turn_deg in ((478, 172, 200), (486, 184, 150), (500, 182, 110)):
        _paint_leaf(canvas, x, y, turn_deg, 1.0)


def _paint_leaf(canvas: Canvas, x: float, y: float, turn_deg: float, light: float) -> None:
    angle = np.deg2rad(turn_deg)
    turn_22 = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    leaf = rounded((-4, 0), (6, -8), (14, -7), (24, 0), (14, 7), (6, 8)) @ turn_22 + (x, y)
    canvas.fill(leaf + SHADE_XY, "#22481d")
    canvas.fill(leaf, "#5a9c3e", light)
    rib = np.array([[0.0, 0.0], [18.0, 0.0]]) @ turn_22 + (x, y)
    canvas.stroke(rib, 1.0, "#86bf63")
