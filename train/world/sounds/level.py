"""One form for everything that is heard in the world: the same level, colour and edges.

Sounds and speech both pass through here, so that neither loudness nor the room tells them apart.
It also makes the noise of rooms. It knows no class and no word. Axes: S samples at 16 kHz.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from denseav.models.audio_encoder import SAMPLE_RATE_HZ

LEVEL_DBFS = -23.0
"""RMS over the active parts of every wave."""
PEAK = 0.5
"""Where the soft limiter of the first pass bends; the waves end below full scale."""
FADE_S = 0.006
FRAME_S = 0.02
GATE = 1e-3
"""A frame is active within 30 dB of the loudest one."""

Wave = NDArray[np.float64]


def level(wave_S: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return a wave [S] at the common active level, softly limited, faded over 6 ms at both ends.

    A wave without any sound stays as it is. Applied again it changes nothing but the fades.
    """
    loudness = active_rms(wave_S)
    if loudness == 0:
        return wave_S.astype(np.float32)
    target = 10 ** (LEVEL_DBFS / 20)
    gain = target / loudness
    limited_S = PEAK * np.tanh(np.asarray(wave_S, dtype=np.float64) * gain / PEAK)
    limited_S *= target / active_rms(limited_S)
    faded_S = np.clip(limited_S, -0.99, 0.99) * _edges(len(wave_S))
    return np.asarray(faded_S, dtype=np.float32)


def active_rms(wave_S: NDArray[np.floating[Any]]) -> float:
    """Return the RMS over the 20 ms frames that are within 30 dB of the loudest, 0 for silence."""
    frame = round(FRAME_S * SAMPLE_RATE_HZ)
    padded_S = np.pad(np.asarray(wave_S, dtype=np.float64), (0, -len(wave_S) % frame))
    power_F = np.mean(padded_S.reshape(-1, frame) ** 2, axis=1)
    active_F = power_F[power_F > GATE * power_F.max(initial=0.0)]
    return float(np.sqrt(active_F.mean())) if active_F.size else 0.0


def noise(rng: Generator, samples: int) -> NDArray[np.float32]:
    """Return room noise [S] at the common level, of random colour: hum to hiss, with resonances.

    Parameters
    ----------
    rng : Generator
        Source of the colour and of the noise.
    samples : int
        Its length at 16 kHz.
    """
    slope = rng.uniform(0.0, 1.1)
    centres_hz = np.exp(rng.uniform(np.log(80), np.log(6_000), 3))
    widths = rng.uniform(0.15, 0.7, 3)
    heights = rng.uniform(0.0, 1.6, 3)

    def gain(frequency_hz: Wave) -> Wave:
        octaves = np.log(np.maximum(frequency_hz, 30.0) / 30.0)
        bumps = sum(
            height * np.exp(-0.5 * (np.log(np.maximum(frequency_hz, 1.0) / centre) / width) ** 2)
            for height, centre, width in zip(heights, centres_hz, widths, strict=True)
        )
        shaped: Wave = np.exp(bumps - slope * octaves) * (frequency_hz > 25)
        return shaped

    return level(filtered(rng.standard_normal(samples), gain))


def coloured(wave_S: Wave, rng: Generator) -> Wave:
    """Return a wave [S] as another microphone hears it: tilted and bent by some decibels."""
    tilt_db, bend_db = rng.uniform(-2.5, 2.5), rng.uniform(-3, 3)
    turn = rng.uniform(0, 2 * np.pi)

    def gain(frequency_hz: Wave) -> Wave:
        octaves = np.log2(np.maximum(frequency_hz, 60.0) / 800.0)
        curve_db = tilt_db * octaves / 1.5 + bend_db * np.sin(1.7 * octaves + turn)
        curve: Wave = 10 ** (curve_db / 20)
        return curve

    return filtered(wave_S, gain)


def filtered(wave_S: Wave, gain: Callable[[Wave], Wave]) -> Wave:
    """Return a wave [S] with every frequency multiplied by `gain` of it, in hertz."""
    length = len(wave_S) + 512
    length += -length % 1024
    frequency_hz = np.fft.rfftfreq(length, 1 / SAMPLE_RATE_HZ)
    spectrum = np.fft.rfft(wave_S, length) * gain(np.asarray(frequency_hz, dtype=np.float64))
    return np.fft.irfft(spectrum, length)[: len(wave_S)]


def _edges(samples: int) -> Wave:
    """Return the gain [S] that opens and closes a wave."""
    fade = FADE_S * SAMPLE_RATE_HZ
    position_S = np.arange(samples)
    nearest_S = np.minimum(position_S, samples - 1 - position_S)
    return np.clip(nearest_S / fade, 0, 1)
