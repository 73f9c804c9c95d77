from copy import copy

import numpy as np
import pytest

from denseav.train.demo_paint import Canvas, blue_green_red, ellipse, paint, rounded, union
from denseav.train.demo_scene import HEIGHT, WIDTH, Scene
from denseav.train.demo_script import SCRIPT

NAMES = ("drum", "bell", "bird", "car")
WAITING_S = 0.3  # nothing has happened yet


@pytest.fixture(scope="module")
def scene():
    return Scene(SCRIPT, 0)


def block(width=20, height=10, margin=4):
    """A white block of that size, hung on its upper left corner."""
    canvas = Canvas(width + 2 * margin, height + 2 * margin)
    left, top, right, bottom = margin, margin, margin + width, margin + height
    canvas.fill(np.array([[left, top], [right, top], [right, bottom], [left, bottom]]), "#ffffff")
    return canvas.sprite(margin, margin)


def black(height=60, width=80):
    return np.zeros((height, width, 3), np.float32)


def test_a_sprite_lands_where_it_is_put():
    picture_HW3 = black()
    assert paint(picture_HW3, block(), (30, 20)) == (30, 20, 50, 30)
    assert picture_HW3[21:29, 31:49].min() > 0.99
    assert picture_HW3.sum() == pytest.approx(3 * 200, rel=0.1)


def test_a_sprite_is_scaled_and_then_turned_clockwise():
    assert paint(black(), block(), (30, 20), scale_xy=(2, 1)) == (30, 20, 70, 30)
    assert paint(black(), block(), (30, 20), turn_deg=90) == (20, 20, 30, 40)


def test_a_sprite_outside_the_picture_changes_nothing_and_one_half_outside_is_cut():
    picture_HW3 = black()
    assert paint(picture_HW3, block(), (200, 20)) == (0, 0, 0, 0)
    assert not picture_HW3.any()
    assert paint(picture_HW3, block(), (-10, -5)) == (0, 0, 10, 5)


def test_opacity_mixes_with_what_is_there():
    picture_HW3 = black() + np.float32(0.5)
    box = paint(picture_HW3, block(), (30, 20), opacity=0.5)
    assert picture_HW3[25, 40] == pytest.approx(0.75, abs=0.01)
    assert picture_HW3[5, 5] == pytest.approx(0.5)
    assert box == (30, 20, 50, 30)


def test_colours_are_turned_round_and_lit():
    assert blue_green_red("#ff8000") == pytest.approx((0.0, 128 / 255, 1.0))
    canvas = Canvas(8, 8)
    canvas.fill(ellipse(4, 4, 4, 4), "#ff8000", 0.5)
    assert canvas.image_HW4[16, 16] == pytest.approx((0.0, 64 / 255, 0.5, 1.0))


def test_a_stroke_is_as_wide_as_it_says():
    canvas = Canvas(20, 20)
    canvas.stroke(np.array([[2.0, 10.0], [18.0, 10.0]]), 4.0, "#ffffff")
    assert canvas.image_HW4[:, 40, 3].sum() / 4 == pytest.approx(4.0, abs=0.5)


def test_light_falls_from_the_upper_left():
    canvas = Canvas(20, 20)
    ball_HW, column_HW = canvas.ball(10, 10, 8), canvas.column(2, 18)
    assert ball_HW[24, 24] > ball_HW[56, 56]
    assert column_HW[40, 27] > column_HW[40, 53]
    assert np.isfinite(column_HW).all()


def test_noise_is_normal_and_comes_from_its_seed():
    canvas = Canvas(40, 30)
    first, same, other = (canvas.noise(np.random.default_rng(s), (8, 8)) for s in (1, 1, 2))
    assert first.mean() == pytest.approx(0, abs=1e-4)
    assert first.std() == pytest.approx(1, abs=1e-4)
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_rounding_stays_inside_the_corners():
    points_N2 = rounded((0, 0), (10, 0), (10, 10), (0, 10))
    assert len(points_N2) == 64
    assert points_N2.min() >= 0
    assert points_N2.max() <= 10
    assert not (points_N2.sum(axis=1) < 1).any()


def test_a_union_holds_both_boxes():
    assert union((1, 5, 4, 9), (2, 3, 8, 7)) == (1, 3, 8, 9)


def test_the_same_seed_draws_the_same_picture(scene):
    again = Scene(SCRIPT, 0)
    for time_s in (25.5, 0.65, 29.0):
        picture, boxes = scene.draw(time_s)
        picture_again, boxes_again = again.draw(time_s)
        assert np.array_equal(picture, picture_again)
        assert boxes == boxes_again
    assert not np.array_equal(scene.draw(1.0)[0], Scene(SCRIPT, 1).draw(1.0)[0])


def test_a_picture_is_full_size_and_uses_its_range(scene):
    picture_HW3, boxes = scene.draw(0.0)
    assert picture_HW3.shape == (HEIGHT, WIDTH, 3)
    assert picture_HW3.dtype == np.uint8
    assert 80 < picture_HW3.mean() < 190
    assert picture_HW3.std() > 35
    assert set(boxes) == set(NAMES)


@pytest.mark.parametrize("time_s", [0.3, 4.4, 10.8, 25.8, 29.5])
def test_all_objects_stay_whole_in_the_picture(scene, time_s):
    for left, top, right, bottom in scene.draw(time_s)[1].values():
        assert 0 <= left < left + 90 < right <= WIDTH
        assert 0 <= top < top + 80 < bottom <= HEIGHT


