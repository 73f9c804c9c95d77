"""The plain loop of an offline run: a clip as fast as it goes, in turn, and nothing dropped."""

import dataclasses
import threading
from collections import deque
from collections.abc import Iterator
from time import monotonic

from denseav.stream.app.sinks import View
from denseav.stream.inference.pipeline import Pipeline
from denseav.stream.sources.media_file import Clip
from denseav.stream.stats.stats import Stats
from denseav.stream.types import Frame

HELD_FRAMES_MAX = 64  # that wait for their token; where the sound ends early, they go on without


def run_offline(
    clip: Clip,
    pipeline: Pipeline,
    view: View,
    stats: Stats,
    stop: threading.Event,
    seconds: float | None = None,
    av_offset_s: float = 0.0,
) -> None:
    """Run a clip: every frame, against the newest sound then, or the sound that covers it.

    Times are the clip's own, so the recording plays as the clip does. `stop` ends it after
    the frame in hand; `seconds` are seconds of the clip; `av_offset_s` is taken off the times
    of its sound.
    """
    held: deque[Frame] = deque()
    for item in clip:
        if stop.is_set() or view.quit_asked:
            return
        if isinstance(item, Frame):
            if seconds is not None and item.capture_s >= seconds:
                break
            stats.frame_in()
            held.append(item)
        else:
            block = dataclasses.replace(item, capture_s=item.capture_s - av_offset_s)
            pipeline.listen(block)
            view.audio(block)
            if not pipeline.exact:
                continue
        started_s = monotonic()
        if pipeline.hear():
            stats.audio_hop()
        for frame in _ready(held, pipeline):
            _answer(frame, started_s, pipeline, view, stats)
            started_s = monotonic()
    for frame in held:
        _answer(frame, monotonic(), pipeline, view, stats)


def _ready(held: deque[Frame], pipeline: Pipeline) -> Iterator[Frame]:
    while held and (not pipeline.exact or pipeline.covers(held[0]) or len(held) > HELD_FRAMES_MAX):
        yield held.popleft()


def _answer(frame: Frame, started_s: float, pipeline: Pipeline, view: View, stats: Stats) -> None:
    """Show a frame's heatmap. The clip's clock says nothing about speed: latency is the passes'."""
    heatmap = pipeline.see(frame, view.wants_features)
    late_s = heatmap.ready_s - frame.capture_s
    heard_s = None if heatmap.audio_end_s is None else heatmap.audio_end_s + late_s
    stats.heatmap(started_s, heatmap.ready_s, heard_s)
    stats.skew(heatmap.skew_s)
    with stats.timed("show"):
        view.show(heatmap)
    stats.sink(started_s, monotonic())
