"""A plain ear for the tests of the world's sounds: log-mel features and the nearest class."""

import numpy as np


def _mel(hz):
    return 2595 * np.log10(1 + hz / 700)


def _filters(bands=32, size=512):
    bins = _mel(np.fft.rfftfreq(size, 1 / 16_000))
    edges = np.linspace(_mel(60.0), _mel(7_600.0), bands + 2)
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.clip(np.minimum(rise, fall), 0, None)


FILTERS = _filters()


def spectrum(wave_S):
    """Return log-mel energies [frames of 10 ms, bands]."""
    padded_S = np.pad(np.asarray(wave_S, dtype=np.float64), (0, 512))
    frames = np.lib.stride_tricks.sliding_window_view(padded_S, 512)[::160] * np.hanning(512)
    return np.log(np.abs(np.fft.rfft(frames)) ** 2 @ FILTERS.T + 1e-4)


def texture(wave_S):
    """Return features of a sound: mean, spread and change of every band, and the rhythm."""
    bands = spectrum(wave_S)
    loudness = bands.mean(1) - bands.mean()
    rhythm = 4 * np.abs(np.fft.rfft(loudness, 256))[:60:2] / len(bands)
    change = np.abs(np.diff(bands, axis=0)).mean(0)
    return np.concatenate([bands.mean(0), bands.std(0), change, rhythm])


def course(wave_S, steps=16):
    """Return features of a word: its bands over so many steps of its own length."""
    bands = spectrum(wave_S)
    bands = bands - bands.mean()
    places = np.linspace(0, len(bands) - 1, steps)
    return np.concatenate([np.interp(places, np.arange(len(bands)), b) for b in bands.T])


def accuracy(train_NF, train_labels, test_NF, test_labels):
    """Return the share of test items nearest to their own class's mean, classes whitened."""
    centre, scale = train_NF.mean(0), train_NF.std(0) + 1e-3
    train_NF, test_NF = (train_NF - centre) / scale, (test_NF - centre) / scale
    means = np.array([train_NF[train_labels == c].mean(0) for c in range(train_labels.max() + 1)])
    inside = train_NF - means[train_labels]
    cover = inside.T @ inside / len(inside)
    cover = 0.8 * cover + 0.2 * np.eye(len(cover)) * np.trace(cover) / len(cover)
    root = np.linalg.cholesky(np.linalg.inv(cover))
    distance = np.sum((test_NF @ root)[:, None] ** 2, -1) + np.sum((means @ root) ** 2, -1)
    distance = distance - 2 * (test_NF @ root) @ (means @ root).T
    return float(np.mean(distance.argmin(1) == test_labels))
