"""The animals of the world, drawn with a `Pen`: x to the right, y down, about two units large."""

import numpy as np

from denseav.train.world_paint import Pen, Tone, ellipse, rounded, turned


def bird(pen: Pen) -> None:
    """Draw a perched bird from the side: wedge tail, folded wing, large beak, thin legs."""
    head = pen.near(0.36)
    for x in (-0.05, 0.2):
        pen.line([(x, 0.5), (x, 0.95), (x + 0.2, 0.95)], 0.09, Tone.TRIM)
    tip = pen.near(-1.2)
    pen.fill(
        [(-0.4, 0.05), (tip, -0.35), (tip + 0.05, 0.0), (tip - 0.1, 0.3), (-0.3, 0.5)], Tone.LIMB
    )
    pen.fill(ellipse(0, 0.2, pen.near(0.68), pen.near(0.5)), Tone.BODY)
    pen.disc(0.5, -0.35, head, Tone.BODY)
    beak = pen.near(1.35, 0.08)
    pen.fill([(0.76, -0.55), (beak, -0.28), (0.74, -0.15)], Tone.INK)
    wing = rounded((0.35, -0.05), (0.2, 0.45), (-0.35, 0.5), (-1.0, 0.25), (-0.4, -0.1))
    pen.fill(turned(wing, pen.rng.uniform(-12, 8), 0.2, 0.1), Tone.TRIM)
    for reach in (0.1, -0.15, -0.4):
        pen.line([(reach, 0.05), (reach - 0.3, 0.38)], 0.06, Tone.INK)
    if pen.chance(0.5):
        pen.fill([(0.3, -0.62), (0.2, -1.0), (0.5, -0.68)], Tone.LIMB)
    pen.eye(0.56, -0.42, pen.near(0.13))


def dog(pen: Pen) -> None:
    """Draw a standing dog from the side: square muzzle, hanging ear, tail up, four legs."""
    thick = pen.near(0.22)
    for x in (-0.75, -0.48, 0.28, 0.55):
        foot = pen.near(0.95, 0.06)
        pen.line([(x, 0.3), (x - 0.03, foot), (x + 0.1, foot)], thick, Tone.LIMB)
    up = pen.rng.uniform(-0.85, -0.5)
    pen.line([(-0.8, 0.0), (-1.1, -0.25), (-1.15, up)], 0.17, Tone.BODY)
    body = rounded((-1.0, -0.25), (0.8, -0.3), (0.85, 0.45), (0.1, 0.35), (-1.0, 0.45))
    pen.fill(body, Tone.BODY)
    if pen.chance(0.5):
        pen.fill(ellipse(pen.near(-0.3), 0.0, 0.28, 0.2), Tone.TRIM)
    pen.fill(rounded((0.3, -0.2), (0.35, -1.0), (1.0, -1.0), (0.95, 0.1), (0.6, 0.25)), Tone.BODY)
    muzzle = pen.near(1.45, 0.06)
    pen.fill(rounded((0.75, -0.75), (muzzle, -0.68), (muzzle, -0.25), (0.75, -0.2)), Tone.LIMB)
    pen.disc(muzzle - 0.1, -0.62, 0.12, Tone.INK)
    pen.line([(0.95, -0.38), (muzzle - 0.15, -0.38)], 0.05, Tone.INK)
    ear = rounded((0.4, -1.05), (0.68, -1.0), (0.72, pen.near(-0.15)), (0.3, -0.1))
    pen.fill(turned(ear, pen.rng.uniform(-10, 15), 0.5, -0.95), Tone.INK)
    pen.line([(0.45, 0.08), (0.85, 0.02)], 0.12, Tone.TRIM)
    pen.eye(0.86, -0.74, 0.1)


def owl(pen: Pen) -> None:
    """Draw an owl from the front: ear tufts, huge ringed eyes, wings at the sides, scaly belly."""
    wide = pen.near(0.72)
    for side in (-1, 1):
        pen.fill(
            [(side * 0.25, 0.85), (side * 0.55, 0.85), (side * 0.6, 1.1), (side * 0.2, 1.1)],
            Tone.TRIM,
        )
    tuft = pen.near(-1.15, 0.06)
    pen.fill(
        rounded((-wide, -0.7), (0, -0.9), (wide, -0.7), (wide, 0.8), (0, 1.15), (-wide, 0.8)),
        Tone.BODY,
    )
    for side in (-1, 1):
        pen.fill([(side * 0.6, -0.35), (side * 0.75, tuft), (side * 0.1, -0.72)], Tone.BODY)
        wing = rounded(
            (side * 0.5, -0.2), (side * 0.95, 0.1), (side * 0.75, 0.95), (side * 0.45, 0.5)
        )
        pen.fill(wing, Tone.LIMB)
    pen.fill(ellipse(0, 0.45, 0.42, 0.48), Tone.TRIM)
    for row, y in enumerate((0.25, 0.47, 0.69)):
        for x in np.arange(-1, 2 - row % 2) * 0.24 + row % 2 * 0.12:
            pen.line([(x - 0.09, y), (x, y + 0.1), (x + 0.09, y)], 0.05, Tone.INK)
    radius = pen.near(0.34, 0.08)
    for side in (-1, 1):
        pen.disc(side * 0.34, -0.37, radius, Tone.SPARK)
        pen.disc(side * 0.34, -0.37, 0.5 * radius, Tone.INK)
    pen.fill([(-0.13, -0.28), (0.13, -0.28), (0, 0.05)], Tone.INK)


