"""The mosaic: the newest `Heatmap` of each of several cameras in, one of all of them out.

Pictures and maps are put side by side in the same tiles, so that all that shows a heatmap shows
it: window, page and recordings alike. A picture keeps its shape, with bars where the tile has
another; a camera from which nothing comes has a dark tile that says so. Where there is no picture,
and where a head means nothing, heat is not a number. On the thread that shows; it draws nothing
else.

Axes: K heads, C channels, H W pixels, h w cells of the whole.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from denseav.stream.display.drawing import NIGHT, WHITE, Canvas, panel, text, text_width, type_size
from denseav.stream.types import Frame, Heatmap

T = TypeVar("T", bound=np.generic)
Box = tuple[float, float, float, float]  # top, left, bottom and right, in parts of a tile

LONGEST_SIDE = 1280
_CELLS = 28  # of a tile's sides at least, so that a narrow picture's edges lie on edges of cells
_WHOLE: Box = (0, 0, 1, 1)


class Mosaic:
    """Tiles of a run's cameras, as many columns as rows or one more.

    Parameters
    ----------
    names : of the cameras, as people read them, in the order of their frames' numbers.
    sizes : width and height of their pictures; a tile's shape is in the middle of these.
    fault : says why a camera gives nothing, in a few words; None while it gives.

    Attributes
    ----------
    names : as above.
    rows, columns : of tiles.
    """

    def __init__(
        self,
        names: Sequence[str],
        sizes: Sequence[tuple[int, int]],
        fault: Callable[[int], str | None],
    ) -> None:
        self.names = names
        self._fault = fault
        self.columns = math.ceil(math.sqrt(len(names)))
        self.rows = math.ceil(len(names) / self.columns)
        self._height, self._width = _tile_size(sizes, self.rows, self.columns)
        self._newest: dict[int, Heatmap] = {}
        self._shown = 0

    def whole(self, came: Sequence[Heatmap]) -> Heatmap:
        """Take the newest of some cameras, at least one, and return the newest of all as one.

        Its times and its audio are those of the newest that came.
        """
        self._newest |= {heatmap.frame.camera: heatmap for heatmap in came}
        faults = [self._fault(camera) for camera in range(len(self.names))]
        given = {n: heatmap for n, heatmap in self._newest.items() if faults[n] is None}
        last = max(came, key=lambda heatmap: heatmap.frame.capture_s)
        frame = Frame(self._picture(given, faults), self._shown, last.frame.capture_s)
        self._shown += 1
        features = {
            n: heatmap.features_KCHW
            for n, heatmap in given.items()
            if heatmap.features_KCHW is not None
        }
        return replace(
            last,
            frame=frame,
            heat_KHW=self._heat(given, last.heat_KHW.shape),
            valid_K=tuple(
                any(heatmap.valid_K[k] for heatmap in given.values())
                for k in range(len(last.valid_K))
            ),
            features_KCHW=self._features(features) if features else None,
        )

    def _picture(self, given: Mapping[int, Heatmap], faults: Sequence[str | None]) -> Canvas:
        height, width = self._height, self._width
        image_HW3 = np.full((self.rows * height, self.columns * width, 3), NIGHT, np.uint8)
        for camera, name in enumerate(self.names):
            if camera in given:
                heatmap = given[camera]
                place = self._place(camera, self._box(heatmap), height, width)
                into_HW3 = image_HW3[place]
                size = into_HW3.shape[1::-1]
                cv2.resize(
                    heatmap.frame.image_HW3, size, dst=into_HW3, interpolation=cv2.INTER_AREA
                )
            tile_HW3 = image_HW3[self._place(camera, _WHOLE, height, width)]
            _label(tile_HW3, faults[camera] or name)
        return image_HW3

    def _heat(
        self, given: Mapping[int, Heatmap], shape_KHW: tuple[int, ...]
    ) -> NDArray[np.float32]:
        heads, *grid = shape_KHW
        height, width = _cells(grid)
        shape = (heads, self.rows * height, self.columns * width)
        heat_Khw = np.full(shape, np.nan, np.float32)
        for camera, heatmap in given.items():
            place = self._place(camera, self._box(heatmap), height, width)
            valid_K11 = np.array(heatmap.valid_K)[:, None, None]
            into_Khw = heat_Khw[..., *place]
            nearest_Khw = _nearest(heatmap.heat_KHW, into_Khw.shape)
            into_Khw[:] = np.where(valid_K11, nearest_Khw, np.float32(np.nan))
        return heat_Khw

    def _features(self, given: Mapping[int, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Put features together, as many cells as they are: no picture lies under them."""
        heads, channels, height, width = next(iter(given.values())).shape
        shape = (heads, channels, self.rows * height, self.columns * width)
        features_KChw = np.full(shape, np.nan, np.float32)
        for camera, each_KCHW in given.items():
            place = self._place(camera, self._box(self._newest[camera]), height, width)
            into_KChw = features_KChw[..., *place]
            into_KChw[:] = _nearest(each_KCHW, into_KChw.shape)
        return features_KChw

    def _box(self, heatmap: Heatmap) -> Box:
        """Return where in its tile a picture lies: whole, in its shape, by whole cells."""
        rows, columns = _cells(heatmap.heat_KHW.shape[1:])
        height, width = heatmap.frame.image_HW3.shape[:2]
        scale = min(self._height / height, self._width / width)
        high = max(1, round(rows * scale * height / self._height))
        wide = max(1, round(columns * scale * width / self._width))
        top, left = (rows - high) // 2, (columns - wide) // 2
        return top / rows, left / columns, (top + high) / rows, (left + wide) / columns

    def _place(self, camera: int, box: Box, height: int, width: int) -> tuple[slice, slice]:
        """Return rows and columns of a box in a camera's tile, where tiles are of that size."""
        row, column = divmod(camera, self.columns)
        top, left, bottom, right = box
        return (
            slice(round((row + top) * height), round((row + bottom) * height)),
            slice(round((column + left) * width), round((column + right) * width)),
        )


