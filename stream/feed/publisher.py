"""The publisher of a run: `Heatmap` in on the pipeline's thread, messages out on its own.

The pipeline never waits for the feed: between them is one slot, the newest wins, and while nobody
has subscribed not even that is filled. Twice a second the status goes out on its own endpoint.
Several cameras have a slot, topics and a status each, on the same two endpoints. It knows nothing
of how heatmaps are made.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np

from denseav.export.runtime.bundle import Head
from denseav.stream.errors import OutputError, StreamError
from denseav.stream.feed.clock import SlipDetector
from denseav.stream.feed.message import Envelope, Origin, heat_fields, new_run, preview_jpeg
from denseav.stream.feed.sockets import FeedSockets
from denseav.stream.inference.latest_slot import LatestSlot
from denseav.stream.stats.series import WINDOW_S
from denseav.stream.stats.source_health import Kind, SourceState, State
from denseav.stream.stats.stats import Snapshot, Stats
from denseav.stream.types import Heatmap

STATUS_S = 0.5
STALLED_S = 1.0  # without a heatmap
_POLL_S = 0.02  # how long a new subscriber may wait to be noticed
_FAREWELL_S = 0.05  # what the last status may take to leave
_GRADES = (("excellent", 0.9, 150.0), ("fair", 0.5, 400.0))  # least share of frames, most p95 ms


@dataclass(frozen=True, kw_only=True)
class CameraFeed:
    """What is published of one camera.

    Attributes
    ----------
    origin : what is the same in all messages.
    snapshot : gives its figures; called on the publisher's thread.
    sources : gives the states of those of its sources that may fail.
    """

    origin: Origin
    snapshot: Callable[[], Snapshot]
    sources: Callable[[], Sequence[SourceState]] = tuple


class Publisher:
    """One run's feed.

    Parameters
    ----------
    endpoint : `tcp://ADDRESS:PORT` of the heatmaps; the status has the next port.
    cameras : in the order of their frames' numbers.
    keys : the key folder, or None for no keys.
    insecure : whether other machines may connect without keys.
    preview : whether pictures are sent.
    stats : takes the stage `publish` and the latency of what was sent; None for nothing.

    Raises
    ------
    StreamError
        When the endpoint cannot be bound, or would be open to others.
    """

    def __init__(
        self,
        endpoint: str,
        cameras: Sequence[CameraFeed],
        *,
        keys: Path | None = None,
        insecure: bool = False,
        preview: bool = False,
        stats: Stats | None = None,
    ) -> None:
        self._stats = stats
        self._preview = preview
        camera_ids = [camera.origin.camera_id for camera in cameras]
        self._sockets = FeedSockets(endpoint, camera_ids, keys, insecure)
        self._clock, self._slipped_s = SlipDetector(), -math.inf
        self._topics = [_Topics(camera) for camera in cameras]
        self._slot: LatestSlot[Heatmap] = LatestSlot(lambda heatmap: heatmap.frame.camera)
        self._failure: StreamError | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._guarded, name="feed", daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        """Where the heatmaps are, with the address resolved."""
        return self._sockets.endpoint.heat

    def heatmap(self, heatmap: Heatmap) -> None:
        """Publish one answer if anybody wants it. Never waits; answers to no sound are no news.

        Raises
        ------
        StreamError
            When publishing has stopped: keys could no longer be checked, or it failed.
        """
        if self._failure is not None:
            raise self._failure
        if heatmap.audio_end_s is None:
            return
        topics = self._topics[heatmap.frame.camera]
        topics.note(heatmap)
        if self._sockets.subscribers and self._slot.put(heatmap):
            topics.replaced += 1

    def settle(self, heads: Sequence[Head]) -> None:
        """Send other thresholds and ceilings from now on. Callable from any thread."""
        for topics in self._topics:
            topics.settle(heads)

    def close(self) -> None:
        """Say that the run has ended and unbind. May be called twice."""
        self._stop.set()
        self._slot.close()
        self._thread.join()
        self._sockets.close()

    def _guarded(self) -> None:
        """Keep what stops the publisher for the next call, and drop all connections at once."""
        try:
            self._run()
        except StreamError as error:
            self._failure = error
        except BaseException as error:  # noqa: BLE001
            self._failure = OutputError(f"the feed has failed ({error!r}); start again")
        if self._failure is not None:
            self._sockets.close()

    def _run(self) -> None:
        status_s = monotonic()
        while not self._stop.is_set():
            heatmap = self._slot.get(_POLL_S)
            self._sockets.look()
            if self._clock.slipped():
                self._slipped_s = monotonic()
                for topics in self._topics:
                    topics.begin_run()
            if heatmap is not None:
                self._publish(heatmap)
            if monotonic() >= status_s:
                status_s = max(status_s + STATUS_S, monotonic())
                self._send_status()
        self._send_status(ended=True)
        sleep(_FAREWELL_S)

    def _send_status(self, ended: bool = False) -> None:
        for topics in self._topics:
            self._sockets.send_status(topics.status(self._sockets.subscribers, ended))

    def _publish(self, heatmap: Heatmap) -> None:
        started_s = monotonic()
        topics = self._topics[heatmap.frame.camera]
        if heatmap.frame.capture_s < self._slipped_s:  # older than its times say
            topics.slipped_away += 1
            return
        preview = preview_jpeg(heatmap.frame.image_HW3) if self._preview else b""
        self._sockets.send_heat(topics.heat(heatmap, preview))
        sent_s = monotonic()
        topics.sent_s.append(sent_s)
        if self._stats is not None:
            self._stats.stage("publish", sent_s - started_s)
            self._stats.sent(heatmap.frame.capture_s, sent_s)


class _Topics:
    """The two topics of one camera: its messages, numbered, and what its status says."""

    def __init__(self, camera: CameraFeed) -> None:
        self.replaced = self.slipped_away = 0
        self.sent_s: deque[float] = deque(maxlen=600)
        self._camera = camera
        self._drops: Mapping[str, int] = {}  # counting anew for each message would cost too much
        self._newest: Heatmap | None = None  # with numbers
        self._answered_s: float | None = None  # when the first came, whatever it was
        self._incomplete_s = -math.inf  # when a head last gave what is no number
        self.begin_run()

    def begin_run(self) -> None:
        """Begin a run: when the clock has slipped, too, for within one readers count ages by it."""
        run, camera_id = new_run(), self._camera.origin.camera_id
        self._heat = Envelope("heat", camera_id, run)
        self._status = Envelope("status", camera_id, run)

    def settle(self, heads: Sequence[Head]) -> None:
        """Take other thresholds and ceilings."""
        origin = replace(self._camera.origin, heads=tuple(heads))
        self._camera = replace(self._camera, origin=origin)

    def note(self, heatmap: Heatmap) -> None:
        """Note how the newest is, whether it will be sent or not."""
        if self._answered_s is None:
            self._answered_s = heatmap.ready_s
        finite_K = np.isfinite(heatmap.heat_KHW).all(axis=(1, 2))
        if not finite_K.all():
            self._incomplete_s = monotonic()
        if finite_K.any():
            self._newest = heatmap

    def heat(self, heatmap: Heatmap, preview: bytes) -> bytes:
        """Return a heat message."""
        fields, maps_KHW = heat_fields(self._camera.origin, heatmap, self._drops)
        return self._heat.seal(fields, maps_KHW, preview)

    def status(self, subscribers: int, ended: bool) -> bytes:
        """Return a status message."""
        return self._status.seal(self._status_fields(subscribers, ended), None)

    def _status_fields(self, subscribers: int, ended: bool) -> Mapping[str, Any]:
        snapshot, newest, now_s = self._camera.snapshot(), self._newest, monotonic()
        self._drops = {**snapshot.drops, "feed_busy": self.replaced}
        if self.slipped_away:
            self._drops = {**self._drops, "clock_slipped": self.slipped_away}
        sources = self._camera.sources()
        numbers_s = self._answered_s if newest is None else newest.ready_s
        state = "ended" if ended else _state(newest is not None, numbers_s, sources, now_s)
        numbers = now_s - self._incomplete_s > WINDOW_S
        complete = numbers and _well("microphone", sources)
        recent_s = [sent_s for sent_s in self.sent_s if sent_s > now_s - 2]
        return {
            "state": state,
            "health": health(snapshot, live=state == "live", complete=complete),
            "replay": False,
            "audio_dbfs": None if newest is None else round(newest.rms_dbfs, 1),
            "fps_in": round(snapshot.fps_in, 2),
            "fps_out": round(snapshot.fps_out, 2),
            "fps_published": len(recent_s) / 2,
            "latency_p50_ms": snapshot.latency_p50_ms,
            "latency_p95_ms": snapshot.latency_p95_ms,
            "published": self._heat.sequence,
            "subscribers": subscribers,
            "drops": self._drops,
            "sources": [_source(source, now_s) for source in sources],
        }


def _source(source: SourceState, now_s: float) -> Mapping[str, Any]:
    return {
        "kind": source.kind,
        "state": source.state.value,
        "for_ms": round(1000 * max(0.0, now_s - source.since_s)),
        "losses": source.losses,
    }


def _well(kind: Kind, sources: Sequence[SourceState]) -> bool:
    return all(source.is_well for source in sources if source.kind == kind)


def _state(
    begun: bool, numbers_s: float | None, sources: Sequence[SourceState], now_s: float
) -> str:
    """Return the state by when there were numbers last; until it has begun, when there could be."""
    if any(source.state is State.FROZEN for source in sources):
        return "stalled"
    if not _well("camera", sources):
        return "camera_lost"
    if numbers_s is not None and now_s - numbers_s >= STALLED_S:
        return "stalled"
    return "live" if begun else "starting"


def health(snapshot: Snapshot, live: bool, complete: bool = True) -> str:
    """Return `excellent`, `fair` or `poor` by the last 10 seconds; `unusable` when not live.

    Without sound, or without numbers from every head, it is `poor` at best.
    """
    if not live:
        return "unusable"
    share = snapshot.fps_out / snapshot.fps_in if snapshot.fps_in else 0.0
    for grade, least, most_ms in _GRADES:
        if complete and share >= least and (snapshot.latency_p95_ms or 0.0) <= most_ms:
            return grade
    return "poor"
