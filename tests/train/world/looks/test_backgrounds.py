import colorsys

import cv2
import numpy as np
import pytest

from denseav.train.world.looks import backgrounds
from denseav.train.world.looks.backgrounds import background

SIDE = 96
SEEDS = range(60)


def drawn(held_out, seeds=SEEDS):
    """Backgrounds uint8 [N, SIDE, SIDE, 3] of those seeds."""
    return np.stack(
        [background(np.random.default_rng(seed), SIDE, SIDE, held_out=held_out) for seed in seeds]
    )


@pytest.mark.parametrize("held_out", [False, True])
def test_the_same_seed_gives_the_same_background(held_out):
    first, again = (drawn(held_out, seeds=range(5)) for _ in range(2))
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert all((first[0] != other).mean() > 0.5 for other in first[1:])


@pytest.mark.parametrize(("height", "width"), [(160, 160), (64, 200), (16, 16)])
def test_any_size(height, width):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        image_HW3 = background(rng, height, width, held_out=seed % 2 == 0)
        assert image_HW3.shape == (height, width, 3)


@pytest.mark.parametrize("kind", [*backgrounds._SEEN, *backgrounds._HELD_OUT])
def test_each_kind_varies_and_stays_near_its_range(kind):
    fields = [kind(np.random.default_rng(seed), 64, 96) for seed in range(12)]
    assert all(field_HW.shape == (64, 96) for field_HW in fields)
    assert all(field_HW.min() > -0.6 and field_HW.max() < 1.6 for field_HW in fields)
    assert np.mean([field_HW.std() for field_HW in fields]) > 0.05
    assert not np.allclose(fields[0], fields[1])


def test_held_out_kinds_are_never_seen_in_training(monkeypatch):
    names = {False: "_SEEN", True: "_HELD_OUT"}
    called = {False: set(), True: set()}
    for held_out, name in names.items():
        kinds = getattr(backgrounds, name)

        def note(kind, split):
            def noted(rng, height, width):
                called[split].add(kind)
                return kind(rng, height, width)

            return noted

        marked = tuple(note(kind, held_out) for kind in kinds)
        monkeypatch.setattr(backgrounds, name, marked)
    for held_out in names:
        drawn(held_out)
    assert not called[False] & called[True]
    assert len(called[False]) >= 7
    assert len(called[True]) >= 4


def test_hues_go_all_round_and_lightness_varies():
    means = drawn(held_out=False).mean(axis=(1, 2)) / 255
    hues = [colorsys.rgb_to_hls(*mean_3)[0] for mean_3 in means]
    counts, _ = np.histogram(hues, bins=4, range=(0, 1))
    assert counts.min() >= 3
    assert np.ptp(means.mean(axis=1)) > 0.4


def test_both_splits_are_as_light_and_as_rough():
    """What differs between the splits is the pattern, not the range."""
    seen, kept = (drawn(held_out) / 255 for held_out in (False, True))
    assert seen.mean() == pytest.approx(kept.mean(), abs=0.08)
    assert seen.std(axis=(1, 2)).mean() == pytest.approx(kept.std(axis=(1, 2)).mean(), rel=0.5)


def test_most_backgrounds_are_strewn_with_things_of_many_sizes(monkeypatch):
    """With a blank surface, whatever is left is clutter."""

    def blank(_rng, height, width):
        return np.zeros((height, width), np.float32)

    monkeypatch.setattr(backgrounds, "_SEEN", (blank,))
    longest, empty = [], 0
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        image_HW3 = background(rng, 160, 160, held_out=False).astype(np.float32)
        smooth_HW3 = cv2.medianBlur(image_HW3.astype(np.uint8), 5).astype(np.float32)
        ramp_HW3 = cv2.GaussianBlur(smooth_HW3, (0, 0), 40)
        things_HW = (np.abs(smooth_HW3 - ramp_HW3).max(axis=-1) > 45).astype(np.uint8)
        count, _, boxes, _ = cv2.connectedComponentsWithStats(things_HW)
        sides = boxes[1:count, 2:4].max(axis=1)
        longest += [int(side) for side in sides if side < 80]
        empty += count == 1
    assert empty < len(SEEDS) / 2
    assert min(longest) <= 8
    assert max(longest) >= 40
