"""Pictures and sounds to calibrate and compare with: made from a seed, the same everywhere.

They exercise a network's numbers (edges, textures, harmonics, onsets); they say nothing about
how well a model localises. Axes: N items, H W pixels, S samples at 16 kHz.
"""

import numpy as np
from numpy.typing import NDArray

from denseav.export.runtime.bundle import SAMPLE_RATE_HZ
from denseav.export.runtime.proof import Probes, shrunk_size

_PROBES = 2
_PROBE_SAMPLES = 6_400  # 0.4 s, repeated until the window is full
_PROBE_SEED = 7
_NOISE_DBFS = (-50, -35, -20)


def frames(count: int, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return pictures `uint8 [N, H, W, 3]`: coloured blobs over cloudy backgrounds."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    pictures = np.empty((count, height, width, 3), dtype=np.uint8)
    for picture in pictures:
        image_HW3 = _clouds(rng, height, width)
        for _ in range(rng.integers(2, 6)):
            centre = rng.uniform(0, 1, 2) * (height, width)
            radii = rng.uniform(0.05, 0.3, 2) * height
            inside = ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2
            image_HW3[inside < 1] = 0.3 * image_HW3[inside < 1] + 0.7 * rng.uniform(0, 1, 3)
        picture[:] = np.clip(image_HW3 * 255, 0, 255)
    return pictures


def sounds(count: int, samples: int, seed: int = 0) -> NDArray[np.float32]:
    """Return sounds `float32 [N, S]`: gliding harmonics in bursts, as voices and calls have."""
    rng = np.random.default_rng(seed)
    time_S = np.arange(samples) / SAMPLE_RATE_HZ
    waves = np.empty((count, samples), dtype=np.float32)
    for wave in waves:
        pitch_S = rng.uniform(90, 900) * 2 ** (rng.uniform(0.1, 0.8) * np.sin(2 * time_S))
        phase_S = 2 * np.pi * np.cumsum(pitch_S) / SAMPLE_RATE_HZ
        weights = rng.uniform(0, 1, 8) / np.arange(1, 9)
        tone_S = sum(w * np.sin(n * phase_S) for n, w in enumerate(weights, start=1))
        bursts_S = np.clip(np.sin(2 * np.pi * rng.uniform(1, 4) * time_S), 0, None)
        wave[:] = _at_dbfs(tone_S * bursts_S + 0.01 * rng.standard_normal(samples), -20)
    return waves


def negatives(samples: int, seed: int = 0) -> NDArray[np.float32]:
    """Return sounds `float32 [N, S]` that come from nothing: silence, and noise at three levels."""
    rng = np.random.default_rng(seed)
    noise = [_at_dbfs(rng.standard_normal(samples), level) for level in _NOISE_DBFS]
    return np.stack([np.zeros(samples, dtype=np.float32), *noise])


def probes(height: int, width: int, tokens: int) -> Probes:
    """Return what a bundle of such frames and windows carries, but for the heatmaps."""
    sounds_PS = sounds(_PROBES, _PROBE_SAMPLES, seed=_PROBE_SEED)
    return Probes(
        pictures_Phw3=frames(_PROBES, *shrunk_size(height, width), seed=_PROBE_SEED),
        sounds_PS=np.round(np.clip(sounds_PS, -1, 1) * 32767).astype(np.int16),
        tokens=np.unique([0, tokens // 2, tokens - 1]),
    )


def _clouds(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    """Return noise whose spectrum falls with frequency, as in natural pictures; [H, W, 3]."""
    vertical = np.fft.fftfreq(height)[:, None, None]
    horizontal = np.fft.fftfreq(width)[None, :, None]
    amplitude = 1 / np.maximum(np.hypot(vertical, horizontal), 1 / height)
    spectrum = amplitude * np.fft.fft2(rng.standard_normal((height, width, 3)), axes=(0, 1))
    noise = np.fft.ifft2(spectrum, axes=(0, 1)).real
    clouds: NDArray[np.float64] = 0.5 + 0.2 * (noise - noise.mean()) / noise.std()
    return clouds


def _at_dbfs(wave_S: NDArray[np.float64], level_dbfs: float) -> NDArray[np.float32]:
    gain = 10 ** (level_dbfs / 20) / np.sqrt(np.mean(wave_S**2))
    return np.asarray(gain * wave_S, dtype=np.float32)
