"""Clusters: groups that are there are found, always alike, and later vectors fall into them."""

import numpy as np
import pytest

from denseav.train.clusters.kmeans import fit_clusters

GROUPS, EACH, SIZE = 3, 40, 6


def grouped(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    centre_KD = 8 * np.random.default_rng(5).standard_normal((GROUPS, SIZE))
    spread_D = 10.0 ** np.arange(SIZE)  # of coordinates as unlike as those of features
    vectors = centre_KD.repeat(EACH, 0) + random.standard_normal((GROUPS * EACH, SIZE))
    return (vectors * spread_D).astype(np.float32)


def test_groups_are_found_and_later_vectors_fall_into_them() -> None:
    vector_ND = grouped(0)
    clusters, number_N = fit_clusters(vector_ND, GROUPS, 4, seed=1)
    of_group = number_N.reshape(GROUPS, EACH)
    assert (of_group == of_group[:, :1]).all()
    assert sorted(of_group[:, 0]) == [*range(GROUPS)]
    assert (clusters.numbers(vector_ND) == number_N).all()
    assert (clusters.numbers(grouped(9)) == number_N).all()


@pytest.mark.parametrize("seed", [1, 2**31 - 1])
def test_the_same_vectors_and_seed_give_the_same_clusters(seed: int) -> None:
    vector_ND = np.random.default_rng(3).standard_normal((200, SIZE)).astype(np.float32)
    one, of_one = fit_clusters(vector_ND, 2, SIZE, seed)
    other, of_other = fit_clusters(vector_ND, 2, SIZE, seed)
    assert (of_one == of_other).all()
    assert all((a == b).all() for a, b in zip(one, other, strict=True))
