"""The figures of a run: its events as they happen, to what screen, monitors and report show.

A stage is one step of a frame's or a token's way, by name and duration; a latency runs from a
frame's capture to where it arrived. What is on the screen and in live lines covers the last
10 seconds; the report at the end covers the run.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic
from typing import Any

from denseav.stream.stats.series import WINDOW_S, Histogram, Series

_PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The last 10 seconds for the screen; `drops` counts since the start, by cause.

    A figure is None while nothing was measured in that time. Latency is from a frame's capture
    to its heatmap; the audio's age is from the end of the token used to that heatmap, and the skew
    from the frame's capture to that end. `gauges` holds the newest value of each quantity that is
    no latency, its unit in its name.
    """

    fps_in: float
    fps_out: float
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    audio_age_ms: float | None
    drops: Mapping[str, int]
    gauges: Mapping[str, float | None] = field(default_factory=dict)
    av_skew_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class Totals:
    """The whole run for monitors that compute rates and percentiles themselves.

    The skew alone is the median of the last 10 seconds, for it may be negative.
    """

    frames_in: int
    frames_out: int
    audio_hops: int
    drops: Mapping[str, int]
    gauges: Mapping[str, float | None]
    av_skew_ms: float | None
    latency: Mapping[str, Histogram]
    stages: Mapping[str, Histogram]
    audio_age: Histogram


@dataclass(kw_only=True)
class _Run:
    started_s: float | None = None
    frames_in: Series = field(default_factory=Series)
    to_heatmap: Series = field(default_factory=Series)
    to_sink: Series = field(default_factory=Series)
    to_feed: Series = field(default_factory=Series)
    to_viewer: Series = field(default_factory=Series)
    audio_age: Series = field(default_factory=Series)
    av_skew: Series = field(default_factory=Series)
    stages: dict[str, Series] = field(default_factory=dict)
    audio_hops: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    gauges: dict[str, float | None] = field(default_factory=dict)

    def latency(self) -> dict[str, Series]:
        return {
            "capture_to_heatmap": self.to_heatmap,
            "capture_to_sink": self.to_sink,
            "capture_to_feed": self.to_feed,
            "capture_to_viewer": self.to_viewer,
        }


