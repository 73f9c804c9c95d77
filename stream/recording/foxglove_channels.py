"""A run as Foxglove's messages: `Heatmap`s, audio and figures in, channels of a context filled.

A recording (`mcap_recorder`) and a live server (`web.foxglove_server`) have these same channels and
schemas; which of them takes the messages is no matter here. Several cameras each have their own,
below their names. All times are the capture times, on one clock, moved to the wall clock. Encoding
runs on the caller's thread, which is one at a time.

Axes: S samples, C channels.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic, time_ns
from typing import Any

import cv2
import foxglove
import numpy as np
from foxglove.channels import (
    CompressedImageChannel,
    ImageAnnotationsChannel,
    RawAudioChannel,
    RawImageChannel,
)
from foxglove.messages import RawAudio

from denseav.export.runtime.bundle import Head as ModelHead
from denseav.stream.feed.client import Head
from denseav.stream.feed.foxglove_views import jpeg_view, map_view, places_view, timestamp
from denseav.stream.feed.message import found_heads
from denseav.stream.sources.recorded_run import AUDIO, BLOCK, CAMERA, FRAME, FRAME_ID
from denseav.stream.types import AudioBlock, Heatmap

JPEG_QUALITY = 95  # played again, a picture has very nearly the same heat
STATUS_S = 1.0
_RECENT_S = 60.0  # frames whose times are further from the clock's are of a film

Status = Callable[[], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Whose frames and audio there are, by the names that stand in topics.

    Attributes
    ----------
    cameras : of several, each one's; None for the only one.
    microphones : the same cameras, where each has its own; None for the only one.
    """

    cameras: Sequence[str | None]
    microphones: Sequence[str | None]


ONE_CAMERA = Inputs(cameras=(None,), microphones=(None,))


class FoxgloveChannels:
    """The channels of one run.

    Parameters
    ----------
    context : whose channels they are; it is kept, as they close when it goes.
    heads : the model's.
    status : gives the run's figures, as JSON takes them.
    inputs : whose frames and audio there are.
    """

    def __init__(
        self,
        context: foxglove.Context,
        heads: Sequence[ModelHead],
        status: Status,
        inputs: Inputs = ONE_CAMERA,
    ) -> None:
        self._context = context
        self._heads = heads
        self._status = status
        self._offset_ns: int | None = None
        self._early: list[AudioBlock] = []
        self._told_s = monotonic()
        self._cameras = [_CameraChannels(context, heads, name) for name in inputs.cameras]
        self._microphones = [_MicrophoneChannels(context, name) for name in inputs.microphones]
        self._statuses = _json_channel("/status", "denseav.Status", context)

    @property
    def begun(self) -> bool:
        """Whether there was a frame, which sets the clock."""
        return self._offset_ns is not None

    def heatmap(self, heatmap: Heatmap) -> None:
        """Give a frame, each head's map, and where they are hot."""
        frame = heatmap.frame
        if self._offset_ns is None:
            self._begin(frame.capture_s)
        height, width = frame.image_HW3.shape[:2]
        heads = found_heads(self._heads, heatmap.heat_KHW, (width, height), heatmap.valid_K)
        self._cameras[frame.camera].log(heatmap, heads, self._ns(frame.capture_s))

    def audio(self, block: AudioBlock) -> None:
        """Give some audio. What comes before the first frame waits for it."""
        if self._offset_ns is None:
            self._early.append(block)
            return
        self._microphones[block.microphone].log(block, self._ns(block.capture_s))

    def tell_status(self) -> None:
        """Give the run's figures when they are due: call it some times a second."""
        now_s = monotonic()
        if self._offset_ns is not None and now_s - self._told_s >= STATUS_S:
            self._told_s = now_s
            self._statuses.log(dict(self._status()), log_time=time_ns())

    def _begin(self, capture_s: float) -> None:
        # A film's times begin at 0: its first frame is now.
        live = abs(monotonic() - capture_s) < _RECENT_S
        self._offset_ns = time_ns() - round(1e9 * (monotonic() if live else capture_s))
        early, self._early = self._early, []
        for block in early:
            self.audio(block)

    def _ns(self, time_s: float) -> int:
        assert self._offset_ns is not None
        return max(0, round(1e9 * time_s) + self._offset_ns)


