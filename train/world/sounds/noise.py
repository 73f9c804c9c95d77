"""The world's machines and waters. Axes: S samples at 16 kHz."""

import numpy as np

from denseav.models.audio_encoder import SAMPLE_RATE_HZ
from denseav.train.world.sounds.level import Wave, filtered
from denseav.train.world.sounds.synthesis import (
    Dice,
    band,
    harmonic,
    hiss,
    rolloff,
    seconds,
    wander,
)


def tractor(dice: Dice, samples: int) -> Wave:
    """Return an engine that idles: puffs of the exhaust, a hum and some rattle."""
    firing_hz = dice.ratio(17, 32)
    turns_S = np.cumsum(firing_hz * (1 + 0.08 * wander(samples, 2, dice.rng))) / SAMPLE_RATE_HZ
    turns_S += dice.rng.random() * 4
    since_S = np.mod(turns_S, 1.0)
    uneven_S = dice.rng.uniform(0.7, 1.0, 4)[turns_S.astype(np.int64) % 4]
    pipe_hz = dice.ratio(80, 140)
    puff_S = np.sin(2 * np.pi * pipe_hz * since_S / firing_hz) * np.exp(-4 * since_S)
    rattle_S = hiss(samples, 250, dice.ratio(700, 1_300), dice.rng) * np.exp(-6 * since_S)
    hum_S = harmonic(np.full(samples, 2 * firing_hz), rolloff(12, 1.0), dice.rng)
    engine_S: Wave = uneven_S * (2 * puff_S + 0.7 * rattle_S) + 0.3 * hum_S
    return engine_S


def kettle(dice: Dice, samples: int) -> Wave:
    """Return a whistle that trembles over the hiss of steam and the rumble of the boil."""
    pitch_hz, tremble_hz = dice.ratio(1_700, 2_600), dice.ratio(6, 11)
    time_S = seconds(samples)
    tremble_S = np.sin(2 * np.pi * (tremble_hz * time_S + dice.rng.random()))
    pitch_hz_S = pitch_hz * (1 + 0.012 * tremble_S + 0.03 * wander(samples, 1.5, dice.rng))
    whistle_S = harmonic(pitch_hz_S, np.array([1.0, 0.3, 0.1]), dice.rng)
    steam_S = hiss(samples, 3_500, 7_500, dice.rng) * dice.between(0.25, 0.5)
    boil_S = hiss(samples, 100, 350, dice.rng) * (1 + wander(samples, 25, dice.rng))
    return whistle_S * (0.8 + 0.2 * tremble_S) + steam_S + 0.2 * boil_S


def fountain(dice: Dice, samples: int) -> Wave:
    """Return splashing water: many bubbles that rise in pitch, over a soft rush."""
    rush_S = hiss(samples, dice.ratio(900, 1_600), dice.ratio(3_000, 5_500), dice.rng)
    total_S = rush_S * (0.35 + 0.1 * wander(samples, 8, dice.rng))
    low_hz = dice.ratio(450, 800)
    count = round(samples / SAMPLE_RATE_HZ * dice.ratio(45, 80))
    for first in dice.rng.integers(-400, samples, count):
        pitch_hz = low_hz * 2 ** dice.rng.uniform(0, 2)
        decay_s = dice.rng.uniform(0.006, 0.02)
        time_S = seconds(round(5 * decay_s * SAMPLE_RATE_HZ))[: samples - first]
        turns_S = pitch_hz * time_S * (1 + 6 * time_S)
        drop_S = np.sin(2 * np.pi * turns_S) * np.exp(-time_S / decay_s)
        drop_S = drop_S[max(-first, 0) :] * dice.rng.uniform(0.3, 1.4)
        total_S[max(first, 0) : max(first, 0) + len(drop_S)] += drop_S
    return total_S


def helicopter(dice: Dice, samples: int) -> Wave:
    """Return a rotor: air chopped by the blades, and a turbine's whine."""
    blade_hz, whine_hz = dice.ratio(10, 16), dice.ratio(2_100, 3_200)
    turns_S = seconds(samples) * blade_hz + dice.rng.random()
    chop_S = np.maximum(np.sin(2 * np.pi * turns_S), 0) ** dice.ratio(2, 4)
    air_S = hiss(samples, 120, dice.ratio(1_800, 3_000), dice.rng)
    thump_S = np.sin(2 * np.pi * 5 * turns_S) * chop_S
    whine_S = harmonic(
        whine_hz * (1 + 0.004 * wander(samples, 5, dice.rng)), np.array([1.0, 0.0]), dice.rng
    )
    return air_S * (0.12 + chop_S) + 0.6 * thump_S + 0.12 * whine_S


def rocket(dice: Dice, samples: int) -> Wave:
    """Return a roar: deep noise that surges, and the crackle of the flame."""
    roar_S = hiss(samples, 40, dice.ratio(130, 260), dice.rng)
    surge_S = np.exp(wander(samples, dice.ratio(14, 24), dice.rng))
    flame_S = hiss(samples, 300, dice.ratio(1_200, 2_200), dice.rng)
    sizes_S = dice.rng.uniform(2, 6, samples) * dice.rng.choice((-1, 1), samples)
    sparks_S = sizes_S * (dice.rng.random(samples) < dice.ratio(60, 130) / SAMPLE_RATE_HZ)
    crackle_S = filtered(sparks_S, band(200, 2_500))
    return surge_S * (roar_S + 0.25 * flame_S) + dice.between(1.2, 1.8) * crackle_S
