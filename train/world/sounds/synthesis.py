"""What the world's sounds are made of: dice, struck modes, noise, harmonic sources, repetition.

Every class is a choice among these few templates, so that no template gives a class away.
Axes: S samples at 16 kHz, P partials.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from denseav.models.audio_encoder import SAMPLE_RATE_HZ
from denseav.train.world.sounds.level import Wave, filtered

BANDS = 9
"""Each range is cut into these; training has the even ones, the held-out split the odd ones."""
TABLE = 2048
BLOCK = 256


class Dice:
    """Draws a sound's parameters from the parts of their ranges that belong to one split."""

    def __init__(self, rng: Generator, *, held_out: bool) -> None:
        self.rng = rng
        self._bands = np.arange(int(held_out), BANDS, 2)

    def between(self, low: float, high: float) -> float:
        """Return a number of the range, uniformly over the split's bands."""
        place = (self.rng.choice(self._bands) + self.rng.random()) / BANDS
        return float(low + (high - low) * place)

    def ratio(self, low: float, high: float) -> float:
        """Return a number of the range, uniformly in its logarithm: for pitches and rates."""
        return float(np.exp(self.between(np.log(low), np.log(high))))


def seconds(samples: int) -> Wave:
    """Return the time [S] of every sample."""
    return np.arange(samples) / SAMPLE_RATE_HZ


def modes(pitches_hz: Wave, gains: Wave, decays_s: Wave, rng: Generator, length_s: float) -> Wave:
    """Return struck modes [S]: decaying sines of random phase, each P with its own decay."""
    samples = round(length_s * SAMPLE_RATE_HZ)
    rate_P = (-1 / np.asarray(decays_s) + 2j * np.pi * np.asarray(pitches_hz)) / SAMPLE_RATE_HZ
    start_P = np.asarray(gains) * np.exp(2j * np.pi * rng.random(len(rate_P)))
    start_P = start_P * (np.asarray(pitches_hz) < 0.47 * SAMPLE_RATE_HZ)
    blocks = -(-samples // BLOCK)
    coarse = np.exp(np.outer(np.arange(blocks) * BLOCK, rate_P)) * start_P
    fine = np.exp(np.outer(rate_P, np.arange(BLOCK)))
    struck: Wave = (coarse @ fine).real.ravel()[:samples]
    return struck


def harmonic(pitch_hz_S: Wave, gains: Wave, rng: Generator) -> Wave:
    """Return a periodic wave [S] of a moving pitch, its harmonics with random phases."""
    highest = int(0.47 * SAMPLE_RATE_HZ / pitch_hz_S.max())
    kept = gains[: max(highest, 1)]
    spectrum = np.zeros(TABLE // 2 + 1, dtype=complex)
    spectrum[1 : len(kept) + 1] = kept * np.exp(2j * np.pi * rng.random(len(kept)))
    cycle = np.fft.irfft(spectrum, TABLE) * TABLE / 2
    turns_S = np.cumsum(pitch_hz_S) / SAMPLE_RATE_HZ + rng.random()
    return cycle[(turns_S * TABLE).astype(np.int64) % TABLE]


def rolloff(count: int, power: float) -> Wave:
    """Return the gains of harmonics that fall as a power of their number: 1 is a sawtooth."""
    gains: Wave = np.arange(1, count + 1, dtype=np.float64) ** -power
    return gains


def hiss(samples: int, low_hz: float, high_hz: float, rng: Generator) -> Wave:
    """Return noise [S] of unit power between two frequencies, with soft edges."""
    noise_S = filtered(rng.standard_normal(samples), band(low_hz, high_hz))
    unit_S: Wave = noise_S / np.sqrt(np.mean(noise_S**2) + 1e-12)
    return unit_S


def band(low_hz: float, high_hz: float) -> Callable[[Wave], Wave]:
    """Return the gain of a band-pass that falls by 12 dB an octave on both sides."""

    def gain(frequency_hz: Wave) -> Wave:
        safe_hz = np.maximum(frequency_hz, 1.0)
        passed: Wave = 1 / (1 + (low_hz / safe_hz) ** 2) / (1 + (safe_hz / high_hz) ** 2)
        return passed

    return gain


def formants(peaks: tuple[tuple[float, float, float], ...]) -> Callable[[Wave], Wave]:
    """Return the gain of a throat: peaks of centre in hertz, width in hertz and height."""

    def gain(frequency_hz: Wave) -> Wave:
        total = 0.02 + sum(
            height / (1 + ((frequency_hz - centre) / (width / 2)) ** 2)
            for centre, width, height in peaks
        )
        return np.asarray(total)

    return gain


def repeated(
    dice: Dice, samples: int, period_s: float, jitter: float, make: Callable[[int], Wave]
) -> Wave:
    """Return events [S] one period after the other from a random phase, each with its own wave.

    Parameters
    ----------
    dice : Dice
        Source of the phase, of the jitter and of the loudness of each event.
    samples : int
        Length of the whole.
    period_s : float
        Time from an event to the next.
    jitter : float
        Largest deviation of an event's time, as a share of the period.
    make : callable
        Gives the wave [S] of the event of an index; the first may have begun before the sound.
    """
    period = period_s * SAMPLE_RATE_HZ
    late = dice.rng.random() * 0.6
    total_S = np.zeros(samples)
    for index in range(int(samples / period + late + jitter) + 1):
        first = round((index - late + jitter * dice.rng.uniform(-1, 1)) * period)
        event_S = make(index)[max(-first, 0) : max(samples - first, 0)] * dice.rng.uniform(
            0.75, 1.0
        )
        total_S[max(first, 0) : max(first, 0) + len(event_S)] += event_S
    return total_S


def swell(length_s: float, opening: float, closing: float) -> Wave:
    """Return an envelope [S] that opens and closes within these shares of its length."""
    place_S = np.linspace(0, 1, round(length_s * SAMPLE_RATE_HZ))
    return np.sin(np.pi / 2 * np.clip(np.minimum(place_S / opening, (1 - place_S) / closing), 0, 1))


def wander(samples: int, rate_hz: float, rng: Generator) -> Wave:
    """Return a slow random curve [S] between -1 and 1."""
    knots = max(int(samples / SAMPLE_RATE_HZ * rate_hz) + 2, 3)
    return np.interp(
        np.linspace(0, knots - 1, samples), np.arange(knots), rng.uniform(-1, 1, knots)
    )


Maker = Callable[[Dice, int], Wave]
"""Makes one class's sound [S] of so many samples."""
