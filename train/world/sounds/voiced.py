"""The world's things with a throat, a pipe or a wing. Axes: S samples at 16 kHz."""

import numpy as np

from denseav.train.world.sounds.level import Wave, filtered
from denseav.train.world.sounds.synthesis import (
    Dice,
    formants,
    harmonic,
    hiss,
    repeated,
    rolloff,
    seconds,
    swell,
    wander,
)

SCALE = (0, 2, 4, 5, 7, 9, 12)


def bird(dice: Dice, samples: int) -> Wave:
    """Return chirps: short whistles that sweep up or down."""
    pitch_hz, sweep = dice.ratio(2_600, 4_000), dice.ratio(1.3, 1.7)
    rate_hz, direction = dice.ratio(5, 9), dice.rng.choice((-1, 1))

    def chirp(_: int) -> Wave:
        envelope_S = swell(0.75 / rate_hz, 0.25, 0.4)
        bent_S = np.linspace(-0.5, 0.5, len(envelope_S)) * direction
        pitch_hz_S = pitch_hz * dice.rng.uniform(0.92, 1.08) * sweep**bent_S
        return harmonic(pitch_hz_S, np.array([1.0, 0.15]), dice.rng) * envelope_S

    return repeated(dice, samples, 1 / rate_hz, 0.08, chirp)


def dog(dice: Dice, samples: int) -> Wave:
    """Return barks: rough short cries that rise and fall."""
    pitch_hz, throat, rate_hz = dice.ratio(260, 480), dice.ratio(0.85, 1.2), dice.ratio(3, 4.2)
    mouth = formants(((750 * throat, 350, 1.0), (1_500 * throat, 450, 0.7), (2_900, 900, 0.25)))

    def bark(_: int) -> Wave:
        envelope_S = swell(0.7 / rate_hz, 0.12, 0.6)
        place_S = np.linspace(0, 1, len(envelope_S))
        pitch_hz_S = pitch_hz * (0.8 + 0.5 * np.sin(np.pi * place_S**0.6))
        pitch_hz_S *= 1 + 0.08 * wander(len(envelope_S), 90, dice.rng)
        rough_S = harmonic(pitch_hz_S, rolloff(24, 0.6), dice.rng)
        rough_S += 0.8 * hiss(len(envelope_S), 500, 3_000, dice.rng)
        return filtered(rough_S, mouth) * envelope_S

    return repeated(dice, samples, 1 / rate_hz, 0.06, bark)


def robot(dice: Dice, samples: int) -> Wave:
    """Return beeps: steps of a square wave, ring-modulated."""
    low_hz, rate_hz, ring_hz = dice.ratio(380, 620), dice.ratio(8, 13), dice.ratio(50, 110)
    odd = np.where(np.arange(1, 16) % 2, 1.0 / np.arange(1, 16), 0.0)

    def beep(_: int) -> Wave:
        envelope_S = swell(0.85 / rate_hz, 0.05, 0.05)
        pitch_hz = low_hz * 2 ** (dice.rng.integers(0, 9) / 4)
        return harmonic(np.full(len(envelope_S), pitch_hz), odd, dice.rng) * envelope_S

    beeps_S = repeated(dice, samples, 1 / rate_hz, 0.0, beep)
    return beeps_S * np.sin(2 * np.pi * (ring_hz * seconds(samples) + dice.rng.random()))


def trumpet(dice: Dice, samples: int) -> Wave:
    """Return notes of a brass instrument: bright, brightest after the attack, with vibrato."""
    root_hz, rate_hz, shine = dice.ratio(260, 420), dice.ratio(2.6, 4.5), dice.between(0.5, 0.9)
    tube = formants(((1_200, 1_000, 1.0), (2_400, 1_800, 0.6)))
    vibrato_hz = dice.ratio(4.8, 6.2)

    def note(_: int) -> Wave:
        envelope_S = swell(0.92 / rate_hz, 0.12, 0.15)
        pitch_hz = root_hz * 2 ** (SCALE[dice.rng.integers(7)] / 12)
        turn_S = np.sin(2 * np.pi * vibrato_hz * seconds(len(envelope_S)))
        pitch_hz_S = pitch_hz * (1 + 0.008 * turn_S)
        dull_S = harmonic(pitch_hz_S, rolloff(20, 2.0), dice.rng)
        bright_S = harmonic(pitch_hz_S, rolloff(20, shine), dice.rng)
        return dull_S * envelope_S + filtered(bright_S, tube) * envelope_S**3

    return repeated(dice, samples, 1 / rate_hz, 0.02, note)


def sheep(dice: Dice, samples: int) -> Wave:
    """Return baas: a nasal voice that trembles."""
    pitch_hz, shake_hz, rate_hz = dice.ratio(190, 330), dice.ratio(8, 13), dice.ratio(1.2, 1.8)
    throat = dice.ratio(0.88, 1.15)
    nose = formants(((620 * throat, 160, 1.0), (1_750 * throat, 260, 0.8), (2_700, 500, 0.4)))

    def baa(_: int) -> Wave:
        envelope_S = swell(0.88 / rate_hz, 0.12, 0.25)
        tremble_S = np.sin(2 * np.pi * (shake_hz * seconds(len(envelope_S)) + dice.rng.random()))
        pitch_hz_S = pitch_hz * (1 + 0.06 * tremble_S - 0.1 * np.linspace(0, 1, len(envelope_S)))
        voice_S = filtered(harmonic(pitch_hz_S, rolloff(30, 0.6), dice.rng), nose)
        return voice_S * envelope_S * (0.6 + 0.4 * tremble_S)

    return repeated(dice, samples, 1 / rate_hz, 0.04, baa)
