"""The instruments and things of the world, drawn with a `Pen`: x to the right, y down."""

from itertools import pairwise

import numpy as np

from denseav.train.world.looks.painting import Pen, Tone, ellipse, rounded


def bell(pen: Pen) -> None:
    """Draw a hanging bell: ring on top, dome, bands, a wide flared lip, a clapper below."""
    lip, waist = pen.near(1.0, 0.06), pen.near(0.52)
    pen.line(ellipse(0, -0.98, 0.2, 0.2), 0.11, Tone.TRIM)
    pen.line([(0, 0.5), (pen.rng.uniform(-0.15, 0.15), 0.92)], 0.1, Tone.INK)
    pen.disc(pen.rng.uniform(-0.15, 0.15), 0.92, 0.22, Tone.INK)
    right = [(0.3, -0.82), (0.46, -0.65), (waist, -0.2), (0.62, 0.25), (0.78, 0.5), (lip, 0.7)]
    pen.fill([*right, *((-x, y) for x, y in reversed(right))], Tone.BODY)
    pen.fill(
        rounded((-lip - 0.08, 0.55), (lip + 0.08, 0.55), (lip + 0.08, 0.82), (-lip - 0.08, 0.82)),
        Tone.LIMB,
    )
    for y, half in ((-0.45, 0.5), (0.12, 0.57)):
        pen.line(ellipse(0, y, half, 0.08, 0, 180), pen.near(0.09), Tone.INK)
    if pen.chance(0.5):
        pen.line([(-0.3, -0.2), (-0.38, 0.3)], 0.09, Tone.SPARK)


def drum(pen: Pen) -> None:
    """Draw a side drum: an oval skin, cords in a zigzag between two hoops, two sticks."""
    high, flat = pen.near(0.55), pen.near(0.32)
    pen.fill(
        np.concatenate([ellipse(0, high, 1, flat, 0, 180), ellipse(0, -0.3, 1, flat, 180, 360)]),
        Tone.BODY,
    )
    top_x = np.linspace(-0.95, 0.95, pen.count(5, 7))
    zigzag = []
    for first, second in pairwise(top_x):
        zigzag += [
            (first, -0.3 + _bow(first, flat)),
            ((first + second) / 2, high + _bow((first + second) / 2, flat)),
        ]
    zigzag.append((top_x[-1], -0.3 + _bow(top_x[-1], flat)))
    pen.line(zigzag, pen.near(0.08), Tone.SPARK)
    for y in (-0.3, high):
        pen.line(ellipse(0, y, 1, flat, 0, 180), 0.17, Tone.TRIM)
    pen.fill(ellipse(0, -0.3, 1, flat), Tone.TRIM)
    pen.fill(ellipse(0, -0.3, 0.88, 0.8 * flat), Tone.SPARK)
    for side in (-1, 1):
        tip = pen.rng.uniform(0.1, 0.35)
        pen.line([(-side * tip, -0.35), (side * 0.8, -0.95)], 0.11, Tone.INK)
        pen.disc(-side * tip, -0.35, 0.12, Tone.INK)


def _bow(x: float, flat: float) -> float:
    return float(flat * np.sqrt(1 - x**2))


def kettle(pen: Pen) -> None:
    """Draw a kettle: a squat body, a spout that rises, an arched handle above, a knobbed lid."""
    tall = pen.near(1.0, 0.1)
    pen.line(ellipse(0, -0.35, 0.58, 0.7 * tall, 180, 360), pen.near(0.17), Tone.INK)
    spout = [
        (0.45, 0.5),
        (0.5, 0.0),
        (0.95, -0.35),
        (0.98, -0.6),
        (1.3, -0.62),
        (1.22, -0.25),
        (0.85, 0.35),
    ]
    pen.fill(spout, Tone.LIMB)
    pen.fill(
        rounded(
            (-0.55, -0.5), (0.55, -0.5), (0.95, 0.55), (0.8, 0.85), (-0.8, 0.85), (-0.95, 0.55)
        ),
        Tone.BODY,
    )
    pen.fill(ellipse(0, -0.42, 0.5, 0.18), Tone.TRIM)
    pen.disc(0, -0.62, 0.13, Tone.INK)
    pen.line([(-0.76, 0.45), (0.76, 0.45)], pen.near(0.12), Tone.TRIM)
    pen.box(-0.7, 0.75, 0.7, 0.92, Tone.LIMB)
    if pen.chance(0.5):
        pen.line(ellipse(0, 0.1, 0.6, 0.4, 140, 200), 0.09, Tone.SPARK)


