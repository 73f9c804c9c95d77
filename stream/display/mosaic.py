"""The mosaic: the newest `Heatmap` of each of several cameras in, one of all of them out.

Pictures and maps are put side by side in the same tiles, so that all that shows a heatmap shows
it: window, page and recordings alike. A camera from which nothing comes has a dark tile that says
so. One camera's heatmaps go through as they are. On the thread that shows; it draws nothing else.

Axes: K heads, C channels, H W pixels or cells of the whole.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from denseav.stream.display.drawing import WHITE, Canvas, panel, text, text_width
from denseav.stream.types import Frame, Heatmap

T = TypeVar("T", bound=np.generic)

LONGEST_SIDE = 1280
COLD = np.float32(-1e4)  # heat of a head that means nothing: below any threshold
_NIGHT = 24


class Mosaic:
    """Tiles of a run's cameras, as many columns as rows or one more.

    Parameters
    ----------
    names : of the cameras, as people read them, in the order of their frames' numbers.
    fault : says why a camera gives nothing, in a few words; None while it gives.
    """

    def __init__(self, names: Sequence[str], fault: Callable[[int], str | None]) -> None:
        self._names = names
        self._fault = fault
        self._columns = math.ceil(math.sqrt(len(names)))
        self._rows = math.ceil(len(names) / self._columns)
        self._newest: dict[int, Heatmap] = {}
        self._shown = 0

    def add(self, heatmap: Heatmap) -> None:
        """Take one camera's newest."""
        self._newest[heatmap.frame.camera] = heatmap

    def heatmap(self, last: Heatmap) -> Heatmap:
        """Return all as one: its times and its audio are those of `last`, the newest of them."""
        if len(self._names) == 1:
            return last
        tiles = [self._tile(camera, last) for camera in range(self._columns * self._rows)]
        image_HW3 = self._whole([tile.frame.image_HW3 for tile in tiles], axes=(0, 1))
        frame = Frame(image_HW3, self._shown, last.frame.capture_s)
        self._shown += 1
        features = [tile.features_KCHW for tile in tiles if tile.features_KCHW is not None]
        each_KCHW = [
            np.zeros_like(features[0]) if tile.features_KCHW is None else tile.features_KCHW
            for tile in tiles
            if features
        ]
        return replace(
            last,
            frame=frame,
            heat_KHW=self._whole([tile.heat_KHW for tile in tiles], axes=(1, 2)),
            valid_K=tuple(map(any, zip(*(tile.valid_K for tile in tiles), strict=True))),
            features_KCHW=self._whole(each_KCHW, axes=(2, 3)) if features else None,
        )

    def _whole(self, tiles: Sequence[NDArray[T]], axes: tuple[int, int]) -> NDArray[T]:
        """Put the tiles together, row by row, along two axes: down and across."""
        rows = [
            np.concatenate(tiles[first : first + self._columns], axis=axes[1])
            for first in range(0, len(tiles), self._columns)
        ]
        return np.concatenate(rows, axis=axes[0])

    def _tile(self, camera: int, last: Heatmap) -> Heatmap:
        """Return one camera's heatmap in a tile of the size that all have."""
        newest = self._newest.get(camera)
        named = camera < len(self._names)
        fault = self._fault(camera) if named else None
        if newest is None or fault is not None:
            height, width = self._size(last)
            image_HW3 = np.full((height, width, 3), _NIGHT, np.uint8)
            newest = replace(last, valid_K=(False,) * len(last.valid_K), features_KCHW=None)
        else:
            image_HW3 = _fitted(newest.frame.image_HW3, *self._size(last))
        if named:
            _label(image_HW3, fault or self._names[camera])
        heat_KHW = newest.heat_KHW.copy()
        heat_KHW[~np.array(newest.valid_K, bool)] = COLD
        frame = replace(newest.frame, image_HW3=image_HW3)
        return replace(newest, frame=frame, heat_KHW=heat_KHW)

    def _size(self, last: Heatmap) -> tuple[int, int]:
        """Return a tile's height and width: of the first camera's shape, even, small enough."""
        first = self._newest.get(0, last).frame.image_HW3
        height, width = first.shape[:2]
        scale = min(
            1.0, LONGEST_SIDE / (self._columns * width), LONGEST_SIDE / (self._rows * height)
        )
        return max(2, 2 * int(height * scale / 2)), max(2, 2 * int(width * scale / 2))


def _fitted(image_HW3: Canvas, height: int, width: int) -> Canvas:
    """Return a copy of the whole picture, squeezed where its shape is another."""
    if image_HW3.shape[:2] == (height, width):
        return image_HW3.copy()
    return cv2.resize(image_HW3, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)


def _label(canvas: Canvas, words: str) -> None:
    """Write at the bottom right, where neither figures nor heads' names are."""
    height, width = canvas.shape[:2]
    size = max(9, round(0.05 * height))
    if height < 60 or width < 80:
        return
    readable = words.encode(errors="replace").decode()
    while len(readable) > 1 and text_width(readable, size) > width - 3 * size:
        readable = readable[1:]  # an address differs at its end
    wide = text_width(readable, size)
    left, top = width - wide - 2 * size, height - 2 * size
    panel(canvas, left, top, wide + size, round(1.6 * size), radius=size // 2)
    text(canvas, left + size // 2, top + round(1.15 * size), readable, size, WHITE)
