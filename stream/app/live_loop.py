"""The threads of a live run: `Frame`s and `AudioBlock`s in, `Heatmap`s to the sinks.

The sources call in on their own threads, one thread encodes audio, one makes heatmaps, and the
caller's thread shows them (windows belong to it). Between them is one slot for each camera: the
newest wins, what it replaced is counted, and cameras take turns. Only a frame that is to meet the
audio of its own moment is held.
"""

import dataclasses
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from time import monotonic

from denseav.export.command_line import in_words
from denseav.export.runtime.bundle import BundleError
from denseav.export.runtime.session import Interrupted
from denseav.stream.app.view import View
from denseav.stream.errors import SourceError, StreamError
from denseav.stream.inference.delay_line import DelayLine, TimedFrame
from denseav.stream.inference.latest_slot import LatestSlot
from denseav.stream.inference.pipeline import Pipeline
from denseav.stream.stats.source_health import SourceHealth
from denseav.stream.stats.stats import Stats
from denseav.stream.types import AudioBlock, Frame, Heatmap, Source

_POLL_S = 0.05  # how long a thread sleeps at most before it looks whether the run is over


class LiveRun:
    """One live run: a `Receiver` for its sources, and the loop that shows what they give.

    Parameters
    ----------
    sources : opened, not yet started.
    pipeline, view, stats : as their modules say.
    stop : set from anywhere to end the run.
    seconds : how long to run; None until the source ends or a person quits.
    ready : called with each heatmap until it returns True: the first that is worth announcing.
    publish : are called with every heatmap on the thread that makes them; must not wait.
    av_offset_s : how much later the sound arrives than the picture; taken off the sound's times.
    health : the states of sources that may fail and come back; None when they cannot.
    cameras : the figures of each of several cameras, within `stats`.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        pipeline: Pipeline,
        view: View,
        stats: Stats,
        *,
        stop: threading.Event,
        seconds: float | None = None,
        ready: Callable[[Heatmap], bool] | None = None,
        publish: Sequence[Callable[[Heatmap], None]] = (),
        av_offset_s: float = 0.0,
        health: SourceHealth | None = None,
        cameras: Sequence[Stats] = (),
    ) -> None:
        self._sources = sources
        self._pipeline = pipeline
        self._view = view
        self._stats = stats
        self._seconds = seconds
        self._ready = ready
        self._publish = publish
        self._av_offset_s = av_offset_s
        self._health = health or SourceHealth(lambda _: None)
        self._cameras = cameras or (stats,)
        self._frames: LatestSlot[TimedFrame] | DelayLine
        self._frames = LatestSlot(lambda taken: taken[0].camera)
        if pipeline.sync[0].exact:
            self._frames = DelayLine(self._wait_s, self._overtaken, len(self._cameras))
        self._heatmaps: LatestSlot[Heatmap] = LatestSlot(lambda heatmap: heatmap.frame.camera)
        self._stop = stop
        self._ended = threading.Event()
        self._all_seen = threading.Event()
        self._failure: StreamError | BundleError | None = None

    def frame(self, frame: Frame) -> None:
        """Take one picture from a source."""
        came_s, camera = monotonic(), self._cameras[frame.camera]
        camera.frame_in()
        self._stats.stage("capture", came_s - frame.capture_s)
        camera.drop("decoder_busy", frame.missed)
        camera.drop("model_busy", self._frames.put((frame, came_s)))

    def audio(self, block: AudioBlock) -> None:
        """Take some sound from a source."""
        block = dataclasses.replace(block, capture_s=block.capture_s - self._av_offset_s)
        self._pipeline.push(block)
        self._view.audio(block)

    def ended(self, error: SourceError | None) -> None:
        """Take note that a source gives no more; one that failed ends the run for the others."""
        if error is not None:
            self._fail(error)
        self._ended.set()

    def run(self) -> None:
        """Run until stopped, ended, or failed.

        Raises
        ------
        StreamError
            What a source, the model or a sink failed with, after everything has been closed.
        """
        workers = [
            threading.Thread(target=self._guarded, args=(step,), name=name)
            for name, step in (
                ("the audio pass", self._encode_audio),
                ("the image pass", self._make_heatmaps),
            )
        ]
        try:
            for worker in workers:
                worker.start()
            for source in self._sources:
                source.start(self)
            self._show()
        finally:
            self._stop.set()
            with ExitStack() as stopping:  # each, whatever another one raises
                for source in self._sources:
                    stopping.callback(source.stop)
            for worker in workers:
                if worker.ident is not None:
                    worker.join()
        if self._failure is not None:
            raise self._failure

    def _show(self) -> None:
        end_s = None if self._seconds is None else monotonic() + self._seconds
        while not self._stop.is_set():
            heatmap = self._heatmaps.get(_POLL_S)
            if heatmap is not None:
                self._show_all(heatmap)
            elif self._all_seen.is_set():
                return
            else:
                self._view.poll(self._health.camera_fault())
            if self._view.quit_asked or (end_s is not None and monotonic() >= end_s):
                return

    def _show_all(self, heatmap: Heatmap) -> None:
        """Show a heatmap, together with those of other cameras that wait."""
        shown = [heatmap]
        while len(shown) < len(self._cameras):
            another = self._heatmaps.get(0)
            if another is None:
                break
            shown.append(another)
        with self._stats.timed("show"):
            self._view.show(*shown)
        for each in shown:
            self._stats.sink(each.frame.capture_s, monotonic())

    def _encode_audio(self) -> None:
        pipeline = self._pipeline
        while not self._stop.is_set():
            skipped = pipeline.hops_skipped
            if pipeline.encode_audio(_POLL_S):
                self._stats.audio_hop()
                self._stats.gauge("hop_ms", 1000 * pipeline.hop_s)
                self._stats.gauge("audio_hop_share", pipeline.hop_share)
                self._stats.drop("hop_skipped", pipeline.hops_skipped - skipped)

    def _wait_s(self, frame: Frame) -> float:
        return self._pipeline.sync_of(frame).wait_s(frame)

    def _overtaken(self, camera: int, count: int) -> None:
        self._cameras[camera].drop("model_busy", count)

    def _make_heatmaps(self) -> None:
        while not self._stop.is_set():
            taken = self._frames.get(_POLL_S)
            if taken is None:
                if self._ended.is_set() and self._frames.empty:
                    self._all_seen.set()
                continue
            frame, came_s = taken
            self._stats.stage("queue", monotonic() - came_s)
            heatmap = self._pipeline.heatmap(frame, self._view.wants_features)
            self._stats.gauge("images_reused", sum(each.reused for each in self._pipeline.images))
            camera = self._cameras[frame.camera]
            good_since_s = self._health.running_since_s("camera", frame.camera)
            if good_since_s is None or frame.capture_s < good_since_s:
                camera.drop("camera_lost")
                continue
            camera.heatmap(frame.capture_s, heatmap.ready_s, heatmap.audio_end_s)
            camera.skew(heatmap.skew_s)
            if self._ready is not None and self._ready(heatmap):
                self._ready = None
            for publish in self._publish:
                publish(heatmap)
            if self._heatmaps.put(heatmap):
                camera.drop("sink_busy")

    def _guarded(self, step: Callable[[], None]) -> None:
        """Let a failure on a worker end the run and be raised by it."""
        try:
            step()
        except Interrupted:
            self._stop.set()
        except (StreamError, BundleError) as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - a pass raises what its library has
            name = threading.current_thread().name
            failure = StreamError(f"{name} failed ({in_words(error)}); start again")
            failure.__cause__ = error
            self._fail(failure)

    def _fail(self, error: StreamError | BundleError) -> None:
        self._failure = self._failure or error
        self._stop.set()
