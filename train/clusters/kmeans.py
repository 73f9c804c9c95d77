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


class Clusters(NamedTuple):
    """What puts a vector into a cluster, float32: the way to its components, and all centres."""

    mean_D: Floats
    deviation_D: Floats
    axis_PD: Floats
    spread_P: Floats
    centre_KP: Floats

    def numbers(self, vector_ND: Floats) -> NDArray[np.int64]:
        """Return the number [N] of the nearest cluster, from 0."""
        component_NP = _normal(self.mean_D, self.deviation_D, vector_ND) @ self.axis_PD.T
        offset_NKP = (component_NP / self.spread_P)[:, None] - self.centre_KP
        number_N: NDArray[np.int64] = np.square(offset_NKP).sum(-1).argmin(1)
        return number_N


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
    mean_D, deviation_D = vector_ND.mean(0), vector_ND.std(0)
    normal_ND = _normal(mean_D, deviation_D, vector_ND)
    _, axes = cv2.PCACompute(normal_ND, np.empty(0), maxComponents=components)
    axis_PD: Floats = np.array(axes, np.float32)
    component_NP = normal_ND @ axis_PD.T
    spread_P = component_NP.std(0) + 1e-6
    white_NP = (component_NP / spread_P).astype(np.float32)
    cv2.setRNGSeed(seed)
    begin_N1 = np.zeros((len(white_NP), 1), np.int32)
    _, number_N1, centres = cv2.kmeans(
        white_NP, count, begin_N1, _ENOUGH, ATTEMPTS, cv2.KMEANS_PP_CENTERS
    )
    centre_KP: Floats = np.array(centres, np.float32)
    clusters = Clusters(mean_D, deviation_D, axis_PD, spread_P, centre_KP)
    return clusters, np.asarray(number_N1, np.int32).ravel()


def _normal(mean_D: Floats, deviation_D: Floats, vector_ND: Floats) -> Floats:
    normal_ND: Floats = (vector_ND - mean_D) / (deviation_D + 1e-6)
    return normal_ND
