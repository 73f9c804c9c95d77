import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from denseav.export.runtime.bundle import Head
from denseav.stream.display.hud import Hud, hud_rows
from denseav.stream.display.overlay import Overlay
from denseav.stream.errors import UsageError
from denseav.stream.stats.stats import Snapshot
from denseav.stream.types import Frame, Heatmap

SPEECH = Head(name="speech", threshold=0.2, ceiling=1.2)
SOUND = Head(name="sound", threshold=-1.0, ceiling=3.0)
ORANGE, SKY_BLUE = np.array([0, 159, 230]), np.array([233, 180, 86])

SNAPSHOT = Snapshot(
    fps_in=30.0,
    fps_out=27.44,
    latency_p50_ms=38.2,
    latency_p95_ms=61.0,
    audio_age_ms=143.0,
    drops={"late": 2, "busy": 12, "never": 0},
)


def picture(height: int, width: int, value: int = 60) -> NDArray[np.uint8]:
    image_HW3 = np.full((height, width, 3), value, np.uint8)
    image_HW3.setflags(write=False)
    return image_HW3


def heatmap(
    image_HW3: NDArray[np.uint8],
    heat_KHW: NDArray[np.float32],
    valid_K: tuple[bool, ...] = (True, True),
) -> Heatmap:
    return Heatmap(
        frame=Frame(image_HW3, 0, 0.0),
        heat_KHW=heat_KHW,
        valid_K=valid_K,
        audio_start_s=0.0,
        audio_end_s=0.0,
        rms_dbfs=-20.0,
        ready_s=0.0,
    )


def spots(*places: tuple[int, int], low: float = -9.0, high: float = 9.0) -> NDArray[np.float32]:
    """One 3x3 spot of heat a head, on a 28x28 grid."""
    heat_KHW = np.full((len(places), 28, 28), low, np.float32)
    for heat_HW, (y, x) in zip(heat_KHW, places, strict=True):
        heat_HW[y - 1 : y + 2, x - 1 : x + 2] = high
    return heat_KHW


def drawn(overlay: Overlay, seen: Heatmap, legend: bool = True) -> NDArray[np.uint8]:
    return overlay.draw(seen, overlay.strength(seen), legend)


def names_shown(overlay: Overlay) -> Sequence[tuple[str, ...]]:
    seen = []
    for _ in range(5):
        seen.append(overlay.shown)
        overlay.cycle()
    return seen


def test_strength_is_the_way_from_threshold_to_ceiling():
    heat_KHW = np.array([[[0.2, 0.7, 1.2, 5, -5]], [[-1, 1, 3, 9, np.nan]]], np.float32)
    strength_KHW = Overlay([SPEECH, SOUND], True).strength(heatmap(picture(16, 16), heat_KHW))
    assert strength_KHW.dtype == np.float32
    expected = [[[0, 0.5, 1, 1, 0]], [[0, 0.5, 1, 1, 0]]]
    np.testing.assert_allclose(strength_KHW, expected, atol=1e-6)


def test_a_head_that_is_not_valid_has_no_strength():
    seen = heatmap(picture(16, 16), np.full((2, 4, 4), 9, np.float32), valid_K=(False, True))
    strength_KHW = Overlay([SPEECH, SOUND], True).strength(seen)
    assert strength_KHW[0].max() == 0
    assert strength_KHW[1].min() == 1


@pytest.mark.parametrize("heat", [0.2, -3.0])
def test_heat_at_or_below_the_threshold_leaves_the_picture_alone(heat: float):
    image_HW3 = picture(100, 140)  # too small for type: nothing else is drawn either
    seen = heatmap(image_HW3, np.full((1, 28, 28), heat, np.float32), valid_K=(True,))
    canvas = drawn(Overlay([SPEECH], False), seen)
    np.testing.assert_array_equal(canvas, image_HW3)
    assert not np.shares_memory(canvas, image_HW3)


def test_silence_leaves_the_picture_alone_however_hot_the_map():
    image_HW3 = picture(100, 140)
    seen = heatmap(image_HW3, np.full((2, 28, 28), 9, np.float32), valid_K=(False, False))
    np.testing.assert_array_equal(drawn(Overlay([SPEECH, SOUND], True), seen), image_HW3)


