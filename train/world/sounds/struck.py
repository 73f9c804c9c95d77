"""The world's things that are struck, plucked or snap. Axes: S samples at 16 kHz, P partials."""

import numpy as np

from denseav.train.world.sounds.level import Wave
from denseav.train.world.sounds.synthesis import Dice, hiss, modes, repeated, seconds

BELL_P = np.array([0.5, 1.0, 1.2, 1.5, 2.0, 2.67, 3.0, 4.1, 5.4])
PLATE_P = np.array([1.0, 1.42, 1.93, 2.51, 2.9, 3.4])
MEMBRANE_P = np.array([1.0, 1.59, 2.14, 2.3, 2.65])
CHORDS = ((0, 4, 7, 12, 16), (0, 3, 7, 12, 15), (0, 5, 9, 12, 17), (0, 5, 7, 10, 12))


def bell(dice: Dice, samples: int) -> Wave:
    """Return strokes of a ringing bell."""
    pitch_hz, ring_s = dice.ratio(420, 900), dice.ratio(0.5, 1.2)
    gains_P = np.array([0.5, 1.0, 0.8, 0.5, 1.0, 0.6, 0.5, 0.4, 0.3]) * dice.rng.uniform(0.6, 1, 9)
    stroke_S = modes(pitch_hz * BELL_P, gains_P, ring_s / BELL_P**0.7, dice.rng, 1.2)
    return repeated(dice, samples, 1 / dice.ratio(1.8, 3.2), 0.03, lambda _: stroke_S)


def drum(dice: Dice, samples: int) -> Wave:
    """Return a roll on a drum: a falling membrane and the noise of the stick."""
    pitch_hz, decay_s, rattle = dice.ratio(85, 190), dice.ratio(0.07, 0.14), dice.ratio(0.25, 0.7)
    skin_S = modes(pitch_hz * MEMBRANE_P, 1 / MEMBRANE_P, decay_s / MEMBRANE_P, dice.rng, 0.4)
    time_S = seconds(len(skin_S))
    thump_S = np.sin(2 * np.pi * pitch_hz * (time_S + 0.02 * (1 - np.exp(-time_S / 0.02))))
    stick_S = hiss(len(skin_S), 300, 2_500, dice.rng) * np.exp(-time_S / 0.03)
    hit_S = skin_S + thump_S * np.exp(-time_S / decay_s) + rattle * stick_S
    return repeated(dice, samples, 1 / dice.ratio(6, 11), 0.04, lambda _: hit_S)


def clock(dice: Dice, samples: int) -> Wave:
    """Return the ticking of a clock: dry clicks, higher and lower in turn."""
    pitch_hz, step = dice.ratio(1_900, 3_000), dice.ratio(1.15, 1.4)
    shape_P = np.array([1.0, 1.37, 2.2])
    decay_s = dice.ratio(0.006, 0.012)
    clicks = [
        modes(
            pitch_hz / fall * shape_P,
            np.array([1.0, 0.6, 0.4]),
            decay_s / shape_P**0.5,
            dice.rng,
            0.07,
        )
        for fall in (1.0, step)
    ]
    return repeated(dice, samples, 1 / dice.ratio(4.2, 7.5), 0.01, lambda index: clicks[index % 2])


def guitar(dice: Dice, samples: int) -> Wave:
    """Return plucked strings: the notes of a chord up and down."""
    root_hz, pluck = dice.ratio(105, 190), dice.between(0.12, 0.3)
    chord = CHORDS[dice.rng.integers(len(CHORDS))]
    order = dice.rng.permutation(5)
    number_P = np.arange(1, 19, dtype=np.float64)
    gains_P = np.abs(np.sin(np.pi * number_P * pluck)) / number_P**0.9
    ring_s = dice.ratio(0.35, 0.7)

    def note(index: int) -> Wave:
        pitch_hz = root_hz * 2 ** (chord[order[index % 5]] / 12)
        pitches_P = pitch_hz * number_P * np.sqrt(1 + 2e-4 * number_P**2)
        return modes(pitches_P, gains_P, ring_s / (1 + 0.12 * number_P), dice.rng, 0.8)

    return repeated(dice, samples, 1 / dice.ratio(3.5, 6.5), 0.04, note)


def telephone(dice: Dice, samples: int) -> Wave:
    """Return a telephone's two little bells, hammered in turn twenty times a second."""
    pitch_hz, step, rate_hz = dice.ratio(1_300, 2_100), dice.ratio(1.18, 1.32), dice.ratio(17, 25)
    shape_P = np.array([1.0, 2.0, 2.75])
    bells = [
        modes(pitch_hz * fall * shape_P, np.array([1.0, 0.5, 0.5]), 0.09 / shape_P, dice.rng, 0.3)
        for fall in (1.0, step)
    ]
    return repeated(dice, samples, 1 / rate_hz, 0.01, lambda index: bells[index % 2])


def hammer(dice: Dice, samples: int) -> Wave:
    """Return clanks of a hammer on iron: a knock and short inharmonic partials."""
    pitch_hz, decay_s = dice.ratio(700, 1_250), dice.ratio(0.045, 0.09)
    shape_P = PLATE_P * dice.rng.uniform(0.97, 1.03, 6)
    knock_s = dice.ratio(0.01, 0.02)

    def clank(_: int) -> Wave:
        iron_S = modes(
            pitch_hz * shape_P, dice.rng.uniform(0.5, 1, 6), np.full(6, decay_s), dice.rng, 0.4
        )
        fade_S = np.exp(-seconds(len(iron_S)) / knock_s)
        return iron_S + 1.5 * hiss(len(iron_S), 150, 1_200, dice.rng) * fade_S

    return repeated(dice, samples, 1 / dice.ratio(3.2, 5), 0.05, clank)
