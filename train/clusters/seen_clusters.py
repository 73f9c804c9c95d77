"""Clusters by what is heard and by how much pictures tell of it: an unlabelled bank enters.

Two sounds that are alike come with pictures that are alike, for it is the thing that sounds. Two
spoken names that are alike are so by the voice, of which a picture says nothing. So of each clip it
is asked whether those that sound like it come with pictures like each other's more than any two
do, and the answer is one more coordinate of k-means, which weighs twice as much as all of its
audio's where pictures tell of some clips and not of others. A sound that is made like a voice is
with the sounds then. Nothing of this is the papers'.

N clips of the bank, B of any, D and E coordinates of audio and pictures, Q components, K clusters.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from denseav.train.clusters.kmeans import Floats, Whitening, fit_whitening, kmeans, nearest

COMPONENTS = 12
"""Of audio, by which clips are alike."""
PICTURE_COMPONENTS = 24
ALIKE = 16
"""Of so many clips it is asked, itself left out."""
LEAST = 0.02
"""Similarity of pictures, a cosine, below which clips differ no more."""
LEAST_SPREAD = 1.0
"""Deviation of that similarity's logarithm at which it weighs in full; where pictures tell nothing
there is less, and it is chance."""


class SeenClusters(NamedTuple):
    """What puts a clip's audio into a cluster, float32; the bank's clips say what pictures tell."""

    mean_D: Floats
    deviation_D: Floats
    axis_QD: Floats
    spread_Q: Floats
    bank_NQ: Floats
    told_N: Floats
    scale_2: Floats
    centre_KP: Floats

    def numbers(self, vector_BD: Floats) -> NDArray[np.int64]:
        """Return the number [B] of the nearest cluster, from 0."""
        return nearest(self.points(vector_BD), self.centre_KP)

    def points(self, vector_BD: Floats) -> Floats:
        """Return the coordinates [B, P]: components of the audio, and what pictures tell."""
        white_BQ = Whitening(*self[:4]).of(vector_BD)
        told_B = self.told_N[_alike(white_BQ, self.bank_NQ, _count(self.told_N) + 1)].mean(1)
        mean, scale = self.scale_2
        told_B1 = ((np.log(np.maximum(told_B, LEAST)) - mean) * scale)[:, None]
        own = self.centre_KP.shape[1] - 1
        return np.concatenate((white_BQ[:, :own], told_B1), axis=1).astype(np.float32)


def fit_seen_clusters(
    vector_ND: Floats, seen_NE: Floats, count: int, components: int, seed: int
) -> tuple[SeenClusters, NDArray[np.int32]]:
    """Put clips into clusters, always alike.

    Parameters
    ----------
    vector_ND, seen_NE : of each clip's audio and of its picture; at least as many as clusters.
    count : of clusters, K.
    components : how many principal components of the audio count; at most `COMPONENTS`.
    seed : of the first centres; below 2**31.

    Returns
    -------
    clusters, numbers : and which each clip is in, int32 [N].
    """
    most = min(COMPONENTS, *vector_ND.shape)
    whitening = fit_whitening(vector_ND, most)
    bank_NQ = whitening.of(vector_ND)
    told_N = _told(bank_NQ, seen_NE)
    smooth_N = told_N[_alike(bank_NQ, bank_NQ, _count(told_N) + 1)].mean(1)
    log_N = np.log(np.maximum(smooth_N, LEAST))
    own = min(components, most)
    scale_2 = np.array(
        (log_N.mean(), np.sqrt(2 * own) / max(log_N.std(), LEAST_SPREAD)), np.float32
    )
    blank_KP = np.zeros((count, own + 1), np.float32)
    clusters = SeenClusters(*whitening, bank_NQ, told_N, scale_2, blank_KP)
    centre_KP, number_N = kmeans(clusters.points(vector_ND), count, seed)
    return clusters._replace(centre_KP=centre_KP), number_N


def _told(bank_NQ: Floats, seen_NE: Floats) -> Floats:
    """Return how much more like each clip's the pictures of its like are than those of any [N]."""
    white_NE = fit_whitening(seen_NE, min(PICTURE_COMPONENTS, *seen_NE.shape)).of(seen_NE)
    unit_NE = white_NE / (np.linalg.norm(white_NE, axis=1, keepdims=True) + 1e-6)
    alike_NN = unit_NE @ unit_NE.T
    np.fill_diagonal(alike_NN, 0)
    clips = len(alike_NN)
    itself_N1 = np.arange(clips)[:, None]
    near_Nn = _alike(bank_NQ, bank_NQ, _count(bank_NQ) + 1)
    # Itself is always among them, and its picture counts nothing.
    told_N = alike_NN[itself_N1, near_Nn].sum(1) / _count(bank_NQ)
    more_N: Floats = (told_N - alike_NN.sum() / (clips * (clips - 1))).astype(np.float32)
    return more_N


def _alike(point_BQ: Floats, bank_NQ: Floats, count: int) -> NDArray[np.intp]:
    """Return which clips of the bank each point is nearest to [B, count]."""
    square_BN = np.square(point_BQ).sum(1)[:, None] - 2 * point_BQ @ bank_NQ.T
    return np.argpartition(square_BN + np.square(bank_NQ).sum(1), count - 1, axis=1)[:, :count]


def _count(bank: Floats) -> int:
    return min(ALIKE, len(bank) // 4)
