"""The timeline: audio and the heads' levels with their times to a strip of the last ten seconds.

The audio's envelope runs along the top, a lane for each head below it, the newest at the right
edge. A head that comes up after silence leaves a line through the sound, so that eyes can compare
the two onsets. Sound comes in on the sources' threads, everything else on one.

Axes: K heads, S samples, C channels, N columns of time, W columns and H rows of pixels.
"""

import math
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from threading import Lock

import cv2
import numpy as np
from numpy.typing import NDArray

from denseav.export.runtime.bundle import Head
from denseav.stream.display.drawing import (
    GREY,
    WHITE,
    Canvas,
    Colour,
    head_colours,
    text,
    text_width,
    type_size,
)
from denseav.stream.types import AudioBlock, Heatmap

SPAN_S = 10.0
_RATE = 64  # columns of time a second
_SHOWN = int(SPAN_S * _RATE)
_KEPT = 1024  # so much sound may be ahead of the picture it belongs to: six seconds
_HELD_S = 1.5  # a level holds until the next one, but no longer
_QUIET_S = 0.3  # of silence before an onset is one
_GROUND: Colour = (28, 25, 24)
_FINE = 15  # steps of a pixel that edges are drawn in


class Strip:
    """The audio of the last seconds, and the levels of the heads.

    Parameters
    ----------
    heads : the model's heads, in the order of the heatmap's first axis.
    shown : whether it is drawn; may be changed at any time.
    """

    def __init__(self, heads: Sequence[Head], shown: bool = True) -> None:
        self.shown = shown
        self._names = tuple(head.name for head in heads)
        self._colours = head_colours(self._names)
        self._loudness = Loudness()
        self._levels_K = [_Columns() for _ in heads]
        self._valid_K = [_Columns() for _ in heads]
        self._now_s = 0.0
        self._last_s: float | None = None
        self._active_s_K = [-math.inf] * len(heads)
        self._onsets: deque[tuple[int, int]] = deque(maxlen=64 * len(heads))  # column, head

    def audio(self, block: AudioBlock) -> None:
        """Take some sound. Callable from any thread."""
        self._loudness.audio(block)

    def heatmap(self, heatmap: Heatmap, level_K: Sequence[float]) -> None:
        """Take the strongest place of each head, in [0, 1], at the time of its picture."""
        now_s = heatmap.frame.capture_s
        column = math.floor(now_s * _RATE)
        held = 0
        if self._last_s is not None and 0 <= now_s - self._last_s < _HELD_S:
            held = column - math.floor(self._last_s * _RATE)
        self._now_s, self._last_s = now_s, now_s
        for k, level in enumerate(level_K):
            self._levels_K[k].hold(column, held, level)
            self._valid_K[k].hold(column, held, float(heatmap.valid_K[k]))
            if level > 0:
                if now_s - self._active_s_K[k] > _QUIET_S:
                    self._onsets.append((column, k))
                self._active_s_K[k] = now_s

    def under(self, picture: Canvas, shown: Sequence[str]) -> Canvas:
        """Return the picture with the strip under it, where it is shown and takes a third at most.

        Parameters
        ----------
        shown : the names of the heads that the picture shows; the others' names are grey.
        """
        size = type_size(picture)
        if not (self.shown and size) or 3 * _Rows(size, len(self._names)).height > len(picture):
            return picture
        return np.concatenate([picture, self.draw(picture.shape[1], size, shown)])

    def draw(self, width: int, size: int, shown: Sequence[str]) -> Canvas:
        """Return uint8 `[height, width, 3]`, blue-green-red, of even height.

        Parameters
        ----------
        size : of the type, in pixels; heights follow it.
        shown : as in `under`.
        """
        rows = _Rows(size, len(self._names))
        canvas = _background(width, size, self._names, tuple(shown)).copy()
        left, end = _gutter(self._names, size), math.floor(self._now_s * _RATE)
        edges_W = np.arange(width - left) * _SHOWN // (width - left)
        loud_N = self._loudness.until(end)
        plot = canvas[:, left:]
        self._rule(plot, end)
        # Quiet speech is a fiftieth of full scale: the root shows it, on a scale that stays.
        loud_W = np.sqrt(np.maximum.reduceat(loud_N, edges_W))
        _fill(plot[rows.sound], _waves(loud_W, rows.wave), WHITE)
        for k, colour in enumerate(self._colours):
            lane = plot[rows.lane(k)]
            level_W = np.maximum.reduceat(self._levels_K[k].until(end), edges_W)
            valid_W = np.maximum.reduceat(self._valid_K[k].until(end), edges_W)
            lane[-1][valid_W > 0] = [part // 2 for part in colour]
            _fill(lane, _hills(level_W, rows.hill), colour)
        self._mark(plot, end, rows)
        return canvas

    def _rule(self, plot: Canvas, end: int) -> None:
        """Draw a faint line each second."""
        for column in range(end - end % _RATE, end - _SHOWN, -_RATE):
            x = _x(column, end, plot.shape[1])
            plot[:, x] = 46

    def _mark(self, plot: Canvas, end: int, rows: "_Rows") -> None:
        """Draw a line from the sound's lane down to each head's rise."""
        for column, k in self._onsets:
            if end - _SHOWN < column <= end:
                lane = rows.lane(k)
                x = _x(column, end, plot.shape[1])
                line = plot[: lane.stop, x]
                line[:] = (line // 2 + np.array(self._colours[k], np.uint8) // 2).astype(np.uint8)


class Loudness:
    """The audio's peaks of the last seconds, in columns of time. Any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._peaks = _Columns()

    def audio(self, block: AudioBlock) -> None:
        """Take some sound."""
        peak_S = np.abs(block.samples_SC.mean(axis=1))
        first = math.floor(block.capture_s * _RATE)
        last = math.ceil(block.end_s * _RATE) - 1
        if last < first:
            return
        begin_s_N = np.arange(first, last + 1) / _RATE - block.capture_s
        begin_N = np.clip(np.ceil(begin_s_N * block.rate_hz), 0, len(peak_S) - 1).astype(int)
        with self._lock:
            self._peaks.put(first, np.maximum.reduceat(peak_S, begin_N))

    def until(self, end: int) -> NDArray[np.float32]:
        """Return the peaks of the ten seconds up to and with column `end`."""
        with self._lock:
            return self._peaks.until(end)

    def since(self, column: int | None) -> tuple[float, int, NDArray[np.float32]]:
        """Return the peaks from a column on, of ten seconds at most; None for all of those.

        Returns
        -------
        begin_s, end, peak_N : the time of the first, the column after the last, and float32 [N].
            The newest column is left out, for it may still rise.
        """
        with self._lock:
            end = (self._peaks.end or 0) - 1
            count = min(_SHOWN, end if column is None else max(0, end - column))
            peak_N = self._peaks.until(end - 1)[_SHOWN - max(0, count) :]
        return (end - len(peak_N)) / _RATE, end, peak_N


class _Columns:
    """One value for each column of time, the newest `_KEPT` of them; nothing is 0."""

    def __init__(self) -> None:
        self._value_N = np.zeros(_KEPT, np.float32)
        self.end: int | None = None  # the column after the newest

    def put(self, first: int, value_N: NDArray[np.float32]) -> None:
        """Take values that begin at a column; where there are some already the larger stay."""
        first, value_N = max(first, first + len(value_N) - _KEPT), value_N[-_KEPT:]
        end = first + len(value_N)
        if self.end is None:
            self.end = first
        if end <= self.end - _KEPT:
            return
        fresh = np.arange(self.end, min(end, self.end + _KEPT)) % _KEPT
        self._value_N[fresh] = 0
        at = np.arange(first, end) % _KEPT
        self._value_N[at] = np.maximum(self._value_N[at], value_N)
        self.end = max(self.end, end)

    def hold(self, column: int, held: int, value: float) -> None:
        """Take the value of a column, and let the one before it last until there."""
        before = self._value_N[(column - held) % _KEPT] if held else 0.0
        value_N = np.full(held + 1, before, np.float32)
        value_N[-1] = value
        self.put(column - held, value_N)

    def until(self, end: int) -> NDArray[np.float32]:
        """Return the `_SHOWN` values up to and with column `end`."""
        columns = np.arange(end - _SHOWN + 1, end + 1)
        newest = self.end or 0
        known = (columns < newest) & (columns >= newest - _KEPT)
        return np.where(known, self._value_N[columns % _KEPT], np.float32(0))


class _Rows:
    """Where things are, in rows of pixels from the top."""

    def __init__(self, size: int, heads: int) -> None:
        self._gap = max(2, size // 3)
        self.wave = 2 * (5 * size // 4)
        self.hill = round(1.5 * size)
        self.sound = slice(self._gap, self._gap + self.wave)
        total = 2 * self._gap + self.wave + heads * (self.hill + self._gap)
        self.height = total + total % 2

    def lane(self, k: int) -> slice:
        top = self.sound.stop + self._gap + k * (self.hill + self._gap)
        return slice(top, top + self.hill)


def _x(column: int, end: int, width: int) -> int:
    return min(width - 1, (column - end + _SHOWN - 1) * width // _SHOWN)


def _gutter(names: tuple[str, ...], size: int) -> int:
    return max(text_width(name, size) for name in ("audio", *names)) + 2 * size


@lru_cache(maxsize=16)
def _background(width: int, size: int, names: tuple[str, ...], shown: tuple[str, ...]) -> Canvas:
    """Return the ground with the lanes' names, which stays the same for long."""
    rows = _Rows(size, len(names))
    canvas = np.full((rows.height, width, 3), _GROUND, np.uint8)
    own = zip(names, head_colours(names), strict=True)
    colours = [GREY, *(colour if name in shown else GREY for name, colour in own)]
    lanes = [rows.sound, *(rows.lane(k) for k in range(len(names)))]
    for name, lane, colour in zip(("audio", *names), lanes, colours, strict=True):
        baseline = (lane.start + lane.stop) // 2 + round(0.34 * size)
        text(canvas, size, baseline, name, size, colour)
    return canvas


def _waves(loud_W: NDArray[np.float32], height: int) -> NDArray[np.uint8]:
    """Return how much of each pixel lies within the envelope, of 255; `[H, W]`."""
    reach_W = (_FINE * height / 2 * np.minimum(loud_W, 1)).astype(np.int16)
    off_H = (_FINE * np.abs(np.arange(height) + 0.5 - height / 2)).astype(np.int16)
    return _cover(reach_W, off_H)


def _hills(level_W: NDArray[np.float32], height: int) -> NDArray[np.uint8]:
    """Return how much of each pixel lies below the level, of 255; `[H, W]`."""
    reach_W = (_FINE * height * level_W).astype(np.int16)
    off_H = (_FINE * (height - 0.5 - np.arange(height))).astype(np.int16)
    return _cover(reach_W, off_H)


def _cover(reach_W: NDArray[np.int16], off_H: NDArray[np.int16]) -> NDArray[np.uint8]:
    inside_HW = reach_W[None] - off_H[:, None] + np.int16(_FINE // 2)
    inside_HW[:, reach_W == 0] = 0
    cover_HW = np.clip(inside_HW, 0, _FINE) * np.int16(255 // _FINE)
    return np.asarray(cover_HW, np.uint8)


def _fill(area: Canvas, cover_HW: NDArray[np.uint8], colour: Colour) -> None:
    """Lay a colour over an area, as much as it is covered."""
    shade_HW3 = cv2.applyColorMap(cover_HW, _shades(colour))
    cv2.copyTo(shade_HW3, cover_HW, area)


@lru_cache(maxsize=16)
def _shades(colour: Colour) -> NDArray[np.uint8]:
    """Return the way from the ground to a colour in 256 steps; uint8 `[256, 1, 3]`."""
    share_N11 = np.linspace(0, 1, 256)[:, None, None]
    ground_3, colour_3 = np.array(_GROUND, float), np.array(colour, float)
    return np.asarray(np.rint(ground_3 + share_N11 * (colour_3 - ground_3)), np.uint8)