def fountain(pen: Pen) -> None:
    """Draw a fountain: jets that arch from a spike into two bowls, and a broad basin."""
    wide, bowl = pen.near(1.1, 0.05), pen.near(0.62)
    pen.fill([(-0.16, 0.0), (0.16, 0.0), (0.26, 0.8), (-0.26, 0.8)], Tone.LIMB)
    for reach, height in ((0.95, 0.75), (0.72, 0.95), (0.42, 1.05)):
        for side in (-1, 1):
            arch = ellipse(side * reach / 2, -0.15, reach / 2, height, 180, 360)
            fall = 0.6 if reach > bowl else 0.0
            end = (side * reach, fall)
            points = arch if side > 0 else arch[::-1]
            pen.line(np.concatenate([points, [end]]), pen.near(0.1), Tone.SPARK)
    pen.line([(0, -0.1), (0, -0.95)], 0.12, Tone.SPARK)
    pen.fill(ellipse(0, 0.0, bowl, 0.32, 0, 180), Tone.BODY)
    pen.fill(ellipse(0, 0.0, bowl, 0.1), Tone.TRIM)
    pen.fill(
        rounded((-wide, 0.55), (wide, 0.55), (0.85 * wide, 1.05), (-0.85 * wide, 1.05)), Tone.BODY
    )
    pen.box(-wide, 0.52, wide, 0.7, Tone.TRIM)
    for x in np.linspace(-0.7, 0.7, pen.count(4, 6)):
        pen.line([(x, 0.75), (x, 0.95)], 0.08, Tone.INK)


def guitar(pen: Pen) -> None:
    """Draw a guitar: a waisted body with a round hole and bridge, a fretted neck, pegs."""
    lower, upper, waist = pen.near(0.86, 0.08), pen.near(0.64, 0.08), pen.near(0.44)
    top = pen.near(-1.25, 0.06)
    for y in (0.08, 0.26):
        pen.line([(-0.36, top + y), (0.36, top + y)], 0.12, Tone.INK)
    pen.fill([(-0.23, top - 0.08), (0.23, top - 0.08), (0.18, -0.8), (-0.18, -0.8)], Tone.LIMB)
    right = [(0.1, -0.34), (upper, -0.3), (upper, 0.1), (waist, 0.3), (lower, 0.48), (lower, 1.1)]
    right.append((0.4, 1.28))
    pen.fill(rounded(*right, *((-x, y) for x, y in reversed(right))), Tone.BODY)
    pen.box(-0.17, -0.88, 0.17, 0.05, Tone.INK)
    for y in np.linspace(-0.78, -0.08, pen.count(4, 5)):
        pen.line([(-0.14, y), (0.14, y)], 0.06, Tone.SPARK)
    pen.disc(0, 0.28, 0.32, Tone.TRIM)
    pen.disc(0, 0.28, 0.23, Tone.INK)
    pen.box(-0.4, 0.85, 0.4, 1.0, Tone.INK)
    for x in (-0.08, 0.08):
        pen.line([(x, -0.8), (x, 0.92)], 0.04, Tone.SPARK)


def trumpet(pen: Pen) -> None:
    """Draw a trumpet: a flared bell at one end, a loop of tube, three valves, a mouthpiece."""
    flare, tube = pen.near(0.78, 0.1), pen.near(0.24)
    pen.line([(-1.15, -0.1), (0.7, -0.1)], tube, Tone.BODY)
    pen.fill([(-1.4, -0.36), (-1.1, -0.2), (-1.1, 0.0), (-1.4, 0.16)], Tone.TRIM)
    loop = rounded((-0.9, -0.1), (0.75, -0.1), (0.75, 0.72), (-0.9, 0.72))
    pen.line(np.concatenate([loop, loop[:1]]), tube, Tone.LIMB)
    right = [(0.15, 0.12), (0.6, 0.2), (0.9, 0.38), (1.08, 0.56), (1.15, flare)]
    outline = [*((x, -0.1 - y) for x, y in right), *((x, -0.1 + y) for x, y in reversed(right))]
    pen.fill(outline, Tone.BODY)
    pen.fill(ellipse(1.15, -0.1, 0.2, flare), Tone.INK)
    for x in (-0.5, -0.16, 0.18):
        press = pen.rng.uniform(0, 0.15)
        pen.line([(x, -0.35), (x, -0.72 + press)], 0.1, Tone.INK)
        pen.line([(x - 0.07, -0.78 + press), (x + 0.07, -0.78 + press)], 0.15, Tone.SPARK)
        pen.box(x - 0.13, -0.42, x + 0.13, 0.8, Tone.TRIM)


def hammer(pen: Pen) -> None:
    """Draw a claw hammer: a stout handle, a broad face on one side, a curved claw on the other."""
    grip = pen.near(0.25)
    pen.fill([(-0.19, -0.5), (0.19, -0.5), (grip, 1.1), (-grip, 1.1)], Tone.BODY)
    wide = grip + 0.05
    pen.fill(
        rounded((-wide, 0.3), (wide, 0.3), (wide + 0.06, 1.25), (-wide - 0.06, 1.25)), Tone.LIMB
    )
    for y in np.linspace(0.5, 0.98, 3):
        pen.line([(-grip, y), (grip, y)], 0.09, Tone.INK)
    claw = pen.near(-1.15, 0.08)
    prong = [(0.3, -1.05), (-0.4, -1.15), (-0.85, -0.95), (claw, -0.22), (-0.65, -0.5)]
    pen.fill([*prong, (-0.3, -0.42), (0.3, -0.42)], Tone.TRIM)
    pen.line([(-0.4, -0.8), (-0.75, -0.66), (claw + 0.12, -0.32)], 0.06, Tone.INK)
    pen.box(0.25, -1.0, 0.6, -0.5, Tone.TRIM)
    pen.box(0.55, -1.2, pen.near(1.0, 0.08), -0.3, Tone.INK)
    pen.box(-0.28, -1.22, 0.3, -0.34, Tone.TRIM)
