import colorsys

import cv2
import numpy as np
import pytest

from denseav.train.world.classes import CLASSES
from denseav.train.world.looks.objects import SPRITE_SIDE, sprite
from denseav.train.world.looks.painting import (
    FINE,
    LUMA,
    LUMA_SPREAD,
    LUMAS,
    MARGIN,
    Pen,
    Tone,
    _paints,
    colour,
    picture,
    texture,
)

PER_CLASS = 16
CHANCE = 1 / len(CLASSES)


@pytest.fixture(scope="module")
def sprites():
    """Some of each class, of seeds that no class shares."""
    return np.stack(
        [
            [sprite(name, np.random.default_rng([5, index, k])) for k in range(PER_CLASS)]
            for index, name in enumerate(CLASSES)
        ]
    )


@pytest.fixture(scope="module")
def masks(sprites):
    return sprites[..., 3] > 127


def right_share(features_CKF, references_CKF):
    """How often the nearest reference among each class's first half is of the same class.

    Only each class's second half is asked.
    """
    half = PER_CLASS // 2
    asked_QF = features_CKF[:, half:].reshape(len(CLASSES) * half, -1)
    known_RF = references_CKF[:, :half].reshape(len(CLASSES) * half, -1)
    away_QR = ((asked_QF[:, None] - known_RF[None]) ** 2).sum(axis=-1)
    labels = np.repeat(np.arange(len(CLASSES)), half)
    return float(np.mean(labels[away_QR.argmin(axis=1)] == labels))