def _tile_size(sizes: Sequence[tuple[int, int]], rows: int, columns: int) -> tuple[int, int]:
    """Return a tile's height and width, even; no larger than the largest picture needs."""
    shapes = sorted(width / height for width, height in sizes)
    shape = shapes[len(shapes) // 2]
    height = min(
        float(max(height for _, height in sizes)),
        LONGEST_SIDE / rows,
        LONGEST_SIDE / columns / shape,
    )
    return max(2, 2 * round(height / 2)), max(2, 2 * round(height * shape / 2))


def _cells(grid: Sequence[int]) -> tuple[int, int]:
    """Return a tile's cells: a whole number of times the model's."""
    height, width = grid
    times = max(1, math.ceil(_CELLS / min(height, width)))
    return times * height, times * width


def _nearest(values_HW: NDArray[T], shape: Sequence[int]) -> NDArray[T]:
    """Return values at other cells, the last two axes of `shape`: each has the nearest one's."""
    (old_height, old_width), (height, width) = values_HW.shape[-2:], shape[-2:]
    row_h = (2 * np.arange(height) + 1) * old_height // (2 * height)
    column_w = (2 * np.arange(width) + 1) * old_width // (2 * width)
    return values_HW[..., row_h[:, None], column_w]


def _label(canvas: Canvas, words: str) -> None:
    """Write at the bottom right, where neither figures nor heads' names are."""
    height, width = canvas.shape[:2]
    size = type_size(canvas)
    if not size:
        return
    readable = words.encode(errors="replace").decode()
    while len(readable) > 1 and text_width(readable, size) > width - 3 * size:
        readable = readable[1:]  # an address differs at its end
    wide = text_width(readable, size)
    left, top = width - wide - 2 * size, height - 2 * size
    panel(canvas, left, top, wide + size, round(1.6 * size), radius=size // 2)
    text(canvas, left + size // 2, top + round(1.15 * size), readable, size, WHITE)
