"""Tiles: each camera's picture and map in its own place, and darkness where nothing comes."""

import numpy as np
import pytest

from denseav.stream.display.mosaic import COLD, Mosaic
from denseav.stream.types import Frame, Heatmap


def heatmap(camera: int, level: int, size: tuple[int, int] = (120, 160)) -> Heatmap:
    frame = Frame(np.full((*size, 3), level, np.uint8), 7, 10.0 + camera, camera)
    heat_KHW = np.full((2, 3, 4), level, np.float32)
    return Heatmap(frame, heat_KHW, (True, False), 9.0, 9.5, -20.0, 10.1 + camera)


def test_one_camera_goes_through_as_it_is() -> None:
    mosaic, only = Mosaic(["cam"], lambda _: None), heatmap(0, 50)
    mosaic.add(only)
    assert mosaic.heatmap(only) is only


def test_each_tile_has_its_own_picture_and_heat() -> None:
    mosaic = Mosaic(["a", "b", "c"], lambda _: None)
    levels = (50, 100, 150)
    for camera, level in enumerate(levels):
        # A camera of another size has a tile like the first's.
        mosaic.add(heatmap(camera, level, (120, 160) if camera != 1 else (480, 640)))
    whole = mosaic.heatmap(heatmap(2, 150))
    assert whole.frame.image_HW3.shape == (240, 320, 3)
    assert whole.heat_KHW.shape == (2, 6, 8)
    assert whole.valid_K == (True, False)
    assert whole.frame.capture_s == 12.0
    for camera, level in enumerate(levels):
        row, column = divmod(camera, 2)
        tile_HW3 = whole.frame.image_HW3[120 * row : 120 * row + 90, 160 * column :][:, :160]
        assert (tile_HW3 == level).all()
        tile_KHW = whole.heat_KHW[:, 3 * row : 3 * row + 3, 4 * column : 4 * column + 4]
        assert (tile_KHW[0] == level).all()
        assert (tile_KHW[1] == COLD).all(), "what is not valid is dark beside what is"


@pytest.mark.parametrize("came", [False, True])
def test_a_lost_camera_is_dark_and_the_other_is_as_it_was(came: bool) -> None:
    fault = {1: "b: lost for 3 s"}
    mosaic = Mosaic(["a", "b"], fault.get)
    mosaic.add(heatmap(0, 90))
    if came:
        mosaic.add(heatmap(1, 200))
    whole = mosaic.heatmap(heatmap(0, 90))
    assert (whole.heat_KHW[0, :, :4] == 90).all()
    assert (whole.heat_KHW[:, :, 4:] == COLD).all()
    lost_HW3 = whole.frame.image_HW3[:, 160:]
    assert lost_HW3[:90].max() < 30
    assert lost_HW3[90:].max() > 200, "it says why"


def test_many_large_pictures_are_made_smaller() -> None:
    mosaic = Mosaic([str(camera) for camera in range(8)], lambda _: None)
    for camera in range(8):
        mosaic.add(heatmap(camera, 20, (1080, 1920)))
    image_HW3 = mosaic.heatmap(heatmap(7, 20)).frame.image_HW3
    assert max(image_HW3.shape) <= 1280
    assert image_HW3.shape[0] % 2 == image_HW3.shape[1] % 2 == 0
