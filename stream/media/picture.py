"""A decoded picture in, the picture as players show it out: upright, square pixels, its colours.

The display matrix turns and mirrors it, to the nearest quarter turn; pixels that are not square are
stretched in width; high dynamic range becomes ordinary (`tone_map`). All pictures of a file get the
size of the first, a camera's their own. FFmpeg converts; colours that are merely wide (BT.2020
without PQ or HLG) stay.

H W pixels.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from denseav.stream.media.errors import MediaError
from denseav.stream.media.mended_faults import Mends
from denseav.stream.media.tone_map import ToneMap, is_hdr

SMALLEST_SIDE = 16
LARGEST_SIDE = 8192
NARROWEST, WIDEST = Fraction(1, 4), Fraction(4)
"""Pixels of other shapes are no camera's, and shown as squares."""

Order = Literal["bgr24", "rgb24"]


class Display:
    """What shows the pictures of one file; called from one thread.

    Parameters
    ----------
    name : of the file, for people.
    pixel_aspect : a pixel's width over its height; None or 0 for squares.
    mends : takes what was wrong.
    one_size : give every picture the size of the first.
    """

    def __init__(
        self, name: str, pixel_aspect: Fraction | None, mends: Mends, *, one_size: bool = True
    ) -> None:
        self._name = name
        self._one_size = one_size
        self._aspect = pixel_aspect or Fraction(1)
        self._mends = mends
        self._reformatter = VideoReformatter()
        self._tone_map: ToneMap | None = None
        self._size: tuple[int, int] | None = None
        if not NARROWEST <= self._aspect <= WIDEST:
            mends.note(f"pixels of {self._aspect} are taken for squares")
            self._aspect = Fraction(1)

    def show(self, frame: av.VideoFrame, order: Order) -> NDArray[np.uint8]:
        """Return a picture [H, W, 3].

        Raises
        ------
        MediaError
            When a side is not between 16 and 8192 pixels.
        """
        turned = _matrix(frame)
        width, height = self._shown_size(frame, turned)
        if _swaps_sides(turned):
            width, height = height, width
        if is_hdr(frame):
            if self._tone_map is None or not self._tone_map.is_for(frame):
                self._tone_map = ToneMap(frame)
            frame = self._tone_map(frame)
        scaled = (width, height) != (frame.width, frame.height)
        image_HW3 = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format=order,
            interpolation="BICUBIC" if scaled else None,
            threads=1,
        ).to_ndarray()
        return np.ascontiguousarray(_turned(np.asarray(image_HW3, np.uint8), turned))

    def _shown_size(self, frame: av.VideoFrame, matrix: "Matrix") -> tuple[int, int]:
        """Return width and height of this picture as shown, or of the first."""
        width, height = round(frame.width * self._aspect), frame.height
        if _swaps_sides(matrix):
            width, height = height, width
        if self._size is None or not self._one_size:
            if not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in (width, height)):
                raise MediaError(
                    f"{self._name}: pictures of {width}x{height} are not between "
                    f"{SMALLEST_SIDE} and {LARGEST_SIDE} pixels on a side; scale the file first"
                )
            self._size = width, height
        elif self._size != (width, height):
            self._mends.note(
                f"pictures become {width}x{height}, and are shown as {self._size[0]}x"
                f"{self._size[1]}",
                frame.time or 0.0,
            )
        return self._size


@dataclass(frozen=True, slots=True)
class Matrix:
    """Where a display matrix takes the axes: its upper left corner, in a file's own unit."""

    a: int
    b: int
    c: int
    d: int


_UPRIGHT = Matrix(1, 0, 0, 1)


def _matrix(frame: av.VideoFrame) -> Matrix:
    # `frame.side_data` and its frame refer to each other: pictures would wait for the collector.
    beside: Any = SideDataContainer(frame)  # type: ignore[call-arg]
    data = beside.get("DISPLAYMATRIX")
    if data is None:
        return _UPRIGHT
    a, b, _, c, d = np.frombuffer(data, np.int32)[:5].tolist()
    return Matrix(a, b, c, d) if (a, b, c, d) != (0, 0, 0, 0) else _UPRIGHT


def _swaps_sides(matrix: Matrix) -> bool:
    return abs(matrix.b) + abs(matrix.c) > abs(matrix.a) + abs(matrix.d)


def _turned(image_HW3: NDArray[np.uint8], matrix: Matrix) -> NDArray[np.uint8]:
    """Return what the matrix shows: x' = a x + c y, y' = b x + d y, to whole quarter turns."""
    if _swaps_sides(matrix):
        image_HW3 = image_HW3.swapaxes(0, 1)
        along_x, along_y = matrix.c, matrix.b
    else:
        along_x, along_y = matrix.a, matrix.d
    return image_HW3[:: -1 if along_y < 0 else 1, :: -1 if along_x < 0 else 1]
