"""Clusters by what pictures tell, too: a sound that is like a voice is with the sounds."""

import numpy as np
import pytest

from denseav.train.clusters.kmeans import fit_clusters
from denseav.train.clusters.seen_clusters import SeenClusters, fit_seen_clusters

THINGS, VOICES, EACH = 8, 8, 40
LIKE_A_VOICE = 0
Bank = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def bank(seed: int) -> Bank:
    """Return audio, pictures, whether each clip is spoken, and its thing or voice.

    Audio is of a thing or of a voice, and of a kind, but that one thing sounds as voices do.
    Pictures are of a thing, spoken of or not.
    """
    world, random = np.random.default_rng(3), np.random.default_rng(seed)
    sounding_TD, voice_VD = (world.standard_normal((n, 12)) for n in (THINGS, VOICES))
    looking_TE = 3 * world.standard_normal((THINGS, 30))
    spoken_N = np.arange(2 * THINGS * EACH) % 2 == 1
    which_N = random.integers(THINGS, size=len(spoken_N))
    named_N = np.where(spoken_N, random.integers(THINGS, size=len(spoken_N)), which_N)
    own_ND = np.where(spoken_N[:, None], voice_VD[which_N], sounding_TD[which_N])
    voiced_N = spoken_N | (which_N == LIKE_A_VOICE)
    audio_ND = np.concatenate((own_ND, 12 * voiced_N[:, None] * np.ones((1, 6))), axis=1)
    audio_ND += 0.3 * random.standard_normal(audio_ND.shape)
    picture_NE = looking_TE[named_N] + random.standard_normal((len(spoken_N), 30))
    return audio_ND.astype(np.float32), picture_NE.astype(np.float32), spoken_N, which_N


@pytest.fixture(scope="module")
def found() -> tuple[SeenClusters, np.ndarray]:
    audio_ND, picture_NE, _, _ = bank(0)
    return fit_seen_clusters(audio_ND, picture_NE, 2, 2, seed=1)


def right(number_N: np.ndarray, spoken_N: np.ndarray) -> np.ndarray:
    same_N = number_N == spoken_N
    return same_N if same_N.mean() > 0.5 else ~same_N


def test_what_pictures_tell_of_is_together_even_if_it_is_heard_elsewhere(
    found: tuple[SeenClusters, np.ndarray],
) -> None:
    audio_ND, _, spoken_N, which_N = bank(0)
    voiced_N = ~spoken_N & (which_N == LIKE_A_VOICE)
    by_audio_N = right(fit_clusters(audio_ND, 2, 2, seed=1)[1], spoken_N)
    assert not by_audio_N[voiced_N].any()
    assert right(found[1], spoken_N).mean() > 0.98
    assert right(found[1], spoken_N)[voiced_N].mean() > 0.9


def test_later_clips_fall_into_them_by_their_audio_alone(
    found: tuple[SeenClusters, np.ndarray],
) -> None:
    clusters, number_N = found
    audio_ND, _, spoken_N, _ = bank(0)
    assert (clusters.numbers(audio_ND) == number_N).all()
    assert (clusters.numbers(audio_ND[7:8]) == number_N[7:8]).all()
    later_ND, _, later_spoken_N, _ = bank(9)
    assert right(clusters.numbers(later_ND), later_spoken_N).mean() > 0.97
    assert (number_N == spoken_N).mean() > 0.98 or (number_N != spoken_N).mean() > 0.98


def test_pictures_that_tell_nothing_leave_clusters_of_audio() -> None:
    audio_ND, picture_NE, spoken_N, which_N = bank(0)
    shuffled_NE = np.random.default_rng(5).permutation(picture_NE)
    clusters, number_N = fit_seen_clusters(audio_ND, shuffled_NE, 2, 2, seed=1)
    voiced_N = spoken_N | (which_N == LIKE_A_VOICE)
    assert right(number_N, voiced_N).mean() > 0.9
    again, number_again_N = fit_seen_clusters(audio_ND, shuffled_NE, 2, 2, seed=1)
    assert (number_again_N == number_N).all()
    assert all((a == b).all() for a, b in zip(clusters, again, strict=True))