class _CameraChannels:
    """One camera's: its pictures, what is said of each, and each head's maps and places."""

    def __init__(
        self, context: foxglove.Context, heads: Sequence[ModelHead], camera: str | None
    ) -> None:
        above = _above(camera)
        self._frame_id = camera or FRAME_ID
        self._pictures = CompressedImageChannel(above + CAMERA, context=context)
        self._frames = _json_channel(above + FRAME, "denseav.Frame", context)
        self._maps = {
            head.name: RawImageChannel(f"{above}/heat/{head.name}", context=context)
            for head in heads
        }
        self._places = ImageAnnotationsChannel(f"{above}/places", context=context)

    def log(self, heatmap: Heatmap, heads: Mapping[str, Head], at_ns: int) -> None:
        self._frames.log(_record(heatmap, heads), log_time=at_ns)
        at = timestamp(at_ns)
        for head in heads.values():
            self._maps[head.name].log(map_view(head, self._frame_id, at), log_time=at_ns)
        self._places.log(places_view(heads.values(), at), log_time=at_ns)
        if self._pictures.has_sinks():  # which a server has while somebody looks
            quality = (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)
            _, jpeg = cv2.imencode(".jpg", heatmap.frame.image_HW3, quality)
            self._pictures.log(jpeg_view(jpeg.tobytes(), self._frame_id, at), log_time=at_ns)


class _MicrophoneChannels:
    """One microphone's: its samples, and where they lie among all."""

    def __init__(self, context: foxglove.Context, camera: str | None) -> None:
        self._audio = RawAudioChannel(_above(camera) + AUDIO, context=context)
        self._blocks = _json_channel(_above(camera) + BLOCK, "denseav.AudioBlock", context)

    def log(self, block: AudioBlock, at_ns: int) -> None:
        pcm_SC = np.clip(np.rint(block.samples_SC * 2.0**15), -(2**15), 2**15 - 1).astype("<i2")
        # Where a block lies among the samples, which no field of theirs says.
        self._blocks.log({"first_sample": block.first_sample}, log_time=at_ns)
        self._audio.log(
            RawAudio(
                timestamp=timestamp(at_ns),
                data=pcm_SC.tobytes(),
                format="pcm-s16",
                sample_rate=block.rate_hz,
                number_of_channels=block.samples_SC.shape[1],
            ),
            log_time=at_ns,
        )


def _above(camera: str | None) -> str:
    return "" if camera is None else f"/{camera}"


def _json_channel(topic: str, name: str, context: foxglove.Context) -> foxglove.Channel:
    schema = foxglove.Schema(name=name, encoding="jsonschema", data=b'{"type": "object"}')
    return foxglove.Channel(topic, schema=schema, message_encoding="json", context=context)


def _record(heatmap: Heatmap, heads: Mapping[str, Head]) -> dict[str, Any]:
    """Return what is said of a frame beside its images: times in seconds of the run's clock."""
    names = ("name", "valid", "score", "threshold", "ceiling", "peak", "box")
    return {
        "index": heatmap.frame.index,
        "capture_s": heatmap.frame.capture_s,
        "ready_s": heatmap.ready_s,
        "audio_start_s": heatmap.audio_start_s,
        "audio_end_s": heatmap.audio_end_s,
        "audio_dbfs": heatmap.rms_dbfs,
        "heads": [{name: _said(getattr(head, name)) for name in names} for head in heads.values()],
    }


def _said(value: Any) -> Any:
    """Return a value as JSON takes it, which knows no number that is none."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
