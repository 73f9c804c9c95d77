"""What the things of the world are played with: a melody for each class, on any instrument.

Four notes over seven steps make a melody; no two classes have the same rhythm, nor the same order
of high and low. Everything else is drawn: the key, the tempo, the instrument and how it is made,
the notes' loudness. All melodies are as high in the mean, so that neither pitch nor timbre tells
the class. The held-out split draws from parts of the ranges that training never draws from.

Axes: S samples at 16 kHz, P partials.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from denseav.models.audio_encoder import SAMPLE_RATE_HZ
from denseav.train.world.sounds.level import Wave, coloured, filtered, level
from denseav.train.world.sounds.synthesis import (
    Dice,
    formants,
    harmonic,
    hiss,
    modes,
    rolloff,
    seconds,
    swell,
)

Melody = tuple[tuple[int, int], ...]
"""Notes in their order: semitones above the lowest, and steps."""

MELODIES: dict[str, Melody] = {
    "bell": ((12, 4), (7, 1), (0, 1), (3, 1)),
    "drum": ((12, 2), (7, 1), (4, 1), (0, 3)),
    "bird": ((14, 1), (0, 3), (9, 2), (5, 1)),
    "dog": ((0, 3), (12, 1), (7, 1), (5, 2)),
    "tractor": ((4, 3), (0, 1), (9, 2), (14, 1)),
    "clock": ((3, 1), (12, 2), (0, 2), (7, 2)),
    "kettle": ((4, 1), (0, 3), (12, 1), (7, 2)),
    "fountain": ((14, 2), (5, 2), (9, 2), (0, 1)),
    "guitar": ((7, 2), (0, 1), (12, 3), (5, 1)),
    "telephone": ((14, 1), (0, 1), (4, 3), (9, 2)),
    "robot": ((0, 1), (12, 1), (3, 2), (7, 3)),
    "helicopter": ((0, 1), (7, 4), (4, 1), (12, 1)),
    "trumpet": ((14, 2), (5, 1), (0, 2), (9, 2)),
    "sheep": ((7, 2), (12, 3), (5, 1), (0, 1)),
    "rocket": ((4, 1), (9, 2), (14, 1), (0, 3)),
    "hammer": ((3, 1), (12, 2), (7, 3), (0, 1)),
}
STEPS = 7
KEY_HZ = (300.0, 600.0)
"""The mean pitch of a tune."""
ROUNDS = (1.0, 1.4)
"""A tune is played once, and so much of it again as there is time for."""
RELEASE_S = 0.25
"""What is plucked or struck rings on so long into the next note."""

BAR_P = np.array([1.0, 3.95, 9.4])

Instrument = Callable[[float, float], Wave]
"""Plays a pitch in hertz for some seconds: a wave [S], which may ring on."""


def tune(name: str, rng: Generator, duration_s: float, *, held_out: bool) -> NDArray[np.float32]:
    """Return a class's tune, float32 [S] at 16 kHz: at the common level, sounding all through.

    Parameters
    ----------
    name : str
        One of `denseav.train.world.classes.CLASSES`.
    rng : Generator
        Source of everything random.
    duration_s : float
        Length of the tune.
    held_out : bool
        Draw the parameters that training never draws.
    """
    dice = Dice(rng, held_out=held_out)
    samples = round(duration_s * SAMPLE_RATE_HZ)
    melody, key_hz = MELODIES[name], dice.ratio(*KEY_HZ)
    mean_height = sum(height * steps for height, steps in melody) / STEPS
    step = samples / STEPS / dice.ratio(*ROUNDS)
    instrument = INSTRUMENTS[rng.integers(len(INSTRUMENTS))](dice)
    total_S, at = np.zeros(samples), 0
    while round(at * step) < samples:
        for height, steps in melody:
            first = min(round(at * step), samples)
            pitch_hz = key_hz * 2 ** ((height - mean_height) / 12)
            note_S = instrument(pitch_hz, steps * step / SAMPLE_RATE_HZ)[: samples - first]
            total_S[first : first + len(note_S)] += note_S * rng.uniform(0.8, 1.0)
            at += steps
    return level(coloured(total_S, rng))


def strings(dice: Dice) -> Instrument:
    """Return plucked strings."""
    pluck, ring_s, stiffness = dice.between(0.1, 0.4), dice.ratio(0.4, 0.9), dice.ratio(5e-5, 5e-4)
    number_P = np.arange(1, 17, dtype=np.float64)
    gains_P = np.abs(np.sin(np.pi * number_P * pluck)) / number_P

    def play(pitch_hz: float, length_s: float) -> Wave:
        pitches_P = pitch_hz * number_P * np.sqrt(1 + stiffness * number_P**2)
        decays_P = ring_s / (1 + 0.15 * number_P)
        return _damped(modes(pitches_P, gains_P, decays_P, dice.rng, length_s + RELEASE_S))

    return play


def bars(dice: Dice) -> Instrument:
    """Return bars of wood or metal that are struck."""
    ring_s, bright = dice.ratio(0.3, 0.8), dice.ratio(0.1, 0.5)
    gains_P: Wave = np.power(bright, np.arange(3), dtype=np.float64)

    def play(pitch_hz: float, length_s: float) -> Wave:
        decays_P = ring_s / BAR_P**0.6
        struck_S = modes(pitch_hz * BAR_P, gains_P, decays_P, dice.rng, length_s + RELEASE_S)
        return _damped(struck_S)

    return play


def organ(dice: Dice) -> Instrument:
    """Return an organ: few harmonics, of stops that are drawn or not."""
    gains = np.array([1.0, 0.9, 0.0, 0.6, 0.0, 0.4, 0.0, 0.3]) * dice.rng.uniform(0.3, 1, 8)
    third, attack = dice.between(0.1, 0.8), dice.ratio(0.03, 0.1)
    gains[2] = third

    def play(pitch_hz: float, length_s: float) -> Wave:
        envelope_S = swell(length_s, attack, 0.1)
        return harmonic(np.full(len(envelope_S), pitch_hz), gains, dice.rng) * envelope_S

    return play


def flute(dice: Dice) -> Instrument:
    """Return a flute: nearly a sine, with breath and vibrato."""
    overtone, breath = dice.ratio(0.1, 0.4), dice.ratio(0.03, 0.12)
    vibrato_hz, depth = dice.ratio(4.5, 6.5), dice.between(0.003, 0.008)
    gains = np.array([1.0, overtone, 0.5 * overtone, 0.2 * overtone])

    def play(pitch_hz: float, length_s: float) -> Wave:
        envelope_S = swell(length_s, 0.15, 0.15)
        turn_S = np.sin(2 * np.pi * vibrato_hz * seconds(len(envelope_S)))
        blown_S = harmonic(pitch_hz * (1 + depth * turn_S), gains, dice.rng)
        return (blown_S + breath * hiss(len(blown_S), 800, 5_000, dice.rng)) * envelope_S

    return play


def reed(dice: Dice) -> Instrument:
    """Return a reed: odd harmonics, in a tube."""
    even, fall = dice.between(0.0, 0.3), dice.between(0.7, 1.3)
    tube = formants(((dice.ratio(900, 1_800), 1_200, 1.0), (500, 700, 0.6)))
    gains = rolloff(14, fall) * np.where(np.arange(14) % 2, even, 1.0)

    def play(pitch_hz: float, length_s: float) -> Wave:
        envelope_S = swell(length_s, 0.1, 0.1)
        sounding_S = harmonic(np.full(len(envelope_S), pitch_hz), gains, dice.rng)
        return filtered(sounding_S, tube) * envelope_S

    return play


def bow(dice: Dice) -> Instrument:
    """Return bowed strings: all harmonics, with vibrato."""
    fall, vibrato_hz = dice.between(0.9, 1.5), dice.ratio(4.5, 6.5)
    depth, attack = dice.between(0.002, 0.008), dice.ratio(0.1, 0.25)
    gains = rolloff(20, fall)

    def play(pitch_hz: float, length_s: float) -> Wave:
        envelope_S = swell(length_s, attack, 0.12)
        turn_S = np.sin(2 * np.pi * vibrato_hz * seconds(len(envelope_S)))
        return harmonic(pitch_hz * (1 + depth * turn_S), gains, dice.rng) * envelope_S

    return play


INSTRUMENTS = (strings, bars, organ, flute, reed, bow)


def _damped(ringing_S: Wave) -> Wave:
    """Return a note that is damped over the end of its release."""
    release = round(RELEASE_S * SAMPLE_RATE_HZ)
    ringing_S[-release:] *= np.linspace(1, 0, release) ** 2
    return ringing_S
