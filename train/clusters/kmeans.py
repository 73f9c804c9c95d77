"""Clusters: vectors enter, a number for each leaves, and what puts later vectors into the same.

Coordinates are brought to mean 0 and deviation 1, the first principal components are whitened, and
k-means (Lloyd; Arthur and Vassilvitskii's seeds, 2007) does the rest. It knows of no audio.

N vectors, D coordinates, P components, K clusters.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
ATTEMPTS = 5
_ENOUGH = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 50, 1e-4)


class Whitening(NamedTuple):
    """The way of a vector to its first principal components, each of deviation 1; float32."""

    mean_D: Floats
    deviation_D: Floats
    axis_PD: Floats
    spread_P: Floats

    def of(self, vector_ND: Floats) -> Floats:
        """Return the components [N, P]."""
        component_NP = _normal(self.mean_D, self.deviation_D, vector_ND) @ self.axis_PD.T
        white_NP: Floats = (component_NP / self.spread_P).astype(np.float32)
        return white_NP


class Clusters(NamedTuple):
    """What puts a vector into a cluster, float32: the way to its components, and all centres."""

    mean_D: Floats
    deviation_D: Floats
    axis_PD: Floats
    spread_P: Floats
    centre_KP: Floats

    def numbers(self, vector_ND: Floats) -> NDArray[np.int64]:
        """Return the number [N] of the nearest cluster, from 0."""
        return nearest(Whitening(*self[:4]).of(vector_ND), self.centre_KP)


def fit_whitening(vector_ND: Floats, components: int) -> Whitening:
    """Return the way to the first principal components of vectors [N, D]."""
    mean_D, deviation_D = vector_ND.mean(0), vector_ND.std(0)
    normal_ND = _normal(mean_D, deviation_D, vector_ND)
    _, axes = cv2.PCACompute(normal_ND, np.empty(0), maxComponents=components)
    axis_PD: Floats = np.array(axes, np.float32)
    return Whitening(mean_D, deviation_D, axis_PD, (normal_ND @ axis_PD.T).std(0) + 1e-6)


def fit_clusters(
    vector_ND: Floats, count: int, components: int, seed: int
) -> tuple[Clusters, NDArray[np.int32]]:
    """Put vectors into clusters, always alike.

    Parameters
    ----------
    vector_ND : at least as many as clusters.
    count : of clusters, K.
    components : how many principal components count, P; no more than there are.
    seed : of the first centres; below 2**31.

    Returns
    -------
    clusters, numbers : and which each vector is in, int32 [N].
    """
    whitening = fit_whitening(vector_ND, components)
    centre_KP, number_N = kmeans(whitening.of(vector_ND), count, seed)
    return Clusters(*whitening, centre_KP), number_N


def kmeans(point_NP: Floats, count: int, seed: int) -> tuple[Floats, NDArray[np.int32]]:
    """Return the centres [K, P] of points, and which each point is nearest to, int32 [N]."""
    cv2.setRNGSeed(seed)
    begin_N1 = np.zeros((len(point_NP), 1), np.int32)
    _, number_N1, centres = cv2.kmeans(
        point_NP, count, begin_N1, _ENOUGH, ATTEMPTS, cv2.KMEANS_PP_CENTERS
    )
    return np.array(centres, np.float32), np.asarray(number_N1, np.int32).ravel()


def nearest(point_NP: Floats, centre_KP: Floats) -> NDArray[np.int64]:
    """Return the number [N] of the centre that each point is nearest to."""
    number_N: NDArray[np.int64] = np.square(point_NP[:, None] - centre_KP).sum(-1).argmin(1)
    return number_N


def _normal(mean_D: Floats, deviation_D: Floats, vector_ND: Floats) -> Floats:
    normal_ND: Floats = (vector_ND - mean_D) / (deviation_D + 1e-6)
    return normal_ND
