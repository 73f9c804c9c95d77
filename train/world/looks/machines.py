"""The machines of the world, drawn with a `Pen`: x to the right, y down, about two units large."""

import numpy as np

from denseav.train.world.looks.painting import Pen, Points, Tone, ellipse, rounded


def tractor(pen: Pen) -> None:
    """Draw a tractor: a huge lugged rear wheel, a small front wheel, cab, bonnet, exhaust."""
    top = pen.near(-1.0, 0.08)
    pen.box(0.62, -0.95, 0.76, -0.2, Tone.INK)
    pen.box(-0.85, top, 0.12, top + 0.16, Tone.TRIM)
    pen.box(-0.72, top + 0.16, 0.05, 0.1, Tone.BODY)
    pen.box(-0.52, top + 0.28, -0.12, -0.3, Tone.SPARK)
    pen.fill([(0.0, -0.3), (1.15, -0.2), (1.2, 0.45), (-0.6, 0.45), (-0.6, 0.0)], Tone.BODY)
    for x in (0.45, 0.62, 0.79, 0.96):
        pen.line([(x, -0.05), (x, 0.2)], 0.06, Tone.INK)
    _wheel(pen, -0.5, 0.3, pen.near(0.68, 0.08), lugs=14)
    small = pen.near(0.38, 0.1)
    _wheel(pen, 0.85, 0.98 - small, small, lugs=10)


def _wheel(pen: Pen, x: float, y: float, radius: float, lugs: int) -> None:
    hub_2 = np.array([x, y])
    for angle in np.linspace(0, 2 * np.pi, lugs, endpoint=False) + pen.rng.uniform(0, 1):
        tip_2 = radius * _out(angle)
        pen.line(np.stack([hub_2 + 0.9 * tip_2, hub_2 + tip_2]), 0.11, Tone.INK)
    pen.disc(x, y, 0.96 * radius, Tone.INK)
    pen.disc(x, y, 0.6 * radius, Tone.TRIM)
    for angle in np.linspace(0, 2 * np.pi, 5, endpoint=False) + pen.rng.uniform(0, 1):
        pen.line(np.stack([hub_2, hub_2 + 0.55 * radius * _out(angle)]), 0.12 * radius, Tone.INK)
    pen.disc(x, y, 0.18 * radius, Tone.SPARK)


def _out(angle: float) -> Points:
    """Return the unit vector [2] at an angle in radians, clockwise from the right."""
    return np.array([np.cos(angle), np.sin(angle)])


def clock(pen: Pen) -> None:
    """Draw an alarm clock: a dial with marks and hands, two bells on top, two feet."""
    for side in (-1, 1):
        pen.line([(side * 0.45, 0.6), (side * 0.72, 1.05)], pen.near(0.17), Tone.LIMB)
        half = ellipse(side * 0.5, -0.72, 0.38, 0.36, 180 + side * 35, 360 + side * 35)
        pen.fill(half, Tone.TRIM)
    pen.line([(0, -0.7), (0, -1.1)], 0.1, Tone.INK)
    pen.line([(-0.14, -1.1), (0.14, -1.1)], 0.16, Tone.INK)
    pen.disc(0, 0.1, 0.88, Tone.BODY)
    pen.disc(0, 0.1, pen.near(0.68, 0.05), Tone.SPARK)
    for hour in range(12):
        out_2 = np.array([np.sin(hour * np.pi / 6), np.cos(hour * np.pi / 6)])
        width = 0.11 if hour % 3 == 0 else 0.06
        pen.line(np.array([(0, 0.1) + 0.5 * out_2, (0, 0.1) + 0.6 * out_2]), width, Tone.INK)
    for reach, width in ((0.3, 0.12), (0.46, 0.09)):
        angle = pen.rng.uniform(0, 2 * np.pi)
        pen.line([(0, 0.1), (reach * np.sin(angle), 0.1 - reach * np.cos(angle))], width, Tone.INK)
    pen.disc(0, 0.1, 0.09, Tone.TRIM)


def telephone(pen: Pen) -> None:
    """Draw a dial telephone: a handset across the cradle, a spreading body, a dial of holes."""
    foot = pen.near(1.0, 0.08)
    pen.fill(
        [(-0.35, -0.55), (0.35, -0.55), (0.5, -0.2), (foot, 0.75), (-foot, 0.75), (-0.5, -0.2)],
        Tone.BODY,
    )
    pen.box(-foot, 0.68, foot, 0.86, Tone.LIMB)
    for side in (-1, 1):
        pen.box(side * 0.45 - 0.1, -0.6, side * 0.45 + 0.1, -0.25, Tone.TRIM)
    wide = pen.near(1.12, 0.06)
    pen.line(ellipse(0, -0.38, 0.85 * wide, 0.42, 190, 350), pen.near(0.27), Tone.LIMB)
    for side in (-1, 1):
        cup = rounded(
            (side * (wide - 0.45), -0.62),
            (side * (wide + 0.12), -0.62),
            (side * (wide + 0.1), -0.1),
            (side * (wide - 0.42), -0.1),
        )
        pen.fill(cup, Tone.LIMB)
    pen.disc(0, 0.2, 0.44, Tone.SPARK)
    for angle in np.linspace(0.6, 2 * np.pi, pen.count(8, 10)):
        pen.disc(0.31 * np.cos(angle), 0.2 + 0.31 * np.sin(angle), 0.075, Tone.INK)
    pen.disc(0, 0.2, 0.15, Tone.TRIM)


