"""The offline loop: a `Film` in, every frame's `Heatmap` to the view, as fast as it goes.

One thread, each in turn, and nothing dropped. A frame that is to meet the audio of its own moment
is read only when that has been.
"""

import dataclasses
import threading
from collections.abc import Callable, Sequence
from time import monotonic

from denseav.stream.app.view import View
from denseav.stream.inference.pipeline import Pipeline
from denseav.stream.sources.media_file import BLOCK_S
from denseav.stream.stats.stats import Stats
from denseav.stream.types import Film, Frame, Heatmap

_MARGIN_S = BLOCK_S + 0.1  # audio comes in blocks, and the resampler keeps some back


def run_offline(
    clip: Film,
    pipeline: Pipeline,
    view: View,
    stats: Stats,
    *,
    stop: threading.Event,
    seconds: float | None = None,
    publish: Sequence[Callable[[Heatmap], None]] = (),
    av_offset_s: float = 0.0,
) -> None:
    """Run a clip: every frame, against the newest audio then, or the audio that covers it.

    Times are the clip's own, so the recording plays as the clip does. `stop` ends it after
    the frame in hand; `seconds` are seconds of the clip; `publish` are called with every heatmap,
    and may wait; `av_offset_s` is taken off the times of its audio.
    """
    late_s = 0.0
    if pipeline.sync[0].exact:
        late_s = pipeline.sync[0].latency_s + max(0.0, av_offset_s) + _MARGIN_S
    for item in clip.items(frames_late_s=late_s):
        if stop.is_set() or view.quit_asked:
            return
        if isinstance(item, Frame):
            if seconds is not None and item.capture_s >= seconds:
                return
            stats.frame_in()
            heatmap = _answer(item, pipeline, view, stats)
            for give in publish:
                give(heatmap)
        else:
            block = dataclasses.replace(item, capture_s=item.capture_s - av_offset_s)
            pipeline.push(block)
            view.audio(block)
            view.poll()
            if pipeline.encode_audio():
                stats.audio_hop()


def _answer(frame: Frame, pipeline: Pipeline, view: View, stats: Stats) -> Heatmap:
    """Show a frame's heatmap. The clip's clock says nothing about speed: latency is the passes'."""
    started_s = monotonic()
    heatmap = pipeline.heatmap(frame, view.wants_features)
    late_s = heatmap.ready_s - frame.capture_s
    audio_end_s = None if heatmap.audio_end_s is None else heatmap.audio_end_s + late_s
    stats.heatmap(started_s, heatmap.ready_s, audio_end_s)
    stats.skew(heatmap.skew_s)
    with stats.timed("show"):
        view.show(heatmap)
    stats.sink(started_s, monotonic())
    return heatmap
