"""The audio's offset: frames that flash and audio that clicks, to seconds it arrives later.

What is watched is anything that flashes and clicks at the same moments, as the clip does that is
written here, played on a phone before the camera. A flash is dated by the first frame that shows
it, a click by its first loud millisecond; which belong together is found by the offset that most
of them share.

Axes: N frames or milliseconds, P places of a picture, F flashes, C clicks.
"""

import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from denseav.stream.errors import SourceError
from denseav.stream.recording.film_encoder import SOUND_RATE_HZ
from denseav.stream.recording.mp4_recorder import Recorder
from denseav.stream.types import AudioBlock, Frame, Source

CALIBRATION_S = 20.0
PAIRS_MIN = 3
OFFSET_MAX_S = 1.0
APART_S = 0.2  # between two flashes, or two clicks
BRIGHTER = 20  # grey levels, in some place, from one frame to the next
LOUDER_DB = 15.0  # than the median
LOUD_DBFS = -50.0
RISE_MS = 30  # within which a click is loudest
BELOW_PEAK_DB = 10.0  # what is fainter before it is a codec's echo, or the room
AGREE_S = 0.025  # at least; else a frame's time: a flash falls anywhere between two frames
_GRID = (8, 6)

_CLIP_FPS = 30
_CLIP_SIZE = (640, 360)
_FLASH_FRAMES = 3
_CLICK_S = 0.01
_PAUSES_FRAMES = (33, 41, 37, 47, 39, 53)  # uneven, so that no wrong offset fits

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Offset:
    """How much later the sound arrives than the picture.

    Attributes
    ----------
    pairs : of a flash and a click that were found.
    spread_s : how far the worst of them is from the offset, their median.
    """

    seconds: float
    spread_s: float
    pairs: int


