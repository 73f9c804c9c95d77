"""Features in colours: principal components that keep their meaning from picture to picture."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from denseav.stream.display.drawing import NIGHT
from denseav.stream.display.feature_pca import FeatureColours

HEADS, CHANNELS, HEIGHT, WIDTH = 2, 24, 12, 16


class Scene:
    """Places of four kinds that wander about, each with its own features and some noise."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.kinds = self.random.normal(size=(4, HEADS * CHANNELS)) * [[4], [3], [2.5], [2]]

    def map(self, step: int = 0) -> NDArray[np.int_]:
        y, x = np.mgrid[:HEIGHT, :WIDTH]
        return ((x + step) // 4 + y // 6) % 4

    def features(self, step: int = 0) -> NDArray[np.float32]:
        flat_DN = self.kinds[self.map(step).ravel()].T
        flat_DN = flat_DN + 0.2 * self.random.normal(size=flat_DN.shape)
        return flat_DN.reshape(HEADS, CHANNELS, HEIGHT, WIDTH).astype(np.float32)


def of_kind(colours_HW3: NDArray[np.uint8], kinds_HW: NDArray[np.int_]) -> NDArray[np.float64]:
    """The mean colour of each kind, `[4, 3]`."""
    return np.array([colours_HW3[kinds_HW == kind].mean(axis=0) for kind in range(4)])


def test_alike_places_look_alike_and_others_do_not():
    scene, colours = Scene(), FeatureColours()
    drawn_HW3 = colours.colour(scene.features(), 0.0)
    assert drawn_HW3.shape == (HEIGHT, WIDTH, 3)
    assert drawn_HW3.dtype == np.uint8
    mean_43 = of_kind(drawn_HW3, scene.map())
    for kind in range(4):
        assert drawn_HW3[scene.map() == kind].std(axis=0).max() < 25
        others_33 = np.delete(mean_43, kind, axis=0)
        assert np.abs(others_33 - mean_43[kind]).sum(axis=1).min() > 80


def test_red_is_the_direction_of_the_largest_spread():
    random, long_D = np.random.default_rng(3), np.zeros(HEADS * CHANNELS)
    long_D[5] = 9
    amount_N = random.normal(size=HEIGHT * WIDTH)
    flat_DN = long_D[:, None] * amount_N + random.normal(size=(HEADS * CHANNELS, HEIGHT * WIDTH))
    features = flat_DN.reshape(HEADS, CHANNELS, HEIGHT, WIDTH).astype(np.float32)
    red_N = FeatureColours().colour(features, 0.0)[..., 2].ravel()
    assert abs(np.corrcoef(red_N, amount_N)[0, 1]) > 0.95


def test_a_kind_keeps_its_colour_for_minutes_while_things_move():
    scene, colours = Scene(), FeatureColours()
    first_43 = of_kind(colours.colour(scene.features(), 0.0), scene.map())
    for i in range(1, 600):
        drawn_HW3 = colours.colour(scene.features(i // 10), i / 5)
        if i % 5 == 0:
            now_43 = of_kind(drawn_HW3, scene.map(i // 10))
            assert np.abs(now_43 - first_43).max() < 40


def test_one_strange_picture_does_not_recolour_what_follows():
    scene, colours = Scene(), FeatureColours()
    for i in range(300):
        before_43 = of_kind(colours.colour(scene.features(), i / 30), scene.map())
    colours.colour(8 * Scene(seed=9).features(), 10.0)
    after_43 = of_kind(colours.colour(scene.features(), 10.03), scene.map())
    assert np.abs(after_43 - before_43).max() < 30


def test_another_scene_gets_its_own_contrast_after_a_while_and_no_picture_jumps():
    old, new, colours = Scene(), Scene(seed=7), FeatureColours()
    for i in range(300):
        colours.colour(old.features(), i / 30)
    last_HW3 = colours.colour(new.features(), 10.0).astype(int)
    for i in range(1, 900):
        drawn_HW3 = colours.colour(new.features(), 10 + i / 15).astype(int)
        assert np.abs(drawn_HW3 - last_HW3).mean() < 12
        last_HW3 = drawn_HW3
    mean_43 = of_kind(last_HW3.astype(np.uint8), new.map())
    distance = [np.abs(a - b).sum() for i, a in enumerate(mean_43) for b in mean_43[:i]]
    assert min(distance) > 60


def test_axes_of_equal_length_do_not_swap():
    """Three directions take turns at being the longest: eigenvectors by rank would flip."""
    random, colours = np.random.default_rng(5), FeatureColours()
    base_3D = np.linalg.qr(random.normal(size=(HEADS * CHANNELS, 3)))[0].T
    amount_N3 = random.normal(size=(HEIGHT * WIDTH, 3))
    drawn = []
    for i in range(240):
        length_3 = 3 + 0.3 * np.sin(i / 5 + np.array([0, 2, 4]))
        flat_DN = ((amount_N3 * length_3) @ base_3D).T
        features = flat_DN.reshape(HEADS, CHANNELS, HEIGHT, WIDTH).astype(np.float32)
        drawn.append(colours.colour(features, i / 30).astype(int))
    steps = [np.abs(b - a).mean() for a, b in pairwise(drawn)]
    assert max(steps) < 6


def test_the_same_pictures_have_the_same_colours():
    one, two = FeatureColours(), FeatureColours()
    for i in range(5):
        features = Scene(seed=i).features()
        np.testing.assert_array_equal(one.colour(features, i / 30), two.colour(features, i / 30))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_places_that_are_not_numbers_are_dark_and_change_nothing(value: float):
    scene, colours, others = Scene(), FeatureColours(), FeatureColours()
    features_KCHW = scene.features()
    colours.colour(features_KCHW, 0.0)
    others.colour(features_KCHW, 0.0)
    assert (colours.colour(np.full_like(features_KCHW, value), 0.1) == NIGHT).all()
    wide_KCHW = np.full((*features_KCHW.shape[:3], 2 * WIDTH), 1.0, np.float32)
    wide_KCHW[..., :WIDTH] = features_KCHW
    wide_KCHW[0, 0, :, WIDTH:] = value
    drawn_HW3 = colours.colour(wide_KCHW, 0.2)
    assert (drawn_HW3[:, WIDTH:] == NIGHT).all()
    np.testing.assert_array_equal(drawn_HW3[:, :WIDTH], others.colour(features_KCHW, 0.2))


def test_features_without_any_difference_are_drawn_too():
    colours, flat = FeatureColours(), np.full((2, 3, 2, 3), 7, np.float32)
    for i in range(3):
        assert colours.colour(flat, i / 30).shape == (2, 3, 3)