def test_heads_glow_where_they_look_in_their_own_colours():
    overlay = Overlay([SPEECH, SOUND], True)
    canvas = drawn(overlay, heatmap(picture(480, 640), spots((6, 20), (20, 20))))
    speech, sound, elsewhere = canvas[111, 468], canvas[351, 468], canvas[231, 300]
    np.testing.assert_allclose(speech, 0.75 * SKY_BLUE + 0.25 * 60, atol=6)
    np.testing.assert_allclose(sound, 0.75 * ORANGE + 0.25 * 60, atol=6)
    assert elsewhere.tolist() == [60, 60, 60]


def test_a_line_in_the_head_s_colour_runs_where_the_strength_is_a_half():
    ramp_KHW = np.tile(np.linspace(-1, 3, 28, dtype=np.float32), (1, 28, 1))
    canvas = drawn(Overlay([SOUND], True), heatmap(picture(480, 640), ramp_KHW, valid_K=(True,)))
    distance_W = np.abs(canvas[200].astype(int) - ORANGE).sum(axis=1)
    assert distance_W[300:340].argmin() + 300 == pytest.approx(320, abs=8)
    assert distance_W[300:340].min() < 100
    assert np.median(distance_W[300:340]) > 180


def test_colours_follow_the_names_whatever_their_order():
    turned = Overlay([SOUND, SPEECH], True)
    canvas = drawn(turned, heatmap(picture(480, 640), spots((6, 20), (20, 20))))
    np.testing.assert_allclose(canvas[111, 468], 0.75 * ORANGE + 0.25 * 60, atol=6)


def test_other_names_get_colours_of_their_own():
    heads = [Head(name=name, threshold=0, ceiling=1) for name in ("music", "sound", "speech")]
    seen = heatmap(picture(480, 640), spots((6, 14), (14, 20), (20, 14)), valid_K=(True,) * 3)
    canvas = drawn(Overlay(heads, True), seen)
    found = {tuple(canvas[y, x].tolist()) for y, x in ((111, 331), (248, 468), (351, 331))}
    assert len(found) == 3
    assert (60, 60, 60) not in found


def test_where_heads_overlap_their_colours_mix_and_the_order_does_not_matter():
    heat_KHW = spots((14, 14), (14, 14))
    one = drawn(Overlay([SPEECH, SOUND], True), heatmap(picture(100, 140), heat_KHW))
    two = drawn(Overlay([SOUND, SPEECH], True), heatmap(picture(100, 140), heat_KHW))
    mixed = one[52, 72].astype(int)
    both = (ORANGE + SKY_BLUE) / 2
    np.testing.assert_allclose(mixed, both * (1 - 0.25**2) + 60 * 0.25**2, atol=6)
    np.testing.assert_allclose(mixed, two[52, 72], atol=2)


def test_the_key_goes_round_all_each_alone_and_none():
    both = ("speech", "sound")
    assert names_shown(Overlay([SPEECH, SOUND], True)) == [
        both,
        ("speech",),
        ("sound",),
        (),
        both,
    ]
    assert names_shown(Overlay([SOUND], True))[:3] == [("sound",), (), ("sound",)]


def test_a_head_that_is_not_shown_is_not_drawn():
    overlay = Overlay([SPEECH, SOUND], True)
    overlay.cycle()
    canvas = drawn(overlay, heatmap(picture(480, 640), spots((6, 20), (20, 20))))
    assert canvas[111, 468].tolist() != [60, 60, 60]
    assert canvas[351, 468].tolist() == [60, 60, 60]


def test_the_meter_follows_the_strongest_place():
    def orange_pixels(high: float) -> int:
        seen = heatmap(picture(480, 640), spots((4, 20), low=-1, high=high), valid_K=(True,))
        corner = drawn(Overlay([SOUND], True), seen)[420:]
        return int(np.sum(np.all(np.abs(corner.astype(int) - ORANGE) < 8, axis=-1)))

    silent, half, full = (orange_pixels(high) for high in (-1, 1, 3))
    name = silent  # the head's name is in its colour too
    assert half - name > 100
    assert full - name == pytest.approx(2 * (half - name), rel=0.25)