class Watcher:
    """A `Receiver` that keeps how bright the pictures and how loud the milliseconds were."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.error: SourceError | None = None
        self._bright: list[tuple[float, NDArray[np.uint8]]] = []
        self._loud: list[tuple[Values, Values]] = []

    def frame(self, frame: Frame) -> None:
        """Take one picture."""
        small_HW3 = cv2.resize(frame.image_HW3, _GRID, interpolation=cv2.INTER_AREA)
        self._bright.append((frame.capture_s, small_HW3.max(axis=2).ravel().astype(np.uint8)))

    def audio(self, block: AudioBlock) -> None:
        """Take some sound."""
        size = block.rate_hz // 1000
        count = len(block.samples_SC) // size
        if count:
            each_NS = block.samples_SC[: count * size].mean(axis=1).reshape(count, size)
            power_N = np.square(each_NS, dtype=np.float64).mean(axis=1)
            time_N = block.capture_s + np.arange(count) * size / block.rate_hz
            self._loud.append((time_N, 10 * np.log10(power_N + 1e-12)))

    def ended(self, error: SourceError | None) -> None:
        """Take note that a source gives no more; the first error stays."""
        self.error = self.error or error
        self.over.set()

    def flashes(self) -> tuple[Values, float]:
        """Return the times of flashes, and the time from a frame to the next."""
        if len(self._bright) < 2:
            return np.zeros(0), 0.0
        time_N = np.array([time_s for time_s, _ in self._bright])
        bright_NP = np.array([bright_P for _, bright_P in self._bright], np.int16)
        return flash_times(time_N, bright_NP), float(np.median(np.diff(time_N)))

    def clicks(self) -> Values:
        """Return the times of clicks."""
        if not self._loud:
            return np.zeros(0)
        time_N, dbfs_N = (np.concatenate(part) for part in zip(*self._loud, strict=True))
        return click_times(time_N, dbfs_N)


def flash_times(time_N: Values, bright_NP: NDArray[np.int16]) -> Values:
    """Return when the first frame of each flash was captured."""
    rise_N = np.diff(bright_NP, axis=0).max(axis=1)
    return _apart(time_N[1:][rise_N >= BRIGHTER])


def click_times(time_N: Values, dbfs_N: Values) -> Values:
    """Return when each click begins; `dbfs_N` is the loudness of each millisecond."""
    loud_N = dbfs_N > max(float(np.median(dbfs_N)) + LOUDER_DB, LOUD_DBFS)
    begins = np.searchsorted(time_N, _apart(time_N[loud_N]))
    onsets = []
    for begin in begins:
        rise = dbfs_N[begin : begin + RISE_MS]
        onsets.append(begin + int(np.argmax(rise >= rise.max() - BELOW_PEAK_DB)))
    return np.asarray(time_N[onsets], np.float64) if onsets else np.zeros(0)


def match(flash_F: Values, click_C: Values, frame_s: float) -> Offset | None:
    """Return the offset that most flashes have to a click; None when too few share one."""
    apart_FC = click_C[None] - flash_F[:, None]
    candidates = apart_FC[np.abs(apart_FC) <= OFFSET_MAX_S]
    agree_s = max(AGREE_S, frame_s)
    best: list[float] = []
    for candidate in sorted(candidates.tolist(), key=abs):
        off_FC = np.abs(apart_FC - candidate)
        nearest_F = off_FC.argmin(axis=1)
        rows = np.flatnonzero(off_FC.min(axis=1) <= agree_s)
        if len(rows) > len(best):
            best = apart_FC[rows, nearest_F[rows]].tolist()
    if len(best) < PAIRS_MIN:
        return None
    middle_s = float(np.median(best))
    spread_s = max(abs(value_s - middle_s) for value_s in best)
    return Offset(seconds=middle_s, spread_s=spread_s, pairs=len(best))


def watch(
    sources: Sequence[Source], seconds: float, stop: threading.Event, corrected_s: float = 0.0
) -> Offset:
    """Watch the sources and return the offset, less what is corrected already.

    Raises
    ------
    SourceError
        When a source fails, or too few flashes with a click are seen.
    """
    watcher = Watcher()
    for source in sources:
        source.start(watcher)
    waited_s = 0.0
    while waited_s < seconds and not stop.is_set() and not watcher.over.wait(0.1):
        waited_s += 0.1
    for source in sources:
        source.stop()
    if watcher.error is not None:
        raise watcher.error
    flash_F, frame_s = watcher.flashes()
    click_C = watcher.clicks() - corrected_s
    found = match(flash_F, click_C, frame_s)
    if found is None:
        raise SourceError(
            f"{len(flash_F)} flashes and {len(click_C)} clicks were seen, and fewer than "
            f"{PAIRS_MIN} belong together; show it more flashes that click, nearer and louder"
        )
    return found


def write_clip(path: Path, seconds: float = CALIBRATION_S) -> None:
    """Write a clip of white flashes with a click at the very moment each begins.

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    width, height = _CLIP_SIZE
    samples = SOUND_RATE_HZ // _CLIP_FPS
    time_S = np.arange(samples) / SOUND_RATE_HZ
    click_S = np.float32(0.8) * np.sin(2 * np.pi * 2000 * time_S, dtype=np.float32)
    click_S[time_S >= _CLICK_S] = 0
    begin, pause = _PAUSES_FRAMES[0], 0
    with closing(Recorder(path, width, height)) as recorder:
        for index in range(round(seconds * _CLIP_FPS)):
            if index == begin + _FLASH_FRAMES:
                pause = (pause + 1) % len(_PAUSES_FRAMES)
                begin += _PAUSES_FRAMES[pause]
            lit = begin <= index < begin + _FLASH_FRAMES
            canvas = np.full((height, width, 3), 255 if lit else 0, np.uint8)
            recorder.frame(canvas, index / _CLIP_FPS)
            sound_S = click_S if index == begin else np.zeros_like(click_S)
            first = index * samples
            block = AudioBlock(sound_S[:, None], SOUND_RATE_HZ, first, first / SOUND_RATE_HZ)
            recorder.audio(block)


def words(found: Offset, corrected_ms: float) -> str:
    """Return the offset as a line for people, given how much of it was already corrected."""
    left_ms = 1000 * found.seconds
    order = "later" if left_ms >= 0 else "earlier"
    corrected = f" (after --av-offset-ms {corrected_ms:g})" if corrected_ms else ""
    return (
        f"the sound arrives {abs(left_ms):.1f} ms {order} than the picture{corrected}, by "
        f"{found.pairs} flashes that are at most {1000 * found.spread_s:.1f} ms off that; "
        f"use: --av-offset-ms {round(left_ms + corrected_ms)}"
    )


def _apart(time_N: Values) -> Values:
    """Keep the first of those that follow on each other within `APART_S`."""
    kept: list[float] = []
    last_s = -np.inf
    for time_s in time_N.tolist():
        if time_s - last_s > APART_S:
            kept.append(time_s)
        last_s = time_s
    return np.array(kept)