def shrunk(images_CKHW, side):
    """Each image scaled down to [side * side] of mean 0 and length 1."""
    flat = np.stack(
        [
            cv2.resize(image_HW.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
            for image_HW in images_CKHW.reshape(-1, *images_CKHW.shape[2:])
        ]
    ).reshape(*images_CKHW.shape[:2], -1)
    flat -= flat.mean(axis=-1, keepdims=True)
    return flat / np.linalg.norm(flat, axis=-1, keepdims=True)


def facing_left(masks_CKHW):
    """Each mask mirrored where its heavier half is on the right."""
    half = masks_CKHW.shape[-1] // 2
    heavier = masks_CKHW[..., half:].sum((-1, -2)) > masks_CKHW[..., :half].sum((-1, -2))
    return np.where(heavier[..., None, None], masks_CKHW[..., ::-1], masks_CKHW)


def mean_colours(sprites_CKHW4, masks_CKHW):
    """The mean colour [C, K, 3] inside each mask, in [0, 255]."""
    total_CK3 = (sprites_CKHW4[..., :3] * masks_CKHW[..., None]).sum((2, 3), dtype=np.float64)
    return total_CK3 / masks_CKHW.sum((2, 3))[..., None]


@pytest.mark.parametrize("name", CLASSES)
def test_the_same_seed_gives_the_same_object(name):
    first, again, other = (sprite(name, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == (SPRITE_SIDE, SPRITE_SIDE, 4)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first[..., 3], other[..., 3])


def test_an_unknown_class_is_refused():
    with pytest.raises(KeyError, match="piano"):
        sprite("piano", np.random.default_rng(0))


def test_the_longer_side_reaches_the_margin_and_the_other_is_centred(masks):
    for mask_HW in masks.reshape(-1, SPRITE_SIDE, SPRITE_SIDE):
        rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
        spans = np.array([[rows[0], SPRITE_SIDE - 1 - rows[-1]]])
        spans = np.vstack([spans, [columns[0], SPRITE_SIDE - 1 - columns[-1]]])
        assert spans.min() >= 0
        assert spans.sum(axis=1).min() <= 2 * (MARGIN + 2)
        assert np.abs(np.diff(spans, axis=1)).max() <= 4


def test_masks_are_solid_and_large_enough_to_find(masks):
    shares_CK = masks.mean(axis=(2, 3))
    assert shares_CK.min() > 0.2
    assert shares_CK.max() < 0.85
    for mask_HW in masks.reshape(-1, SPRITE_SIDE, SPRITE_SIDE).astype(np.uint8):
        contours, _ = cv2.findContours(mask_HW, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        filled_HW = np.zeros_like(mask_HW)
        cv2.drawContours(filled_HW, contours, -1, 1, cv2.FILLED)
        assert (filled_HW - mask_HW).mean() < 0.01


def test_silhouettes_tell_the_classes_apart(masks):
    shapes = shrunk(facing_left(masks), 12)
    assert right_share(shapes, shapes) > 0.9


def test_inner_structure_tells_the_classes_apart(sprites, masks):
    """Edges inside the silhouettes alone, whatever the silhouettes are."""
    grey_CKHW = sprites[..., :3] @ LUMA
    edges_CKHW = np.stack(
        [
            np.hypot(cv2.Sobel(grey_HW, -1, 1, 0), cv2.Sobel(grey_HW, -1, 0, 1))
            for grey_HW in grey_CKHW.reshape(-1, SPRITE_SIDE, SPRITE_SIDE).astype(np.float32)
        ]
    ).reshape(grey_CKHW.shape)
    kernel = np.ones((9, 9), np.uint8)
    inside_CKHW = np.stack(
        [
            cv2.erode(mask_HW, kernel)
            for mask_HW in masks.reshape(-1, SPRITE_SIDE, SPRITE_SIDE).astype(np.uint8)
        ]
    ).reshape(masks.shape)
    edges = shrunk(edges_CKHW * inside_CKHW, 12)
    assert right_share(edges, edges) > 6 * CHANCE


def test_hue_tells_nothing(sprites, masks):
    colours_CK3 = mean_colours(sprites, masks)
    hues_CK3 = colours_CK3 / (colours_CK3 @ LUMA)[..., None]
    assert right_share(hues_CK3, hues_CK3) < 2.5 * CHANCE
    means_C13 = hues_CK3[:, : PER_CLASS // 2].mean(axis=1, keepdims=True)
    assert right_share(hues_CK3, np.broadcast_to(means_C13, hues_CK3.shape)) < 2.5 * CHANCE


def test_lightness_tells_little(sprites, masks):
    """Parts have fixed tones, and how large they are is a matter of shape."""
    lumas_CK1 = (mean_colours(sprites, masks) @ LUMA)[..., None]
    means_C11 = lumas_CK1[:, : PER_CLASS // 2].mean(axis=1, keepdims=True)
    assert right_share(lumas_CK1, np.broadcast_to(means_C11, lumas_CK1.shape)) < 4 * CHANCE


def test_each_class_comes_in_all_hues(sprites, masks):
    for colours_K3 in mean_colours(sprites, masks) / 255:
        hues = [colorsys.rgb_to_hls(*colour_3)[0] for colour_3 in colours_K3]
        assert np.unique(np.floor(np.array(hues) * 4)).size >= 3


def test_parts_have_the_same_lightness_in_every_thing():
    lumas = np.stack([_paints(np.random.default_rng(seed)) for seed in range(40)])[:, 1:] @ LUMA
    assert np.abs(lumas - LUMAS).max() < LUMA_SPREAD + 1e-5
    assert np.ptp(lumas, axis=0).min() > LUMA_SPREAD


@pytest.mark.parametrize("name", CLASSES)
def test_an_object_is_the_same_at_any_size(name):
    small, large = (sprite(name, np.random.default_rng(3), side) for side in (96, 288))
    assert large.shape == (288, 288, 4)
    shrunk_HW = cv2.resize(large, (96, 96), interpolation=cv2.INTER_AREA)[..., 3] > 127
    mask_HW = small[..., 3] > 127
    assert (shrunk_HW & mask_HW).sum() / (shrunk_HW | mask_HW).sum() > 0.93


def test_objects_look_either_way():
    dogs = [sprite("dog", np.random.default_rng(seed))[..., 3] > 127 for seed in range(20)]
    shares = np.array([mask[:40, 48:].mean() > mask[:40, :48].mean() for mask in dogs])
    assert 0 < shares.sum() < len(shares)


def test_a_colour_is_as_light_as_asked_and_of_any_hue():
    rng = np.random.default_rng(0)
    colours = {luma: [colour(rng, luma) for _ in range(200)] for luma in (0.1, 0.5, 0.9)}
    for luma, drawn in colours.items():
        assert np.stack(drawn) @ LUMA == pytest.approx(np.full(200, luma), abs=1e-5)
        assert np.min(drawn) >= 0
        assert np.max(drawn) <= 1 + 1e-6
    hues = [colorsys.rgb_to_hls(*colour_3)[0] for colour_3 in colours[0.5]]
    counts, _ = np.histogram(hues, bins=6, range=(0, 1))
    assert counts.min() > 15


def test_textures_keep_to_their_range_and_differ():
    drawn = [texture(np.random.default_rng(seed), 48, 64, 6.0) for seed in range(30)]
    assert all(field_HW.shape == (48, 64) and np.abs(field_HW).max() <= 1 for field_HW in drawn)
    deviations = np.array([field_HW.std() for field_HW in drawn])
    assert (deviations == 0).any()
    assert np.mean(deviations > 0.2) > 0.5


def test_a_square_is_painted_whole_and_lines_count_for_its_size():
    pen = Pen(np.random.default_rng(0))
    pen.box(0, 0, 1, 1, Tone.BODY)
    alone = (picture(pen, 40)[..., 3] > 127).sum()
    assert alone == pytest.approx(37 * 37, rel=0.3)
    pen = Pen(np.random.default_rng(0))
    pen.box(0, 0, 1, 1, Tone.BODY)
    pen.line([(0.5, 0.5), (3, 0.5)], 0.2, Tone.INK)
    image_HW4 = picture(pen, 40)
    columns = np.flatnonzero((image_HW4[..., 3] > 127).any(axis=0))
    assert columns[0] <= MARGIN + FINE
    assert columns[-1] >= 40 - MARGIN - FINE - 1
    assert (image_HW4[..., 3] > 127).sum() < 0.5 * alone


def test_holes_are_closed():
    pen = Pen(np.random.default_rng(0))
    pen.line([(0, 0), (4, 0), (4, 4), (0, 4), (0, 0)], 0.5, Tone.BODY)
    assert (picture(pen, 64)[22:42, 22:42, 3] == 255).all()