@pytest.mark.parametrize(
    ("height", "width", "canvas_height", "canvas_width"),
    [
        (16, 16, 16, 16),
        (17, 19, 16, 18),
        (480, 640, 480, 640),
        (1080, 1920, 1080, 1920),
        (4320, 7680, 1080, 1920),
        (3000, 1000, 1920, 640),
        (1, 4000, 2, 1920),
        (121, 163, 120, 162),
    ],
)
def test_canvas_has_even_sides_of_at_most_1920(
    height: int, width: int, canvas_height: int, canvas_width: int
):
    seen = heatmap(picture(height, width), spots((10, 20), (14, 14)))
    canvas = drawn(Overlay([SPEECH, SOUND], False), seen)
    Hud("onnxruntime-cpu", "int8", ["camera 0"]).draw(canvas, SNAPSHOT)
    assert canvas.shape == (canvas_height, canvas_width, 3)
    assert canvas.dtype == np.uint8
    assert canvas.max() > 60


@pytest.mark.parametrize(("height", "width"), [(480, 640), (120, 160), (640, 360), (160, 1600)])
def test_an_untrained_model_says_so_on_every_picture(height: int, width: int):
    seen = heatmap(picture(height, width), spots((4, 4), (4, 4)), valid_K=(False, False))
    trained = drawn(Overlay([SPEECH, SOUND], True), seen)
    untrained = drawn(Overlay([SPEECH, SOUND], False), seen)
    ys, xs = np.nonzero(np.any(trained != untrained, axis=-1))
    label = untrained[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    bright = np.all(label > [40, 180, 190], axis=-1)
    assert bright.mean() > 0.02  # there is type on it
    assert xs.max() < width - 1  # and none of it runs out of the picture
    assert xs.min() > 0
    assert ys.max() < height - 1


def test_hud_rows_say_rates_latency_age_and_drops():
    assert dict(hud_rows(SNAPSHOT)) == {
        "frames": "27.4 of 30.0 fps",
        "latency": "38 ms, p95 61 ms",
        "sound": "143 ms old",
        "dropped": "14: 12 busy, 2 late",
    }


@pytest.mark.parametrize(("skew_ms", "said"), [(-900.0, False), (-1100.0, True)])
def test_hud_says_when_sound_is_too_old_to_show_heat(skew_ms: float, said: bool):
    rows = dict(hud_rows(dataclasses.replace(SNAPSHOT, av_skew_ms=skew_ms)))
    assert ("too old to show heat" in rows["sound"]) == said


def test_hud_rows_before_anything_was_measured():
    empty = Snapshot(
        fps_in=0.0,
        fps_out=0.0,
        latency_p50_ms=None,
        latency_p95_ms=None,
        audio_age_ms=None,
        drops={},
    )
    assert dict(hud_rows(empty)) == {
        "frames": "0.0 of 0.0 fps",
        "latency": "-, p95 -",
        "sound": "none yet",
        "dropped": "none",
    }


def test_hud_stays_inside_the_upper_half_whatever_the_names():
    canvas = picture(240, 320).copy()
    names = ["/videos/" + "a long name " * 20 + ".mp4", "bad \udcff name", *["more"] * 9]
    Hud("onnxruntime-cuda", "fp16", names).draw(canvas, SNAPSHOT)
    ys, xs = np.nonzero(np.any(canvas != 60, axis=-1))
    assert ys.max() < 130
    assert xs.max() < 315
    assert canvas.max() > 200


def test_hud_leaves_a_tiny_canvas_alone():
    canvas = picture(64, 64).copy()
    Hud("onnxruntime-cpu", "fp32", ["camera 0"]).draw(canvas, SNAPSHOT)
    np.testing.assert_array_equal(canvas, picture(64, 64))


def test_type_is_readable_as_the_same_words_at_every_size():
    """The HUD of a large canvas, made smaller, is nearly the HUD of a small one."""
    small, large = picture(480, 640).copy(), picture(1440, 1920).copy()
    hud = Hud("onnxruntime-cpu", "int8", ["camera 0"])
    hud.draw(small, SNAPSHOT)
    hud.draw(large, SNAPSHOT)
    shrunk = cv2.resize(large, (640, 480), interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(shrunk - small).mean() < 8


@pytest.mark.parametrize(
    ("view", "shown"), [("sound", ("sound",)), ("speech", ("speech",)), ("both", None)]
)
def test_the_view_decides_what_is_shown_first(view: str, shown: tuple[str, ...] | None):
    overlay = Overlay([SPEECH, SOUND], True, view)
    assert overlay.shown == (shown or ("speech", "sound"))


def test_a_view_of_a_head_that_the_model_does_not_have_is_refused_in_one_line():
    with pytest.raises(UsageError, match="no head 'speech', but sound; use --view overlay"):
        Overlay([SOUND], True, "speech")


def test_side_by_side_each_picture_has_its_own_head_alone():
    overlay = Overlay([SPEECH, SOUND], True, "both")
    canvas = drawn(overlay, heatmap(picture(480, 640), spots((6, 20), (20, 20))))
    assert canvas.shape == (480, 1284, 3)
    left, right = canvas[:, :640], canvas[:, 644:]
    np.testing.assert_allclose(left[111, 468], 0.75 * SKY_BLUE + 0.25 * 60, atol=6)
    np.testing.assert_allclose(right[351, 468], 0.75 * ORANGE + 0.25 * 60, atol=6)
    assert left[351, 468].tolist() == right[111, 468].tolist() == [60, 60, 60]
    overlay.cycle()
    assert drawn(overlay, heatmap(picture(480, 640), spots((6, 20), (20, 20)))).shape[1] == 640


@pytest.mark.parametrize(("height", "width"), [(1080, 1920), (4320, 7680), (2000, 300), (16, 16)])
@pytest.mark.parametrize("view", ["both", "features"])
def test_side_by_side_it_is_no_larger_than_alone(view: str, height: int, width: int):
    canvas = drawn(
        Overlay([SPEECH, SOUND], False, view),
        heatmap(picture(height, width), spots((6, 9), (9, 9))),
    )
    assert max(canvas.shape[:2]) <= 1920
    assert not any(side % 2 for side in canvas.shape[:2])


def test_features_are_drawn_beside_the_overlay_once_they_are_there():
    overlay = Overlay([SPEECH, SOUND], True, "features")
    assert overlay.wants_features
    seen = heatmap(picture(480, 640), spots((6, 20), (20, 20)))
    without = drawn(overlay, seen)
    features_KCHW = np.zeros((2, 8, 28, 28), np.float32)
    features_KCHW[:, 0, :, :14], features_KCHW[:, 1, :14] = 5, 3
    brought = dataclasses.replace(seen, features_KCHW=features_KCHW)
    canvas = drawn(overlay, brought)
    np.testing.assert_array_equal(canvas[:, :640], without[:, :640])
    assert without[:, 648:].max() < 30
    quarters = canvas[[100, 100, 380, 380], [744, 1180, 744, 1180]].astype(int)
    distance = [np.abs(a - b).sum() for i, a in enumerate(quarters) for b in quarters[:i]]
    assert min(distance) > 60


def test_the_key_goes_round_the_layouts():
    overlay = Overlay([SPEECH, SOUND], True)
    seen, widths = heatmap(picture(480, 640), spots((6, 20), (20, 20))), []
    for _ in range(4):
        widths.append((drawn(overlay, seen).shape[1], overlay.wants_features))
        overlay.cycle_layout()
    assert widths == [(640, False), (1284, False), (1284, True), (640, False)]


def test_the_legend_is_left_out_where_the_strip_has_it():
    seen = heatmap(picture(480, 640), spots((6, 20), (6, 5)))
    bare = drawn(Overlay([SPEECH, SOUND], True), seen, legend=False)
    assert (bare[400:] == 60).all()
    assert (drawn(Overlay([SPEECH, SOUND], True), seen)[400:] != 60).any()
