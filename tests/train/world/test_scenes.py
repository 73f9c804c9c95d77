"""Scenes of the world: exact masks, things in order, enough of each seen, no shortcuts."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from denseav.train.world.classes import CLASSES
from denseav.train.world.library import library
from denseav.train.world.scenes import (
    AREA_PIXELS,
    SEEN_SHARE,
    Thing,
    choose_names,
    compose,
    draw,
    seen_shares,
)

PARTS = library(held_out=False)
SIZE = (112, 144)


def scene_of(seed, *names, size=SIZE):
    return compose(np.random.default_rng(seed), PARTS, *size, names)


def moved(scene, index, **changes):
    things = list(scene.things)
    things[index] = replace(things[index], **changes)
    return replace(scene, things=tuple(things))


def between_share(values, labels):
    """How much of the variance a label explains: 0 for none, 1 for all."""
    values, labels = np.asarray(values, float), np.asarray(labels)
    means = {label: values[labels == label].mean() for label in set(labels.tolist())}
    return np.var([means[label] for label in labels.tolist()]) / values.var()


@pytest.fixture(scope="module")
def many():
    """Scenes of random things, as clips have them."""
    random = np.random.default_rng(0)
    return [
        compose(random, PARTS, *SIZE, choose_names(random, int(random.integers(1, 5))))
        for _ in range(220)
    ]


def test_the_same_generator_gives_the_same_scene_and_pictures():
    one, same, other = (scene_of(seed, "bell", "dog") for seed in (4, 4, 5))
    assert one == same != other
    for scale in (1.0, 3.0):
        pictures = [draw(scene, PARTS, 0.7, scale)[0].tobytes() for scene in (one, same, other)]
        assert pictures[0] == pictures[1] != pictures[2]


def test_a_picture_has_its_size_and_a_mask_for_each_thing():
    scene = scene_of(1, "bell", "dog", "robot")
    picture_HW3, masks_NHW = draw(scene, PARTS)
    assert scene.names == ("bell", "dog", "robot")
    assert (picture_HW3.shape, picture_HW3.dtype) == ((*SIZE, 3), np.uint8)
    assert (masks_NHW.shape, masks_NHW.dtype) == ((3, *SIZE), np.bool_)
    large_HW3, large_NHW = draw(scene, PARTS, scale=2.5)
    assert large_HW3.shape == (280, 360, 3)
    assert large_NHW.mean((1, 2)) == pytest.approx(masks_NHW.mean((1, 2)), rel=0.08)


@pytest.mark.parametrize("seed", range(6))
def test_a_thing_taken_away_changes_pixels_in_its_place_alone(seed):
    scene = scene_of(seed, *choose_names(np.random.default_rng(seed), 3))
    with_HW3, masks_NHW = draw(scene, PARTS)
    for index in range(3):
        things = scene.things[:index] + scene.things[index + 1 :]
        without_HW3, _ = draw(replace(scene, things=things), PARTS)
        _, alone_1HW = draw(replace(scene, things=scene.things[index : index + 1]), PARTS)
        changed_HW = (with_HW3 != without_HW3).any(axis=2)
        reach_HW = cv2.dilate(alone_1HW[0].astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        assert not (changed_HW & ~reach_HW).any()
        assert changed_HW[masks_NHW[index]].mean() > 0.9


@pytest.mark.parametrize("seed", range(6))
def test_no_pixel_belongs_to_two_things_and_the_last_is_in_front(seed):
    scene = scene_of(seed, "kettle", "sheep", "clock")
    for index in (0, 1):
        scene = moved(scene, index, x=scene.things[2].x + 4.0, y=scene.things[2].y)
    _, masks_NHW = draw(scene, PARTS)
    assert masks_NHW.sum(axis=0).max() == 1
    alone = [draw(replace(scene, things=(thing,)), PARTS)[1][0] for thing in scene.things]
    assert np.array_equal(masks_NHW[2], alone[2])
    assert np.array_equal(masks_NHW[1], alone[1] & ~alone[2])
    assert np.array_equal(masks_NHW[0], alone[0] & ~alone[1] & ~alone[2])


def test_enough_is_seen_of_each_thing_and_the_share_is_that_of_the_masks(many):
    shares = [seen_shares(scene, PARTS) for scene in many]
    assert np.mean([share.min() >= SEEN_SHARE for share in shares]) > 0.97
    for scene, share_N in zip(many[:30], shares, strict=False):
        _, masks_NHW = draw(scene, PARTS)
        for thing, share, mask_HW in zip(scene.things, share_N, masks_NHW, strict=True):
            free = replace(scene, things=(replace(thing, x=72.0, y=56.0),))
            whole = draw(free, PARTS)[1][0].sum()
            assert share == pytest.approx(mask_HW.sum() / whole, abs=0.06)


def test_a_thing_is_there_from_when_it_appears_until_it_vanishes():
    scene = moved(scene_of(2, "bell", "drum"), 0, appears_s=1.0, vanishes_s=2.0)
    seen = [draw(scene, PARTS, time_s)[1].any(axis=(1, 2)).tolist() for time_s in (0.9, 1, 1.9, 2)]
    assert seen == [[False, True], [True, True], [True, True], [False, True]]
    empty_HW3 = draw(replace(scene, things=scene.things[1:]), PARTS, 0.5)[0]
    assert np.array_equal(draw(scene, PARTS, 0.5)[0], empty_HW3)


def test_a_thing_sways_to_both_sides_of_its_place_and_comes_back():
    thing = Thing(
        name="dog", look=0, x=50.0, y=40.0, side=30.0, turn_deg=0.0, hue=0, light=1.0,
        sway_x=8.0, sway_y=3.0, period_s=4.0,
    )  # fmt: skip
    assert thing.place(0.0) == pytest.approx((50, 40))
    assert thing.place(1.0)[0] == pytest.approx(58)
    assert thing.place(3.0)[0] == pytest.approx(42)
    assert thing.place(0.5)[1] == pytest.approx(43)
    assert thing.place(4.0) == pytest.approx((50, 40))
    scene = replace(scene_of(0, "dog"), things=(thing,))
    middles = [np.argwhere(draw(scene, PARTS, at_s)[1][0]).mean(axis=0)[1] for at_s in (1.0, 3.0)]
    assert middles[0] - middles[1] == pytest.approx(16, abs=0.6)


def test_every_class_is_as_likely_as_another_whatever_is_wanted():
    random = np.random.default_rng(0)
    counts = dict.fromkeys(CLASSES, 0)
    for _ in range(1_600):
        for name in choose_names(random, 3):
            counts[name] += 1
    expected = 4_800 / len(CLASSES)
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 37.7
    places = [choose_names(random, 3, "dog").index("dog") for _ in range(300)]
    assert np.bincount(places, minlength=3).min() > 70
    assert len(set(choose_names(random, 4, "dog"))) == 4


def test_neither_size_nor_place_nor_light_tells_the_class(many):
    things = [thing for scene in many for thing in scene.things]
    names = [thing.name for thing in things]
    for value in ("x", "y", "turn_deg", "hue", "light", "look"):
        assert between_share([getattr(thing, value) for thing in things], names) < 0.08, value
    areas = [PARTS.look(t.name, t.look)[..., 3] > 127 for t in things]
    filled = [area.mean() * t.side**2 for area, t in zip(areas, things, strict=True)]
    assert between_share(filled, names) < 0.08
    assert AREA_PIXELS[0] - 1 <= min(filled) <= max(filled) <= AREA_PIXELS[1] + 1


def test_every_class_is_as_often_in_front(many):
    fronts = [scene.names[-1] for scene in many]
    expected = len(many) / len(CLASSES)
    assert sum((fronts.count(name) - expected) ** 2 / expected for name in CLASSES) < 37.7
