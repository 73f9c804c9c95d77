"""A clip as a figure: frames, each head's maps, the waveform and each head's level over time.

Offline, through the run that all else goes through. Matplotlib is the extra `plot`; the figure is
its own, without a window or a backend.

Axes: K heads, N moments.
"""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from denseav.export.runtime.bundle import Manifest
from denseav.stream.app.build import run
from denseav.stream.display.drawing import Colour, head_colours
from denseav.stream.display.heat_blend import glow
from denseav.stream.display.heat_scale import Scale
from denseav.stream.errors import SourceError, StreamError, UsageError
from denseav.stream.options import DisplayOptions, LiveOptions, ModelOptions, SourceOptions
from denseav.stream.sources.open import open_file
from denseav.stream.types import AudioBlock, Film, Frame, Heatmap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOMENTS_MAX = 24
_COLUMN_INCHES = 2.2


def explain(
    source: str | Path,
    *,
    model: str | Path | None = None,
    device: str = "auto",
    threads: int = 1,
    moments: int = 6,
) -> "Figure":
    """Run a file and return a figure of what was found in it.

    Parameters
    ----------
    source : a file with picture and sound, or a recorded run.
    model : a bundle's folder; without it the exported one, else the demo's.
    device, threads : where it runs, as `denseav-live --device` has them.
    moments : how many frames are shown: of as many parts of the clip, where a head is brightest
        in each; 2 to 24.

    Returns
    -------
    figure
        Of Matplotlib: a row of frames, a row of each head's maps, and over time the waveform and
        each head's level: 0 at its threshold, 1 at its ceiling. `figure.savefig("clip.png")`
        writes it; a notebook shows it.

    Raises
    ------
    SourceError, BundleError
        As `live`.
    StreamError
        When Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise StreamError(
            f"a figure needs Matplotlib ({error}); in a clone of denseav: pip install '.[plot]'"
        ) from None
    if not 2 <= moments <= MOMENTS_MAX:
        raise UsageError(f"moments is from 2 to {MOMENTS_MAX}, not {moments!r}")
    options = LiveOptions(
        sources=SourceOptions(source=Path(source), offline=True),
        model=ModelOptions(
            model=None if model is None else Path(model),
            device=device,
            threads=threads,
            audio="window",
        ),
        display=DisplayOptions(headless=True),
    )
    waveform = _Waveform(open_file(options.sources))
    found = _Found(2 * moments)
    run(
        options,
        threading.Event(),
        threading.Event(),
        say=lambda _: None,
        film=waveform,
        consumer=found,
    )
    if not found.kept:
        raise SourceError(f"{source} has no frame to show")
    figure = Figure(layout="constrained")
    _draw(figure, found, waveform, moments)
    return figure


class _Waveform:
    """A film that notes how loud its audio was while it is played."""

    def __init__(self, film: Film) -> None:
        self.name, self.fps, self.rate_hz = film.name, film.fps, film.rate_hz
        self.times_s: list[float] = []
        self.peaks: list[float] = []
        self._film = film

    def __iter__(self) -> Iterator[Frame | AudioBlock]:
        return self.items()

    def items(self, frames_late_s: float = 0.0) -> Iterator[Frame | AudioBlock]:
        """As `Film.items`."""
        for item in self._film.items(frames_late_s):
            if isinstance(item, AudioBlock) and item.samples_SC.size:
                self.times_s.append(item.capture_s)
                self.peaks.append(float(np.abs(item.samples_SC).max()))
            yield item


class _Found:
    """What a run found: every head's level, and the brightest heatmap of each part.

    Parts are of some frames each, the more the longer it lasts, and at most `most` in number.
    """

    def __init__(self, most: int) -> None:
        self.names: list[str] = []
        self.times_s: list[float] = []
        self.levels_K: list[list[float]] = []
        self.kept: list[_Kept] = []
        self._most, self._part_frames = most, 1

    def begin(self, manifest: Manifest) -> None:
        """As `app.build.Consumer.begin`."""
        self.names = [head.name for head in manifest.heads]
        self._scale = Scale(manifest.heads)

    def heatmap(self, heatmap: Heatmap) -> None:
        """Note its levels; keep it while it is the brightest of its part."""
        strength_KHW = self._scale.strength(heatmap)
        kept = _Kept(heatmap, strength_KHW)
        if len(self.times_s) % self._part_frames == 0:
            self.kept.append(kept)
        else:
            self.kept[-1] = _brightest([self.kept[-1], kept])
        if len(self.kept) > self._most:
            pairs = range(0, len(self.kept), 2)
            self.kept = [_brightest(self.kept[first : first + 2]) for first in pairs]
            self._part_frames *= 2
        self.times_s.append(heatmap.frame.capture_s)
        self.levels_K.append(strength_KHW.max(axis=(1, 2)).tolist())

    def moments(self, most: int) -> list["_Kept"]:
        """Return the brightest of so many parts, in their order."""
        parts = np.array_split(np.arange(len(self.kept)), min(most, len(self.kept)))
        return [_brightest([self.kept[index] for index in part]) for part in parts]


class _Kept(NamedTuple):
    heatmap: Heatmap
    strength_KHW: NDArray[np.float32]


def _brightest(kept: Sequence[_Kept]) -> _Kept:
    """Return the one in which most is lit, and the first of equals."""
    return max(kept, key=lambda each: float(each.strength_KHW.sum()))


def _draw(figure: "Figure", found: _Found, waveform: _Waveform, moments: int) -> None:
    shown, heads = found.moments(moments), len(found.names)
    colours = head_colours(found.names)
    height, width = shown[0][0].frame.image_HW3.shape[:2]
    row_inches = _COLUMN_INCHES * height / width
    figure.set_size_inches(_COLUMN_INCHES * len(shown), (1 + heads) * row_inches + 2.2)
    grid = figure.add_gridspec(
        2 + heads, len(shown), height_ratios=[*(row_inches for _ in range(1 + heads)), 2.0]
    )
    for column, (heatmap, strength_KHW) in enumerate(shown):
        image_HW3 = heatmap.frame.image_HW3
        axes = figure.add_subplot(grid[0, column])
        _show(axes, image_HW3, "frame" if column == 0 else "")
        axes.set_title(f"{heatmap.frame.capture_s:.1f} s", fontsize=9)
        for k, name in enumerate(found.names):
            axes = figure.add_subplot(grid[1 + k, column])
            lit_HW3 = (image_HW3 // 3).copy()
            glow(lit_HW3, strength_KHW[[k]], [colours[k]])
            _show(axes, lit_HW3, name if column == 0 else "")
    axes = figure.add_subplot(grid[1 + heads, :])
    _draw_time(axes, found, waveform, [heatmap.frame.capture_s for heatmap, _ in shown])


def _show(axes: Any, image_HW3: NDArray[np.uint8], label: str) -> None:
    axes.imshow(image_HW3[..., ::-1])
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_ylabel(label)


def _draw_time(axes: Any, found: _Found, waveform: _Waveform, moments_s: list[float]) -> None:
    peaks = np.array(waveform.peaks)
    axes.fill_between(waveform.times_s, -peaks, peaks, color="0.8", linewidth=0, label="audio")
    levels_KN = np.array(found.levels_K).T
    for name, colour, level_N in zip(
        found.names, head_colours(found.names), levels_KN, strict=True
    ):
        axes.plot(found.times_s, level_N, color=_rgb(colour), label=name)
    for moment_s in moments_s:
        axes.axvline(moment_s, color="0.6", linewidth=0.6, linestyle=":")
    axes.set_ylim(-1.05, 1.05)
    axes.margins(x=0)
    axes.set_xlabel("seconds")
    axes.set_ylabel("level")
    axes.legend(loc="lower right", fontsize=8, ncols=1 + len(found.names))


def _rgb(colour: Colour) -> tuple[float, float, float]:
    blue, green, red = colour
    return red / 255, green / 255, blue / 255
