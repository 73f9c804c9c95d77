"""Colours, panels and type: what everything on a canvas is drawn with.

A canvas is uint8 `[height, width, 3]`, blue-green-red, and is drawn on in place. Sizes are pixels.
"""

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Canvas = NDArray[np.uint8]
Colour = tuple[int, int, int]  # blue, green, red

WHITE: Colour = (245, 245, 245)
NIGHT = 24  # each colour of where there is no picture
GREY: Colour = (178, 178, 178)
YELLOW: Colour = (66, 228, 240)

# Okabe and Ito's palette, which colour-blind people tell apart too.
_ORANGE: Colour = (0, 159, 230)
_SKY_BLUE: Colour = (233, 180, 86)
_PALETTE = (_ORANGE, _SKY_BLUE, (115, 158, 0), (167, 121, 204), YELLOW, (0, 94, 213))
_OWN_COLOUR = {"sound": _ORANGE, "speech": _SKY_BLUE}
_FACE = cv2.FontFace("sans")
_WEIGHT = 450
_PANEL_LIGHT = 80  # of 255: how much of the picture a panel lets through


def head_colours(names: Sequence[str]) -> tuple[Colour, ...]:
    """Return each head's colour: sound and speech have their own, others take what is left."""
    taken = {colour for name, colour in _OWN_COLOUR.items() if name in names}
    left = [colour for colour in _PALETTE if colour not in taken]
    others = [name for name in names if name not in _OWN_COLOUR]
    given = {name: left[i % len(left)] for i, name in enumerate(others)}
    return tuple(_OWN_COLOUR.get(name) or given[name] for name in names)


def type_size(canvas: Canvas) -> int:
    """Return the size of type for a canvas, or 0 where no type would be readable."""
    height, width = canvas.shape[:2]
    if height < 120 or width < 160:
        return 0
    return max(9, int(0.027 * min(height, 0.75 * width) + 0.5))


def text_width(words: str, size: int) -> int:
    """Return how wide `words` are."""
    _, _, width, _ = cv2.getTextSize((0, 0), words, (0, 0), _FACE, size, _WEIGHT)
    return int(width)


def text(canvas: Canvas, left: int, baseline: int, words: str, size: int, colour: Colour) -> None:
    """Write `words` from the point (`left`, `baseline`)."""
    cv2.putText(canvas, words, (left, baseline), colour, _FACE, size, _WEIGHT)


def panel(canvas: Canvas, left: int, top: int, width: int, height: int, radius: int) -> None:
    """Darken a rectangle with round corners; what lies outside the canvas is left out."""
    area = canvas[max(0, top) : top + height, max(0, left) : left + width]
    if area.size:
        shade = _shade(area.shape[1], area.shape[0], radius)
        cv2.multiply(area, shade, dst=area, scale=1 / 255)


@lru_cache(maxsize=16)
def _shade(width: int, height: int, radius: int) -> Canvas:
    fine = 4  # drawn four times as large, so that the corners come out smooth
    wide, high, round_ = fine * width, fine * height, fine * radius
    shade = np.full((high, wide), 255, np.uint8)
    cv2.rectangle(shade, (round_, 0), (wide - round_, high), _PANEL_LIGHT, cv2.FILLED)
    cv2.rectangle(shade, (0, round_), (wide, high - round_), _PANEL_LIGHT, cv2.FILLED)
    for x in (round_, wide - round_ - 1):
        for y in (round_, high - round_ - 1):
            cv2.circle(shade, (x, y), round_, _PANEL_LIGHT, cv2.FILLED)
    small = cv2.resize(shade, (width, height), interpolation=cv2.INTER_AREA)
    return np.repeat(small[..., None], 3, axis=2).astype(np.uint8)


def meter(canvas: Canvas, left: int, middle: int, width: int, level: float, colour: Colour) -> None:
    """Draw a level in [0, 1] as a bar from the point (`left`, `middle`)."""
    thickness = max(2, width // 14)
    cv2.line(canvas, (left, middle), (left + width, middle), (90, 90, 90), thickness, cv2.LINE_AA)
    if level > 0:
        end = left + round(width * level)
        cv2.line(canvas, (left, middle), (end, middle), colour, thickness, cv2.LINE_AA)
