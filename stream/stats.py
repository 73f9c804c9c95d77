"""Events enter as they happen; figures for the screen and a report at the end leave.

Rates and latencies on the screen cover the last 10 seconds. The report's percentiles cover the
newest 18,000 values of each kind (10 minutes at 30 frames a second), so that a run of days needs
no more memory than one of minutes; its counts cover the whole run.

Axes: N the newest values of one kind.
"""

import errno
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from denseav.stream.errors import OutputError

WINDOW_S = 10.0
NEWEST_VALUES = 18_000


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The last 10 seconds for the screen; `drops` counts since the start, by cause.

    A figure is None while nothing was measured in that time. Latency is from a frame's capture
    to its heatmap; the audio's age is from the end of the token used to that heatmap.
    """

    fps_in: float
    fps_out: float
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    audio_age_ms: float | None
    drops: Mapping[str, int]


class Stats:
    """What one run did. Every method may be called from any thread.

    Parameters
    ----------
    clock : gives the time in seconds; the one that `capture_s` and `ready_s` are read from.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._started_s: float | None = None
        self._frame_in = _Newest()
        self._to_heatmap_ms = _Newest()
        self._to_sink_ms = _Newest()
        self._audio_age_ms = _Newest()
        self._audio_hops = 0
        self._drops: Counter[str] = Counter()

    def frame_in(self) -> None:
        """Count a picture from the source. The first one starts the run's clock."""
        with self._lock:
            now_s = self._clock()
            self._started_s = now_s if self._started_s is None else self._started_s
            self._frame_in.add(now_s, 0.0)

    def audio_hop(self) -> None:
        """Count one audio pass."""
        with self._lock:
            self._audio_hops += 1

    def drop(self, cause: str, count: int = 1) -> None:
        """Count what was thrown away, by cause."""
        with self._lock:
            if count:
                self._drops[cause] += count

    def heatmap(self, capture_s: float, ready_s: float, audio_end_s: float | None) -> None:
        """Count an answer. `audio_end_s` is None when nothing has been heard yet."""
        with self._lock:
            now_s = self._clock()
            self._to_heatmap_ms.add(now_s, 1000 * (ready_s - capture_s))
            if audio_end_s is not None:
                self._audio_age_ms.add(now_s, 1000 * (ready_s - audio_end_s))

    def sink(self, capture_s: float, done_s: float) -> None:
        """Count an answer that reached its last sink: shown, written or sent."""
        with self._lock:
            self._to_sink_ms.add(self._clock(), 1000 * (done_s - capture_s))

    def snapshot(self) -> Snapshot:
        """Return the figures of the last 10 seconds."""
        with self._lock:
            now_s = self._clock()
            latency_ms = _percentiles(self._to_heatmap_ms.since(now_s - WINDOW_S), (50, 95))
            age_ms = _percentiles(self._audio_age_ms.since(now_s - WINDOW_S), (50,))
            return Snapshot(
                fps_in=self._frame_in.rate(now_s),
                fps_out=self._to_heatmap_ms.rate(now_s),
                latency_p50_ms=latency_ms["p50"],
                latency_p95_ms=latency_ms["p95"],
                audio_age_ms=age_ms["p50"],
                drops=dict(self._drops),
            )

    def report(self, *, backend: str, precision: str, model: str, trained: bool) -> dict[str, Any]:
        """Return the whole run as JSON takes it. A percentile of nothing is None.

        `fps` is heatmaps over `seconds`, which run from the first frame to this call.
        """
        with self._lock:
            seconds = 0.0 if self._started_s is None else self._clock() - self._started_s
            frames_out = self._to_heatmap_ms.count
            return {
                "frames_in": self._frame_in.count,
                "frames_out": frames_out,
                "fps": round(frames_out / seconds, 3) if seconds > 0 else 0.0,
                "seconds": round(seconds, 3),
                "latency_ms": {
                    "capture_to_heatmap": _percentiles(self._to_heatmap_ms.since(), (50, 95, 99)),
                    "capture_to_sink": _percentiles(self._to_sink_ms.since(), (50, 95, 99)),
                },
                "audio_hops": self._audio_hops,
                "audio_age_ms": _percentiles(self._audio_age_ms.since(), (50, 95)),
                "drops": dict(self._drops),
                "backend": backend,
                "precision": precision,
                "model": model,
                "trained": trained,
            }


class _Newest:
    """The newest values of one kind and when each was added; `count` is of all there ever were."""

    def __init__(self) -> None:
        self.count = 0
        self._time_s_N = np.full(NEWEST_VALUES, -np.inf)
        self._value_N = np.zeros(NEWEST_VALUES)

    def add(self, time_s: float, value: float) -> None:
        slot = self.count % NEWEST_VALUES
        self._time_s_N[slot] = time_s
        self._value_N[slot] = value
        self.count += 1

    def since(self, time_s: float = -np.inf) -> NDArray[np.float64]:
        return self._value_N[: self.count][self._time_s_N[: self.count] >= time_s]

    def rate(self, now_s: float) -> float:
        """Return how many a second there were in the last 10, down to now: a stall lowers it."""
        times_s = self._time_s_N[self._time_s_N >= now_s - WINDOW_S]
        if len(times_s) < 2 or now_s <= times_s.min():
            return 0.0
        return float((len(times_s) - 1) / (now_s - times_s.min()))


def _percentiles(value_N: NDArray[np.float64], which: tuple[int, ...]) -> dict[str, float | None]:
    if not len(value_N):
        return {f"p{percent}": None for percent in which}
    found = np.percentile(value_N, which)
    return {f"p{p}": round(float(value), 3) for p, value in zip(which, found, strict=True)}


def check_destination(destination: str) -> None:
    """Find out before a long run whether its report can be written where it is wanted.

    Raises
    ------
    OutputError
        When it cannot.
    """
    if destination == "-":
        return
    path = Path(destination)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.is_file() or not path.exists():
            _part(path).touch()
            _part(path).unlink()
    except OSError as error:
        raise _cannot_write(destination, error) from None


def write_report(report: Mapping[str, Any], destination: str) -> None:
    """Write the report as JSON to a file, whole or not at all, or to standard output for "-".

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    text = json.dumps(report, indent=2) + "\n"
    try:
        if destination == "-":
            _print(text)
        elif Path(destination).exists() and not Path(destination).is_file():
            Path(destination).write_text(text)  # a device or a pipe, which must not be replaced
        else:
            _replace(Path(destination), text)
    except OSError as error:
        raise _cannot_write(destination, error) from None


def _print(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:
        # What it holds back would fail again, and aloud, when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _replace(path: Path, text: str) -> None:
    try:
        _part(path).write_text(text)
        _part(path).replace(path)
    except OSError:
        with suppress(OSError):
            _part(path).unlink()
        raise


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _cannot_write(destination: str, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write the report {destination} ({error.strerror}); choose another path"
    )
