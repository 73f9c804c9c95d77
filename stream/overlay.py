"""A heatmap enters, a picture for people leaves: the frame with each head's glow on it.

How strongly a head shows is fixed by its threshold and ceiling, which come with the model. It is
never scaled to the frame, so silence shows nothing. Nothing here opens a window or a file.

Axes: K heads, H W pixels or the feature grid.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from denseav.export.bundle import Head
from denseav.stream.flow import Heatmap
from denseav.stream.paint import GREY, Canvas, Colour, meter, panel, text, text_width, type_size

LONGEST_SIDE = 1920
UNTRAINED = "UNTRAINED MODEL - random weights"

# Okabe and Ito's palette, which colour-blind people tell apart too.
_ORANGE: Colour = (0, 159, 230)
_SKY_BLUE: Colour = (233, 180, 86)
_PALETTE: tuple[Colour, ...] = (
    _ORANGE,
    _SKY_BLUE,
    (115, 158, 0),
    (167, 121, 204),
    (66, 228, 240),
    (0, 94, 213),
)
_OWN_COLOUR = {"sound": _ORANGE, "speech": _SKY_BLUE}
_WARNING: Colour = (66, 228, 240)
_OPACITY = 0.75  # of a head at its ceiling: the picture stays visible beneath
_OUTLINE_AT = 0.5  # the strength that is outlined
_BLEND_GRID = 160  # long side of the grid that the maps are blended on, then enlarged


class Overlay:
    """Draws heatmaps.

    Parameters
    ----------
    heads : the model's heads, in the order of the heatmap's first axis.
    trained : False labels every picture as the work of random weights.
    """

    def __init__(self, heads: Sequence[Head], trained: bool) -> None:
        self._heads = tuple(heads)
        self._trained = trained
        self._colours = _colours([head.name for head in heads])
        self._choices = _choices(len(self._heads))
        self._choice = 0
        self._threshold_K11 = np.array([[[head.threshold]] for head in heads], np.float32)
        ceiling_K11 = np.array([[[head.ceiling]] for head in heads], np.float32)
        self._range_K11 = ceiling_K11 - self._threshold_K11

    @property
    def shown(self) -> tuple[str, ...]:
        """The names of the heads that are drawn."""
        return tuple(self._heads[k].name for k in self._choices[self._choice])

    def cycle(self) -> None:
        """Show the next choice of heads: all, each alone, none, and all again."""
        self._choice = (self._choice + 1) % len(self._choices)

    def strength(self, heatmap: Heatmap) -> NDArray[np.float32]:
        """Return float32 `[K, H, W]` in [0, 1]: 0 at a head's threshold, 1 at its ceiling.

        A head that is not valid is 0 everywhere, and so is a heat that is not a number.
        """
        raw_KHW = (heatmap.heat_KHW - self._threshold_K11) / self._range_K11
        strength_KHW = np.fmin(np.fmax(raw_KHW, 0), 1).astype(np.float32)
        strength_KHW[~np.array(heatmap.valid_K, bool)] = 0
        return strength_KHW

    def draw(self, heatmap: Heatmap) -> Canvas:
        """Return a new picture, uint8 `[height, width, 3]`, blue-green-red.

        It is the frame, made smaller where its long side is over 1920, with even sides. Type is
        left out where it could not be read.
        """
        canvas = _canvas(heatmap.frame.image_HW3)
        strength_KHW = self.strength(heatmap)
        shown = [k for k in self._choices[self._choice] if strength_KHW[k].any()]
        if shown:
            _glow(canvas, strength_KHW[shown], [self._colours[k] for k in shown])
        size = type_size(canvas)
        if size:
            width, height = self._legend(canvas, strength_KHW.max(axis=(1, 2)).tolist(), size)
            if not self._trained:
                _warning(canvas, size, width, height)
        return canvas

    def _legend(self, canvas: Canvas, level_K: Sequence[float], size: int) -> tuple[int, int]:
        """Draw names and levels at the bottom left; return the width and height it took up."""
        gap, row, bar = size, round(1.7 * size), 6 * size
        names = max(text_width(head.name, size) for head in self._heads)
        width, height = names + bar + 3 * gap, row * len(self._heads) + gap // 2
        top = canvas.shape[0] - height - gap
        panel(canvas, gap, top, width, height, radius=size // 2)
        for k, head in enumerate(self._heads):
            shown = k in self._choices[self._choice]
            middle = top + gap // 4 + row * k + row // 2
            colour = self._colours[k] if shown else GREY
            text(canvas, 2 * gap, middle + round(0.32 * size), head.name, size, colour)
            level = level_K[k] if shown else 0.0
            meter(canvas, 3 * gap + names, middle, bar, level, colour)
        return width + gap, height + gap


def _warning(canvas: Canvas, size: int, legend_width: int, legend_height: int) -> None:
    """Say that the weights are random: at the bottom right, above the legend where it is narrow."""
    gap = size
    space = canvas.shape[1] - 4 * gap
    width = text_width(UNTRAINED, size)
    if width > space:
        size = max(5, size * space // width)
        width = text_width(UNTRAINED, size)
    height = round(1.7 * size) + gap // 2
    left = canvas.shape[1] - width - 3 * gap
    top = canvas.shape[0] - height - gap
    if left < legend_width + gap:
        left, top = gap, top - legend_height
    panel(canvas, left, top, width + 2 * gap, height, radius=gap // 2)
    baseline = top + height // 2 + round(0.35 * size)
    text(canvas, left + gap, baseline, UNTRAINED, size, _WARNING)


def _canvas(image_HW3: Canvas) -> Canvas:
    height, width = image_HW3.shape[:2]
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    even = (max(2, 2 * int(width * scale / 2)), max(2, 2 * int(height * scale / 2)))
    if even == (width, height):
        return image_HW3.copy()
    return cv2.resize(image_HW3, even, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _glow(canvas: Canvas, strength_KHW: NDArray[np.float32], colours: Sequence[Colour]) -> None:
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


def _colours(names: Sequence[str]) -> tuple[Colour, ...]:
    """Return each head's colour: sound and speech have their own, others take what is left."""
    left = [colour for colour in _PALETTE if colour not in _taken(names)]
    others = [name for name in names if name not in _OWN_COLOUR]
    given = {name: left[i % len(left)] for i, name in enumerate(others)}
    return tuple(_OWN_COLOUR.get(name) or given[name] for name in names)


def _taken(names: Sequence[str]) -> set[Colour]:
    return {colour for name, colour in _OWN_COLOUR.items() if name in names}


def _choices(heads: int) -> tuple[tuple[int, ...], ...]:
    every = tuple(range(heads))
    alone = [(k,) for k in every] if heads > 1 else []
    return (every, *alone, ())