class Stats:
    """What one run did. Every method may be called from any thread.

    Parameters
    ----------
    clock : gives the time in seconds; the one that `capture_s` and `ready_s` are read from.
    within : takes each frame, heatmap and drop too: the run of which this is one camera.
    """

    def __init__(
        self, clock: Callable[[], float] = monotonic, within: "Stats | None" = None
    ) -> None:
        self._clock = clock
        self._within = within
        self._cameras: dict[str, Stats] = {}
        self._lock = Lock()
        self._run = _Run()

    def camera(self, name: str) -> "Stats":
        """Return the figures of one of several cameras: its own, which count in these as well."""
        with self._lock:
            return self._cameras.setdefault(name, Stats(self._clock, within=self))

    @property
    def cameras(self) -> "Mapping[str, Stats]":
        """The figures of each of several cameras, by name."""
        with self._lock:
            return dict(self._cameras)

    def restart(self) -> None:
        """Forget all there was, as if the run began now: warming up is no part of a measurement."""
        with self._lock:
            self._run = _Run()
        for camera in self.cameras.values():
            camera.restart()

    def frame_in(self) -> None:
        """Count a picture from the source. The first one starts the run's clock."""
        with self._lock:
            now_s, run = self._clock(), self._run
            run.started_s = now_s if run.started_s is None else run.started_s
            run.frames_in.add(now_s)
        if self._within is not None:
            self._within.frame_in()

    def audio_hop(self) -> None:
        """Count one audio pass."""
        with self._lock:
            self._run.audio_hops += 1

    def drop(self, cause: str, count: int = 1) -> None:
        """Count what was thrown away, by cause."""
        with self._lock:
            if count:
                self._run.drops[cause] += count
        if self._within is not None:
            self._within.drop(cause, count)

    def gauge(self, name: str, value: float | None) -> None:
        """Note the newest value of a quantity, its unit in its name: `hop_ms`.

        None, as any number that is not finite, says that it is not known now.
        """
        known = value is not None and math.isfinite(value)
        with self._lock:
            self._run.gauges[name] = value if known else None

    def stage(self, name: str, seconds: float) -> None:
        """Note how long one step of the way took; few names, known when the code is written."""
        with self._lock:
            series = self._run.stages.get(name)
            if series is None:
                series = self._run.stages[name] = Series()
            series.add(self._clock(), 1000 * seconds)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Note how long the body takes as a stage, unless it raises."""
        started_s = self._clock()
        yield
        self.stage(name, self._clock() - started_s)

    def heatmap(self, capture_s: float, ready_s: float, audio_end_s: float | None) -> None:
        """Count an answer. `audio_end_s` is None when nothing has been heard yet."""
        with self._lock:
            now_s = self._clock()
            self._run.to_heatmap.add(now_s, 1000 * (ready_s - capture_s))
            if audio_end_s is not None:
                self._run.audio_age.add(now_s, 1000 * (ready_s - audio_end_s))
        if self._within is not None:
            self._within.heatmap(capture_s, ready_s, audio_end_s)

    def skew(self, skew_s: float | None) -> None:
        """Note how much later an answer's sound ended than its picture was captured."""
        if skew_s is not None:
            with self._lock:
                self._run.av_skew.add(self._clock(), 1000 * skew_s)
        if self._within is not None:
            self._within.skew(skew_s)

    def sink(self, capture_s: float, done_s: float) -> None:
        """Count an answer that has been drawn, shown and recorded, as far as that was asked."""
        with self._lock:
            self._run.to_sink.add(self._clock(), 1000 * (done_s - capture_s))

    def sent(self, capture_s: float, done_s: float) -> None:
        """Count an answer that was handed to the network, to at least one reader."""
        with self._lock:
            self._run.to_feed.add(self._clock(), 1000 * (done_s - capture_s))

    def viewed(self, capture_s: float, done_s: float) -> None:
        """Count an answer that a browser has drawn, when it said so."""
        with self._lock:
            self._run.to_viewer.add(self._clock(), 1000 * (done_s - capture_s))

    def snapshot(self) -> Snapshot:
        """Return the figures of the last 10 seconds."""
        with self._lock:
            now_s, run = self._clock(), self._run
            latency_ms = run.to_heatmap.percentiles((50, 95), now_s - WINDOW_S)
            return Snapshot(
                fps_in=run.frames_in.rate(now_s),
                fps_out=run.to_heatmap.rate(now_s),
                latency_p50_ms=latency_ms["p50"],
                latency_p95_ms=latency_ms["p95"],
                audio_age_ms=run.audio_age.percentiles((50,), now_s - WINDOW_S)["p50"],
                drops=dict(run.drops),
                gauges=dict(run.gauges),
                av_skew_ms=run.av_skew.percentiles((50,), now_s - WINDOW_S)["p50"],
            )

    def report(
        self, *, backend: str, precision: str, model: str, trained: bool, final: bool = True
    ) -> dict[str, Any]:
        """Return the run's figures as JSON takes them. A percentile of nothing is None.

        Counts and `seconds` run from the first frame to this call. Rates and percentiles are of
        the whole run (of its newest 18,000 values) when `final`, else of the last 10 seconds.
        With several cameras there is a table of each as well.
        """
        cameras = {name: each._of_camera(final) for name, each in self.cameras.items()}
        report = self._report(final)
        if cameras:
            report["cameras"] = cameras
        what = {"backend": backend, "precision": precision, "model": model, "trained": trained}
        return report | what

    def _of_camera(self, final: bool) -> dict[str, Any]:
        report = self._report(final)
        to_heatmap = report["latency_ms"]["capture_to_heatmap"]
        kept = ("frames_in", "frames_out", "fps_in", "fps", "drops", "audio_age_ms", "av_skew_ms")
        return {name: report[name] for name in kept} | {"capture_to_heatmap_ms": to_heatmap}

    def _report(self, final: bool) -> dict[str, Any]:
        with self._lock:
            now_s, run = self._clock(), self._run
            seconds = 0.0 if run.started_s is None else now_s - run.started_s
            since_s = -math.inf if final else now_s - WINDOW_S
            return {
                "final": final,
                "unix_s": round(time.time(), 3),
                "seconds": round(seconds, 3),
                "frames_in": run.frames_in.count,
                "frames_out": run.to_heatmap.count,
                "fps_in": _fps(run.frames_in, seconds, now_s, final),
                "fps": _fps(run.to_heatmap, seconds, now_s, final),
                "latency_ms": _table(run.latency(), since_s),
                "stage_ms": _table(run.stages, since_s),
                "audio_hops": run.audio_hops,
                "audio_age_ms": run.audio_age.percentiles((50, 95), since_s),
                "av_skew_ms": run.av_skew.percentiles((5, 50, 95), since_s),
                "drops": dict(run.drops),
                "gauges": dict(run.gauges),
            }

    def totals(self) -> Totals:
        """Return counts and histograms of the whole run."""
        with self._lock:
            run = self._run
            return Totals(
                frames_in=run.frames_in.count,
                frames_out=run.to_heatmap.count,
                audio_hops=run.audio_hops,
                drops=dict(run.drops),
                gauges=dict(run.gauges),
                av_skew_ms=run.av_skew.percentiles((50,), self._clock() - WINDOW_S)["p50"],
                latency={name: series.histogram() for name, series in run.latency().items()},
                stages={name: series.histogram() for name, series in run.stages.items()},
                audio_age=run.audio_age.histogram(),
            )

    def latencies_ms(self) -> dict[str, list[float]]:
        """Return the newest 18,000 of each latency, sorted."""
        with self._lock:
            return {
                name: sorted(series.since().tolist())
                for name, series in self._run.latency().items()
            }


def _fps(series: Series, seconds: float, now_s: float, final: bool) -> float:
    if not final:
        return round(series.rate(now_s), 3)
    return round(series.count / seconds, 3) if seconds > 0 else 0.0


def _table(kinds: Mapping[str, Series], since_s: float) -> dict[str, dict[str, float | None]]:
    return {name: series.percentiles(_PERCENTILES, since_s) for name, series in kinds.items()}
