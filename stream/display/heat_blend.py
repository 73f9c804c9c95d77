"""The blend of heat: strengths [K, H, W] to light on a canvas, each head in its colour, in place.

Axes: K heads, H W pixels or the feature grid, N points of a line.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from denseav.stream.display.drawing import Canvas, Colour

_OPACITY = 0.75  # of a head at its ceiling: the picture stays visible beneath
_OUTLINE_AT = 0.5  # the strength that is outlined
_BLEND_GRID = 160  # long side of the grid that the maps are blended on, then enlarged


def glow(canvas: Canvas, strength_KHW: NDArray[np.float32], colours: Sequence[Colour]) -> None:
    """Blend the heads onto the canvas, in place: where they overlap, their colours mix."""
    height, width = canvas.shape[:2]
    shrink = max(4.0, max(height, width) / _BLEND_GRID)
    _, map_height, map_width = strength_KHW.shape
    grid = (
        min(width, max(map_width, round(width / shrink))),
        min(height, max(map_height, round(height / shrink))),
    )
    how = cv2.INTER_CUBIC if grid[0] >= map_width and grid[1] >= map_height else cv2.INTER_AREA
    fine_KHW = [
        np.clip(cv2.resize(each_HW, grid, interpolation=how), 0, 1) for each_HW in strength_KHW
    ]
    clear_HW3, light_HW3 = _mixed(fine_KHW, colours)
    cv2.multiply(canvas, cv2.resize(clear_HW3, (width, height)), dst=canvas, scale=1 / 255)
    cv2.add(canvas, cv2.resize(light_HW3, (width, height)), dst=canvas)
    for fine_HW, colour in zip(fine_KHW, colours, strict=True):
        _outline(canvas, fine_HW, colour)


def _mixed(
    strength_KHW: Sequence[NDArray[np.float32]], colours: Sequence[Colour]
) -> tuple[Canvas, Canvas]:
    """Return how much of the picture stays, of 255, and the light to add, both `[H, W, 3]`."""
    shape = strength_KHW[0].shape
    clear_HW, total_HW = np.ones(shape, np.float32), np.zeros(shape, np.float32)
    light_HW3 = np.zeros((*shape, 3), np.float32)
    for strength_HW, colour in zip(strength_KHW, colours, strict=True):
        alpha_HW = _OPACITY * strength_HW
        clear_HW *= 1 - alpha_HW
        total_HW += alpha_HW
        light_HW3 += alpha_HW[..., None] * np.array(colour, np.float32)
    light_HW3 *= ((1 - clear_HW) / np.maximum(total_HW, 1e-6))[..., None]
    clear_HW3 = np.repeat(np.rint(255 * clear_HW).astype(np.uint8)[..., None], 3, axis=2)
    return clear_HW3, np.rint(light_HW3).astype(np.uint8)


def _outline(canvas: Canvas, strength_HW: NDArray[np.float32], colour: Colour) -> None:
    """Draw a thin line round what is stronger than a half, in place."""
    height, width = canvas.shape[:2]
    at = round(255 * _OUTLINE_AT)
    full_HW = cv2.resize((255 * strength_HW).astype(np.uint8), (width, height))
    _, inside_HW = cv2.threshold(full_HW, at, 255, cv2.THRESH_BINARY)
    edges, _ = cv2.findContours(inside_HW, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, round(min(height, width) / 360))
    smooth = max(3, min(height, width) // 40)
    for edge_N12 in edges:
        if len(edge_N12) > 4 * smooth:
            ring = np.concatenate([edge_N12[-smooth:], edge_N12, edge_N12[:smooth]])
            rounded = cv2.blur(16 * ring.astype(np.float32), (1, 2 * (smooth // 2) + 1))
            points = np.rint(rounded[smooth:-smooth]).astype(np.int32)
            cv2.polylines(canvas, [points], True, colour, thickness, cv2.LINE_AA, shift=4)
