"""Tiles: each camera's picture and map in its own place, and darkness where nothing comes."""

from dataclasses import replace

import numpy as np
import pytest

from denseav.stream.app.mosaic import Mosaic
from denseav.stream.types import Frame, Heatmap

VGA = (160, 120)
GRID = (14, 14)
FINE = 28  # cells of a tile's side: twice the grid


def no_fault(_: int) -> str | None:
    return None


def heatmap(camera: int, level: int, size: tuple[int, int] = VGA) -> Heatmap:
    width, height = size
    frame = Frame(np.full((height, width, 3), level, np.uint8), 7, 10.0 + camera, camera)
    heat_KHW = np.full((2, *GRID), level, np.float32)
    return Heatmap(frame, heat_KHW, (True, False), 9.0, 9.5, -20.0, 10.1 + camera)


def tile(whole: Heatmap, row: int, column: int) -> tuple[np.ndarray, np.ndarray]:
    """A tile's picture, without its lowest quarter where the name is, and its first head's heat."""
    image_HW3 = whole.frame.image_HW3[120 * row : 120 * row + 90, 160 * column : 160 * column + 160]
    heat_hw = whole.heat_KHW[
        0, FINE * row : FINE * row + FINE, FINE * column : FINE * column + FINE
    ]
    return image_HW3, heat_hw


def test_each_tile_has_its_own_picture_and_heat() -> None:
    mosaic = Mosaic(["a", "b", "c"], [VGA, (640, 480), VGA], no_fault)
    levels = (50, 100, 150)
    whole = mosaic.whole(
        [
            heatmap(camera, level, (640, 480) if camera == 1 else VGA)
            for camera, level in enumerate(levels)
        ]
    )
    height, width = whole.frame.image_HW3.shape[:2]
    assert (height, width) == (960, 1280)
    assert whole.heat_KHW.shape == (2, 2 * FINE, 2 * FINE)
    assert whole.valid_K == (True, False)
    assert whole.frame.capture_s == 12.0
    for camera, level in enumerate(levels):
        row, column = divmod(camera, 2)
        image_HW3 = whole.frame.image_HW3[480 * row : 480 * row + 360, 640 * column :][:, :640]
        assert (image_HW3 == level).all()
        _, heat_hw = tile(whole, row, column)
        assert (heat_hw == level).all()
    assert np.isnan(whole.heat_KHW[1]).all(), "of a head that means nothing"
    assert np.isnan(tile(whole, 1, 1)[1]).all(), "there is no fourth camera"


@pytest.mark.parametrize("size", [(90, 160), (1920, 1080), (100, 100), (2000, 60)])
def test_a_picture_keeps_its_shape_and_its_heat_lies_on_it(size: tuple[int, int]) -> None:
    mosaic = Mosaic(["a", "b"], [VGA, VGA], no_fault)
    width, height = size
    other = heatmap(1, 200, size)
    marked_KHW = np.arange(2 * 14 * 14, dtype=np.float32).reshape(2, *GRID)
    whole = mosaic.whole([heatmap(0, 50), replace(other, heat_KHW=marked_KHW)])
    image_HW3, heat_hw = whole.frame.image_HW3[:, 160:], tile(whole, 0, 1)[1]
    shown_HW = (image_HW3 == 200).all(axis=2)
    rows, columns = shown_HW.any(axis=1).nonzero()[0], shown_HW.any(axis=0).nonzero()[0]
    high, wide = np.ptp(rows) + 1, np.ptp(columns) + 1
    cell = max(120 / FINE, 160 / FINE)
    scale = min(120 / height, 160 / width)
    assert abs(high - scale * height) <= cell
    assert abs(wide - scale * width) <= cell
    cells_hw = np.isfinite(heat_hw)
    heat_rows, heat_columns = cells_hw.any(axis=1).nonzero()[0], cells_hw.any(axis=0).nonzero()[0]
    assert abs(heat_rows[0] * 120 / FINE - rows[0]) <= 1
    assert abs((heat_rows[-1] + 1) * 120 / FINE - rows[-1] - 1) <= 1
    assert abs(heat_columns[0] * 160 / FINE - columns[0]) <= 1
    assert abs((heat_columns[-1] + 1) * 160 / FINE - columns[-1] - 1) <= 1
    first, last = heat_hw[cells_hw][[0, -1]]
    assert np.isin(heat_hw[cells_hw], marked_KHW[0]).all(), "no value is made up"
    if min(high / 120, wide / 160) > 0.9 * 14 / FINE:
        assert (first, last) == (0, 14 * 14 - 1)


@pytest.mark.parametrize("came", [False, True])
def test_a_lost_camera_is_dark_and_the_other_is_as_it_was(came: bool) -> None:
    mosaic = Mosaic(["a", "b"], [VGA, VGA], {1: "b: lost for 3 s"}.get)
    whole = mosaic.whole([heatmap(0, 90), *([heatmap(1, 200)] if came else [])])
    assert (tile(whole, 0, 0)[1] == 90).all()
    assert np.isnan(tile(whole, 0, 1)[1]).all()
    lost_HW3 = whole.frame.image_HW3[:, 160:]
    assert lost_HW3[:90].max() < 30
    assert lost_HW3[90:].max() > 200, "it says why"


def test_nothing_is_valid_while_all_are_lost() -> None:
    mosaic = Mosaic(["a", "b"], [VGA, VGA], lambda camera: f"{camera}: lost")
    assert mosaic.whole([heatmap(0, 90), heatmap(1, 90)]).valid_K == (False, False)


def test_features_lie_as_the_tiles_do() -> None:
    mosaic = Mosaic(["a", "b"], [VGA, VGA], no_fault)
    features_KCHW = np.random.default_rng(3).normal(size=(2, 5, *GRID)).astype(np.float32)
    whole = mosaic.whole([heatmap(0, 9), replace(heatmap(1, 9), features_KCHW=features_KCHW)])
    assert whole.features_KCHW is not None
    assert whole.features_KCHW.shape == (2, 5, 14, 28)
    assert (whole.features_KCHW[..., 14:] == features_KCHW).all()
    assert np.isnan(whole.features_KCHW[..., :14]).all(), "its heatmap brought none"


def test_many_large_pictures_are_made_smaller_and_tiles_stay_where_they_are() -> None:
    sizes = 8 * [(1920, 1080)]
    mosaic = Mosaic([str(camera) for camera in range(8)], sizes, no_fault)
    shapes = {
        mosaic.whole([heatmap(camera, 20, size)]).frame.image_HW3.shape
        for camera in range(8)
        for size in ((1920, 1080), (90, 160))
    }
    ((height, width, _),) = shapes
    assert max(height, width) <= 1280
    assert height % 2 == width % 2 == 0
