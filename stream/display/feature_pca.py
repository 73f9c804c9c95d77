"""Feature colours: dense features [K, C, H, W] of frame after frame, to colours that stay theirs.

The first three principal components are red, green and blue, as in the figures of Hamilton et
al. (2024). Mean, covariance and contrast are running ones, of the past alone, and the axes turn
as little as the new ones allow: the same thing keeps its colour from picture to picture.

Axes: K heads, C channels, H W the feature grid, N places of it, D = K C dimensions, R directions.
"""

import math

import numpy as np
from numpy.typing import NDArray

from denseav.stream.display.drawing import NIGHT

_ADAPT_S = 20.0  # the past that counts, once so much has been seen
_TURN_S = 2.0  # how long the colours take to follow the axes
_DIRECTIONS = 8  # of the covariance that are kept: what may become one of the first three
_PLACES = 64  # of a picture that the statistics see; others in the next picture
_FIRST_PLACES = 256
_DEVIATIONS = 2.5  # on either side of the mean, from dark to bright
_SMALL = 1e-12


class FeatureColours:
    """What the colours mean in one run."""

    def __init__(self) -> None:
        self._weight = 0.0
        self._turn = 0  # which places the statistics see next
        self._last_s = 0.0
        self._mean_D = np.zeros(0, np.float32)
        self._spread_RD = np.zeros((0, 0), np.float32)  # directions, as long as their deviation
        self._axes_3D = np.zeros((0, 0), np.float32)
        self._variance_3 = np.zeros(3, np.float32)

    def colour(self, features_KCHW: NDArray[np.float32], time_s: float) -> NDArray[np.uint8]:
        """Return the picture of features, uint8 `[H, W, 3]`, blue-green-red.

        Places whose features are not numbers, as between the pictures of several cameras, change
        nothing, and are dark.
        """
        heads, channels, height, width = features_KCHW.shape
        all_ND = features_KCHW.reshape(heads * channels, height * width).T
        known_N = np.isfinite(all_ND).all(axis=1)
        rgb_HW3 = np.full((height, width, 3), NIGHT, np.uint8)
        if known_N.any():
            rgb_HW3[known_N.reshape(height, width)] = self._coloured(all_ND[known_N], time_s)
        return np.ascontiguousarray(rgb_HW3[..., ::-1])

    def _coloured(self, places_ND: NDArray[np.float32], time_s: float) -> NDArray[np.uint8]:
        self._adapt(places_ND, time_s)
        value_N3 = (places_ND - self._mean_D) @ self._axes_3D.T
        self._variance_3 += (value_N3.var(axis=0) - self._variance_3) / max(self._weight, 1)
        half_3 = _DEVIATIONS * np.sqrt(np.maximum(self._variance_3, _SMALL))
        unit_N3 = np.clip(0.5 + 0.5 * value_N3 / half_3, 0, 1)
        return np.rint(255 * unit_N3).astype(np.uint8)

    def _adapt(self, places_ND: NDArray[np.float32], time_s: float) -> None:
        """Take one picture into the running statistics, and turn the axes after them."""
        first = not self._axes_3D.size
        passed_s = max(0.0, time_s - self._last_s)
        self._last_s = time_s
        kept = 0.0 if first else math.exp(-passed_s / _ADAPT_S)
        self._weight = kept * self._weight + 1
        share = 1 / self._weight  # of this picture: a plain average until the past is long enough
        stride = max(1, len(places_ND) // (_FIRST_PLACES if first else _PLACES))
        self._turn = (self._turn + 1) % stride
        some_ND = places_ND[self._turn :: stride]
        mean_D = some_ND.mean(axis=0)
        if first:
            self._mean_D = mean_D
            self._spread_RD = _spread((some_ND - mean_D) / math.sqrt(len(some_ND)))
            self._axes_3D = _facing(_unit(self._spread_RD[:3]))
            return
        moved_D = mean_D - self._mean_D
        parts = (
            math.sqrt(1 - share) * self._spread_RD,
            math.sqrt(share / len(some_ND)) * (some_ND - mean_D),
            math.sqrt(share * (1 - share)) * moved_D[None],
        )
        self._spread_RD = _spread(np.concatenate(parts))
        self._mean_D = self._mean_D + share * moved_D
        self._follow(1 - math.exp(-passed_s / _TURN_S))

    def _follow(self, share: float) -> None:
        """Turn the axes some way towards the nearest ones that span the new first three."""
        new_3D = _unit(self._spread_RD[:3])
        nearest_3D = _orthonormal(self._axes_3D @ new_3D.T) @ new_3D
        self._axes_3D = _orthonormal((1 - share) * self._axes_3D + share * nearest_3D)


def _spread(rows_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the main directions of the sum of the rows' outer products, the longest first."""
    power_N, mix_NN = np.linalg.eigh(rows_ND @ rows_ND.T)
    chosen = np.argsort(power_N)[::-1][:_DIRECTIONS]
    return np.asarray(mix_NN[:, chosen].T @ rows_ND, np.float32)


def _unit(rows_RD: NDArray[np.float32]) -> NDArray[np.float32]:
    length_R1 = np.linalg.norm(rows_RD, axis=1, keepdims=True)
    return np.asarray(rows_RD / np.maximum(length_R1, _SMALL), np.float32)


def _facing(rows_RD: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn each row so that its sum is positive: the same picture begins with the same colours."""
    return np.asarray(rows_RD * np.where(rows_RD.sum(axis=1, keepdims=True) < 0, -1, 1), np.float32)


def _orthonormal(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the nearest orthonormal rows, as orthogonal Procrustes has them."""
    left, _, right = np.linalg.svd(rows, full_matrices=False)
    return np.asarray(left @ right, np.float32)