@pytest.mark.parametrize("name", NAMES)
def test_a_box_holds_its_object(scene, name):
    whole, boxes = scene.draw(WAITING_S)
    without = {other: t for other, t in scene.things.items() if other != name}
    scene_without = copy(scene)
    scene_without.things = without
    changed_HW = (whole != scene_without.draw(WAITING_S)[0]).any(axis=2)
    left, top, right, bottom = boxes[name]
    assert changed_HW[top:bottom, left:right].mean() > 0.35
    assert changed_HW[top:bottom, left:right].any(axis=0).mean() > 0.95
    assert changed_HW[top:bottom, left:right].sum() > 0.4 * changed_HW.sum()


@pytest.mark.parametrize(
    ("name", "time_s"), [("drum", 0.62), ("bell", 3.75), ("bird", 6.8), ("car", 10.0)]
)
def test_an_object_moves_while_it_sounds(scene, name, time_s):
    waiting, boxes = scene.draw(WAITING_S)
    left, top, right, bottom = boxes[name]
    moved = scene.draw(time_s)[0][top:bottom, left:right].astype(int)
    assert np.abs(moved - waiting[top:bottom, left:right]).mean() > 4


@pytest.mark.parametrize(("name", "time_s"), [("drum", 13.4), ("bell", 15.8), ("drum", 28.5)])
def test_a_named_object_and_a_silent_one_stand_still(scene, name, time_s):
    waiting, boxes = scene.draw(WAITING_S)
    after, boxes_after = scene.draw(time_s)
    left, top, right, bottom = boxes[name]
    inner = slice(top + 40, bottom - 40), slice(left + 40, right - 40)
    assert boxes_after[name] == pytest.approx(boxes[name], abs=1)
    assert np.abs(after[inner].astype(int) - waiting[inner]).max() <= 2


def test_the_car_crosses_the_table_and_comes_back(scene):
    lefts = [scene.draw(time_s)[1]["car"][0] for time_s in (9.0, 10.0, 11.0, 12.4, 25.8, 27.3)]
    assert lefts[0] < lefts[1] < lefts[2] < lefts[3]
    assert lefts[3] - lefts[0] == 420
    assert lefts[5] == lefts[0] < lefts[4] < lefts[3]


@pytest.mark.parametrize("beat_s", SCRIPT.beats_s("drum"))
def test_the_drum_skin_shakes_just_after_the_beat(scene, beat_s):
    still, boxes = scene.draw(WAITING_S)
    left, top, right, _ = boxes["drum"]
    rim = slice(top + 2, top + 12), slice(left + 20, right - 20)
    after = scene.draw(beat_s + 0.024)[0][rim].astype(int)
    assert np.abs(after - still[rim]).mean() > 4


@pytest.mark.parametrize(("turn", "side"), [(0, "left"), (1, "right")])
def test_the_sticks_take_turns(scene, turn, side):
    beat_s = SCRIPT.beats_s("drum")[turn]
    rest, boxes = scene.draw(WAITING_S)
    moved_HW = (scene.draw(beat_s)[0] != rest).any(axis=2)
    left, top, right, _ = boxes["drum"]
    middle = (left + right) // 2
    above = moved_HW[top - 30 : top - 2]
    counts = {"left": above[:, left:middle].sum(), "right": above[:, middle:right].sum()}
    assert max(counts, key=counts.__getitem__) == side


def test_the_bell_swings_both_ways_and_its_clapper_with_it(scene):
    rest = scene.draw(WAITING_S)[1]["bell"]
    lefts = [scene.draw(3.5 + step / 30)[1]["bell"][0] for step in range(60)]
    assert min(lefts) < rest[0] - 10
    assert max(lefts) > rest[0] + 3


def test_the_bird_opens_its_beak_for_a_note(scene):
    beat_s = SCRIPT.beats_s("bird")[0]
    left, top, *_ = scene.draw(WAITING_S)[1]["bird"]
    # Below the closed beak there is only sky, until the lower half opens into it.
    gape = slice(top + 30, top + 42), slice(left - 4, left + 16)
    shut, wide = (scene.draw(t)[0][gape].astype(int) for t in (beat_s - 0.1, beat_s + 0.08))
    assert np.abs(wide - shut).mean() > 5


def test_smoke_follows_the_car_only_while_it_drives(scene):
    def behind(time_s):
        picture, boxes = scene.draw(time_s)
        left, _, _, bottom = boxes["car"]
        return picture[bottom - 50 : bottom - 10, left - 60 : left - 12].astype(int)

    parked, boxes = scene.draw(13.5)
    left, _, _, bottom = boxes["car"]
    assert np.abs(behind(13.5) - behind(14.5)).max() <= 2
    driving, boxes = scene.draw(10.9)
    left, _, _, bottom = boxes["car"]
    area = slice(bottom - 50, bottom - 10), slice(left - 60, left - 12)
    assert np.abs(driving[area].astype(int) - parked[area]).mean() > 2


def test_clouds_drift_slowly(scene):
    early, soon, later = (scene.draw(t)[0][:70, 100:400].astype(int) for t in (0.0, 1 / 30, 7.45))
    assert 0 < np.abs(soon - early).mean() < 1
    assert np.abs(later - early).mean() > 4


def test_the_end_meets_the_beginning(scene):
    first, last = (scene.draw(t)[0].astype(int) for t in (0.0, SCRIPT.duration_s - 1 / 30))
    assert np.abs(first - last).mean() < 1.5