def bee(pen: Pen) -> None:
    """Draw a bee from the side: a fat body with upright bands, two wings above, a sting."""
    wing = pen.near(0.62)
    pen.fill([(-0.9, -0.12), (pen.near(-1.3, 0.05), 0.12), (-0.9, 0.3)], Tone.INK)
    for lean, x in ((-25, -0.2), (20, 0.15)):
        shape = ellipse(x, -0.3 - wing, 0.32, wing)
        pen.fill(turned(shape, lean, x, -0.3), Tone.SPARK)
        pen.line(turned([(x, -0.4), (x, -0.3 - 1.5 * wing)], lean, x, -0.3), 0.04, Tone.INK)
    long, high = pen.near(1.0, 0.06), pen.near(0.56)
    pen.fill(ellipse(0, 0.1, long, high), Tone.BODY)
    for x in np.array([-0.62, -0.25, 0.12]) * long:
        half = 0.95 * high * np.sqrt(1 - (x / long) ** 2)
        pen.line(ellipse(x - 0.06, 0.1, 0.1, half, -90, 90), 0.17, Tone.INK)
    pen.disc(0.82 * long, 0.05, 0.4, Tone.LIMB)
    for reach in (0.95, 1.3):
        pen.line([(0.9, -0.25), (reach, -0.62), (reach + 0.1, -0.6)], 0.07, Tone.INK)
    pen.eye(0.92 * long, 0.0, 0.15)


def sheep(pen: Pen) -> None:
    """Draw a sheep from the side: a curly cloud on short legs, a dark oval face, a flat ear."""
    for x in (-0.6, -0.3, 0.25, 0.55):
        pen.line([(x, 0.4), (x, pen.near(0.98, 0.04))], 0.17, Tone.INK)
    turns_N = np.linspace(0, 2 * np.pi, pen.count(10, 13), endpoint=False)
    curl = pen.near(0.27)
    for turn in turns_N + pen.rng.uniform(0, 1):
        pen.disc(0.82 * np.cos(turn), 0.5 * np.sin(turn), curl, Tone.BODY)
    pen.fill(ellipse(0, 0, 0.82, 0.5), Tone.BODY)
    for x, y in ((-0.55, -0.15), (-0.1, -0.3), (-0.2, 0.2), (0.3, 0.25), (-0.6, 0.3), (0.25, -0.1)):
        pen.line(ellipse(x, y, 0.15, 0.14, pen.rng.uniform(-60, 0), 250), 0.06, Tone.LIMB)
    lean = pen.rng.uniform(-35, -10)
    pen.fill(turned(ellipse(0.98, -0.25, 0.27, 0.42), lean, 0.9, -0.3), Tone.INK)
    pen.fill(turned(ellipse(0.62, -0.4, 0.25, 0.11), pen.rng.uniform(-40, 0), 0.8, -0.4), Tone.INK)
    for x, y in ((0.75, -0.6), (0.95, -0.68)):
        pen.disc(x, y, 0.17, Tone.BODY)
    pen.disc(1.02, -0.33, 0.09, Tone.SPARK)


def frog(pen: Pen) -> None:
    """Draw a frog from the front: eyes on top, a mouth from side to side, bent legs, toes."""
    knee = pen.near(1.15, 0.06)
    for side in (-1, 1):
        pen.fill(
            turned(ellipse(side * 0.85, 0.4, 0.33, 0.52), side * 25, side * 0.85, 0.4), Tone.LIMB
        )
        for toe in (-0.3, 0.0, 0.3):
            pen.line([(side * 0.8, 0.7), (side * (knee + toe - 0.1), 0.95)], 0.13, Tone.LIMB)
            pen.line([(side * 0.3, 0.6), (side * 0.3 + 0.6 * toe, 1.0)], 0.12, Tone.TRIM)
    pen.fill(ellipse(0, 0.3, 0.72, 0.55), Tone.BODY)
    pen.fill(ellipse(0, 0.5, 0.45, 0.32), Tone.TRIM)
    pen.fill(ellipse(0, -0.2, pen.near(0.98, 0.06), pen.near(0.48, 0.08)), Tone.BODY)
    bulge = pen.near(0.32)
    for side in (-1, 1):
        pen.disc(side * 0.52, -0.6, bulge, Tone.BODY)
        pen.disc(side * 0.52, -0.63, 0.72 * bulge, Tone.SPARK)
        pen.line([(side * 0.52 - 0.12, -0.63), (side * 0.52 + 0.12, -0.63)], 0.12, Tone.INK)
        pen.disc(side * 0.12, -0.3, 0.05, Tone.INK)
    pen.line(ellipse(0, -0.25, 0.8, pen.near(0.3), 10, 170), 0.09, Tone.INK)
