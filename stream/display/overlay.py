"""The overlay: a `Heatmap` to a canvas uint8 [H, W, 3], the frame with each head's glow on it.

Besides the overlay there are two views with pictures side by side: one for each head, and the
overlay beside the dense features. How strongly a head shows is `heat_scale`'s
business. Nothing here opens a window or a file.

Axes: K heads, H W pixels or the feature grid.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from denseav.export.runtime.bundle import Head
from denseav.stream.display.drawing import (
    GREY,
    YELLOW,
    Canvas,
    head_colours,
    meter,
    panel,
    text,
    text_width,
    type_size,
)
from denseav.stream.display.feature_pca import FeatureColours
from denseav.stream.display.heat_blend import glow
from denseav.stream.display.heat_scale import Scale
from denseav.stream.errors import UsageError
from denseav.stream.types import Heatmap

LONGEST_SIDE = 1920
UNTRAINED = "UNTRAINED MODEL - random weights"
VIEWS = ("overlay", "sound", "speech", "both", "features")

_LAYOUTS = ("overlay", "both", "features")
_SEAM = 4  # pixels between pictures side by side
_NIGHT = 24  # of 255: how bright they are


class Overlay:
    """Draws heatmaps.

    Parameters
    ----------
    heads : the model's heads, in the order of the heatmap's first axis.
    trained : False labels every picture as the work of random weights.
    view : one of `VIEWS`; `sound` and `speech` are the overlay of that head alone.

    Raises
    ------
    UsageError
        When the model has no head of that name.

    Attributes
    ----------
    heads : the same.
    scale : how strongly heat shows.
    """

    def __init__(self, heads: Sequence[Head], trained: bool, view: str = "overlay") -> None:
        self.heads = heads
        self._names = [head.name for head in heads]
        self._trained = trained
        self._colours = head_colours(self._names)
        self._choices = _choices(len(self._names))
        self._choice = 0
        self._layout = view if view in _LAYOUTS else "overlay"
        self._features = FeatureColours()
        self.scale = Scale(heads)
        if view not in _LAYOUTS:
            self._choice = self._choices.index((self._index(view),))

    def _index(self, name: str) -> int:
        if name not in self._names:
            has = " and ".join(self._names)
            raise UsageError(f"this model has no head {name!r}, but {has}; use --view overlay")
        return self._names.index(name)

    @property
    def shown(self) -> tuple[str, ...]:
        """The names of the heads that are drawn."""
        return tuple(self._names[k] for k in self._choices[self._choice])

    @property
    def wants_features(self) -> bool:
        """Whether heatmaps should bring their picture's features along."""
        return self._layout == "features"

    def strength(self, heatmap: Heatmap) -> NDArray[np.float32]:
        """Return float32 `[K, H, W]` in [0, 1], as `Scale.strength` does; once a heatmap."""
        return self.scale.strength(heatmap)

    def cycle(self) -> None:
        """Show the next choice of heads: all, each alone, none, and all again."""
        self._choice = (self._choice + 1) % len(self._choices)

    def cycle_layout(self) -> None:
        """From the overlay to the heads side by side, to the features, and to the overlay again."""
        self._layout = _LAYOUTS[(_LAYOUTS.index(self._layout) + 1) % len(_LAYOUTS)]

    def draw(
        self, heatmap: Heatmap, strength_KHW: NDArray[np.float32], legend: bool = True
    ) -> Canvas:
        """Return a new picture, uint8 `[height, width, 3]`, blue-green-red.

        It is the frame, or some of them side by side, made smaller where the long side is over
        1920, with even sides. Type is left out where it could not be read.

        Parameters
        ----------
        strength_KHW : float32 in [0, 1], from `strength`.
        legend : whether to list the heads' names and levels; pictures of one head have theirs.
        """
        chosen = self._choices[self._choice]
        apart = self._layout == "both" and len(chosen) > 1
        groups = [(k,) for k in chosen] if apart else [chosen]
        beside = len(groups) + self.wants_features
        pictures = [_canvas(heatmap.frame.image_HW3, beside) for _ in groups]
        for picture, heads in zip(pictures, groups, strict=True):
            glowing = [k for k in heads if strength_KHW[k].any()]
            if glowing:
                glow(picture, strength_KHW[glowing], [self._colours[k] for k in glowing])
        taken = [(0, 0)] * beside
        level_K = strength_KHW.max(axis=(1, 2)).tolist()
        for i, heads in enumerate(groups):
            if apart or legend:
                listed = heads if apart else range(len(self._names))
                taken[i] = self._legend(pictures[i], level_K, listed)
        if self.wants_features:
            pictures.append(self._feature_picture(heatmap, pictures[0].shape))
        if not self._trained:
            _warning(pictures[-1], *taken[-1])
        return _side_by_side(pictures)

    def _feature_picture(self, heatmap: Heatmap, shape: tuple[int, ...]) -> Canvas:
        """Return the features in colours, or darkness where the heatmap did not bring them."""
        if heatmap.features_KCHW is None:
            return np.full(shape, _NIGHT, np.uint8)
        colours_HW3 = self._features.colour(heatmap.features_KCHW, heatmap.frame.capture_s)
        size = (shape[1], shape[0])
        return cv2.resize(colours_HW3, size, interpolation=cv2.INTER_CUBIC).astype(np.uint8)

    def _legend(
        self, canvas: Canvas, level_K: Sequence[float], listed: Sequence[int]
    ) -> tuple[int, int]:
        """Draw names and levels at the bottom left; return the width and height it took up."""
        size = type_size(canvas)
        if not size:
            return 0, 0
        gap, row, bar = size, round(1.7 * size), 6 * size
        names = max(text_width(self._names[k], size) for k in listed)
        width, height = names + bar + 3 * gap, row * len(listed) + gap // 2
        top = canvas.shape[0] - height - gap
        panel(canvas, gap, top, width, height, radius=size // 2)
        for i, k in enumerate(listed):
            shown = k in self._choices[self._choice]
            middle = top + gap // 4 + row * i + row // 2
            colour = self._colours[k] if shown else GREY
            text(canvas, 2 * gap, middle + round(0.32 * size), self._names[k], size, colour)
            meter(canvas, 3 * gap + names, middle, bar, level_K[k] if shown else 0.0, colour)
        return width + gap, height + gap


def _warning(canvas: Canvas, legend_width: int, legend_height: int) -> None:
    """Say that the weights are random: at the bottom right, above the legend where it is narrow."""
    gap = size = type_size(canvas)
    if not size:
        return
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
    text(canvas, left + gap, baseline, UNTRAINED, size, YELLOW)


def _canvas(image_HW3: Canvas, beside: int) -> Canvas:
    """Return a copy that is small enough for `beside` of them in a row, with even sides."""
    height, width = image_HW3.shape[:2]
    room = LONGEST_SIDE - (beside - 1) * _SEAM
    scale = min(1.0, LONGEST_SIDE / height, room / (beside * width))
    even = (max(2, 2 * int(width * scale / 2)), max(2, 2 * int(height * scale / 2)))
    if even == (width, height):
        return image_HW3.copy()
    return cv2.resize(image_HW3, even, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _side_by_side(pictures: Sequence[Canvas]) -> Canvas:
    if len(pictures) == 1:
        return pictures[0]
    seam_HW3 = np.full((pictures[0].shape[0], _SEAM, 3), _NIGHT, np.uint8)
    row = [part for picture in pictures for part in (seam_HW3, picture)]
    return np.concatenate(row[1:], axis=1)


def _choices(heads: int) -> tuple[tuple[int, ...], ...]:
    every = tuple(range(heads))
    alone = [(k,) for k in every] if heads > 1 else []
    return (every, *alone, ())
