"""The animals of the world, drawn with a `Pen`: x to the right, y down, about two units large."""

import numpy as np

from denseav.train.world.looks.painting import Pen, Tone, ellipse, rounded, turned


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