def robot(pen: Pen) -> None:
    """Draw a robot: a square head with aerial, square eyes and a grille, boxy body, claw arms."""
    head, wide = pen.near(0.5), pen.near(0.55)
    pen.line([(0, -0.8), (0, -1.15)], 0.09, Tone.INK)
    pen.disc(0, -1.18, 0.13, Tone.TRIM)
    for side in (-1, 1):
        pen.box(side * 0.3 - 0.15, 0.5, side * 0.3 + 0.15, 1.0, Tone.LIMB)
        pen.box(side * 0.36 - 0.24, 0.95, side * 0.36 + 0.24, 1.15, Tone.TRIM)
        hand = pen.rng.uniform(0.2, 0.5)
        pen.line(
            [(side * wide, -0.05), (side * (wide + 0.32), 0.0), (side * (wide + 0.34), hand)],
            0.2,
            Tone.LIMB,
        )
        pen.box(
            side * (wide + 0.34) - 0.17, hand, side * (wide + 0.34) + 0.17, hand + 0.22, Tone.TRIM
        )
    pen.box(-0.18, -0.3, 0.18, -0.1, Tone.LIMB)
    pen.box(-wide, -0.18, wide, 0.6, Tone.BODY)
    pen.box(-head, -0.9, head, -0.25, Tone.BODY)
    for side in (-1, 1):
        pen.box(side * 0.24 - 0.14, -0.78, side * 0.24 + 0.14, -0.55, Tone.SPARK)
        pen.box(side * 0.24 - 0.05, -0.72, side * 0.24 + 0.05, -0.6, Tone.INK)
    pen.box(-0.3, -0.46, 0.3, -0.32, Tone.INK)
    for x in (-0.15, 0.0, 0.15):
        pen.line([(x, -0.46), (x, -0.32)], 0.04, Tone.SPARK)
    pen.box(-0.35, -0.02, 0.35, 0.42, Tone.TRIM)
    for x in (-0.2, 0.0, 0.2):
        pen.disc(x, pen.rng.choice([0.1, 0.28]), 0.08, Tone.INK)


def helicopter(pen: Pen) -> None:
    """Draw a helicopter: a bubble cabin, a boom with a tail rotor, a wide rotor above, skids."""
    tail, blade = pen.near(-1.2, 0.06), pen.near(1.1, 0.08)
    for x in (0.0, 0.6):
        pen.line([(x, 0.5), (x, 0.92)], 0.1, Tone.TRIM)
    pen.line([(-0.4, 0.95), (0.95, 0.95), (1.12, 0.82)], 0.15, Tone.TRIM)
    pen.fill([(0.0, -0.35), (tail, -0.28), (tail, -0.02), (0.0, 0.5)], Tone.LIMB)
    fin = [(0.35, -0.2), (0.08, -0.7), (-0.15, -0.7), (-0.05, 0.0)]
    pen.fill([(tail + x, y) for x, y in fin], Tone.TRIM)
    pen.disc(tail + 0.04, -0.18, 0.3, Tone.SPARK)
    across_2 = 0.26 * _out(pen.rng.uniform(0, np.pi))
    hub_2 = np.array([tail + 0.04, -0.18])
    pen.line(np.stack([hub_2 - across_2, hub_2 + across_2]), 0.1, Tone.INK)
    pen.box(0.15, -0.9, 0.45, -0.4, Tone.LIMB)
    pen.fill(ellipse(0.32, 0.08, pen.near(0.84, 0.06), pen.near(0.64, 0.08)), Tone.BODY)
    pen.fill(ellipse(0.36, 0.08, 0.7, 0.54, -90, 20), Tone.SPARK)
    pen.line([(0.36, -0.46), (0.36, 0.27), (1.04, 0.27)], 0.08, Tone.INK)
    pen.box(-0.24, -0.2, 0.16, 0.3, Tone.TRIM)
    droop = pen.rng.uniform(0, 0.12)
    for side in (-1, 1):
        pen.line([(0.3, -0.98), (0.3 + side * blade, -0.98 + droop)], 0.18, Tone.INK)
    pen.disc(0.3, -0.98, 0.17, Tone.TRIM)


def rocket(pen: Pen) -> None:
    """Draw a rocket: a pointed nose, portholes in a row, swept fins, a forked flame."""
    wide, flame, out = pen.near(0.52), pen.near(1.45, 0.06), pen.near(1.05, 0.08)
    half = [(0.3, 0.8), (0.46, 1.2), (0.2, 1.1)]
    pen.fill([*half, (0, flame), *((-x, y) for x, y in reversed(half))], Tone.SPARK)
    pen.fill([(-0.16, 0.8), (0.16, 0.8), (0, 1.2)], Tone.INK)
    for side in (-1, 1):
        fin = [(0.25, 0.0), (out, 0.5), (out, 1.05), (0.25, 0.75)]
        pen.fill([(side * x, y) for x, y in fin], Tone.TRIM)
    nose = [(0.78 * wide, -0.8), (0.42 * wide, -1.1)]
    right = [(0.8 * wide, 0.78), (wide, 0.3), (wide, -0.4), *nose]
    pen.fill([*right, (0, -1.3), *((-x, y) for x, y in reversed(right))], Tone.BODY)
    pen.fill([*nose, (0, -1.3), *((-x, y) for x, y in reversed(nose))], Tone.TRIM)
    pen.box(-0.38, 0.72, 0.38, 0.9, Tone.LIMB)
    portholes = pen.count(1, 2)
    for y in (-0.42, 0.18)[:portholes]:
        pen.disc(0, y, 0.27, Tone.SPARK)
        pen.disc(0, y, 0.16, Tone.INK)
    pen.fill([(-0.07, 0.5), (0.07, 0.5), (0.09, 1.05), (-0.09, 1.05)], Tone.TRIM)
