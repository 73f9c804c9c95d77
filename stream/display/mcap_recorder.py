"""A recording of a run for other tools: `Heatmap`s, audio and status in, an MCAP file out.

Foxglove, Rerun and ROS tools open it, and `--source` plays it again (`sources.recorded_run`). All
times are the capture times, on one clock, moved to the wall clock. Half a second at a time is
written, whole, so that this is all that a kill or a power cut costs. Encoding runs on the caller's
thread, which is one at a time.

Axes: S samples, C channels.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from io import SEEK_CUR, SEEK_SET, FileIO
from pathlib import Path
from time import monotonic, time_ns
from typing import Any, BinaryIO, cast

import cv2
import foxglove
import numpy as np
from foxglove.channels import (
    CompressedImageChannel,
    ImageAnnotationsChannel,
    RawAudioChannel,
    RawImageChannel,
)
from foxglove.mcap import MCAPWriteOptions
from foxglove.messages import RawAudio

from denseav.export.runtime.bundle import Head as ModelHead
from denseav.stream.errors import OutputError
from denseav.stream.feed.client import Head
from denseav.stream.feed.foxglove_views import jpeg_view, map_view, places_view, timestamp
from denseav.stream.feed.message import found_heads
from denseav.stream.sources.recorded_run import AUDIO, BLOCK, CAMERA, FRAME, FRAME_ID
from denseav.stream.types import AudioBlock, Heatmap

JPEG_QUALITY = 95  # played again, a picture has very nearly the same heat
CHUNK_S, CHUNK_BYTES = 0.5, 8 << 20  # what is written at a time
STATUS_S = 1.0
_RECENT_S = 60.0  # frames whose times are further from the clock's are of a film

Status = Callable[[], Mapping[str, Any]]


class McapRecorder:
    """One recording.

    Parameters
    ----------
    path : the file to make; it must not exist yet.
    heads : the model's.
    status : gives the run's figures, as JSON takes them.

    Raises
    ------
    OutputError
        Here and from every method, when the file cannot be written. The recorder is done; what
        was written until then can be read.
    """

    def __init__(self, path: Path, heads: Sequence[ModelHead], status: Status) -> None:
        self._path = path
        self._heads = heads
        self._status = status
        self._offset_ns: int | None = None
        self._early: list[AudioBlock] = []
        self._written_s = self._told_s = monotonic()
        self._journal = _Journal(path)
        self._context = context = foxglove.Context()  # its channels close when it goes
        options = MCAPWriteOptions(compression=None, chunk_size=None)
        # It asks for what a file can, of which reading is no part.
        file = cast(BinaryIO, self._journal)
        self._writer = foxglove.open_mcap(file, context=context, writer_options=options)
        self._camera = CompressedImageChannel(CAMERA, context=context)
        self._audio = RawAudioChannel(AUDIO, context=context)
        self._blocks = _json_channel(BLOCK, "denseav.AudioBlock", context)
        self._frames = _json_channel(FRAME, "denseav.Frame", context)
        self._maps = {
            head.name: RawImageChannel(f"/heat/{head.name}", context=context) for head in heads
        }
        self._places = ImageAnnotationsChannel("/places", context=context)
        self._statuses = _json_channel("/status", "denseav.Status", context)

    def heatmap(self, heatmap: Heatmap) -> None:
        """Keep a frame, each head's map, and where they are hot."""
        frame = heatmap.frame
        if self._offset_ns is None:
            self._begin(frame.capture_s)
        at_ns = self._ns(frame.capture_s)
        height, width = frame.image_HW3.shape[:2]
        heads = found_heads(self._heads, heatmap.heat_KHW, (width, height), heatmap.valid_K)
        self._frames.log(_record(heatmap, heads), log_time=at_ns)
        at = timestamp(at_ns)
        for head in heads.values():
            self._maps[head.name].log(map_view(head, FRAME_ID, at), log_time=at_ns)
        self._places.log(places_view(heads.values(), at), log_time=at_ns)
        quality = (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)
        _, jpeg = cv2.imencode(".jpg", frame.image_HW3, quality)
        self._camera.log(jpeg_view(jpeg.tobytes(), FRAME_ID, at), log_time=at_ns)
        self.poll()

    def audio(self, block: AudioBlock) -> None:
        """Keep some audio. What comes before the first frame waits for it."""
        if self._offset_ns is None:
            self._early.append(block)
            return
        at_ns = self._ns(block.capture_s)
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

    def poll(self) -> None:
        """Write what is due: call it some times a second."""
        now_s = monotonic()
        if self._offset_ns is not None and now_s - self._told_s >= STATUS_S:
            self._told_s = now_s
            self._statuses.log(dict(self._status()), log_time=time_ns())
        if now_s - self._written_s >= CHUNK_S or self._journal.pending >= CHUNK_BYTES:
            self._written_s = now_s
            self._or_give_up(self._writer.flush)

    def close(self) -> Path | None:
        """Write the index, close the file and return its path; None when there was no frame."""
        if self._journal.closed:
            return None
        self._or_give_up(self._writer.close)
        self._journal.flush()
        self._or_give_up(self._journal.close)
        if self._offset_ns is None:
            self._path.unlink(missing_ok=True)
            return None
        return self._path

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

    def _or_give_up(self, act: Callable[[], object]) -> None:
        act()
        if self._journal.failure is not None:
            self._journal.close()
            raise OutputError(
                f"cannot go on recording {self._path} ({self._journal.failure.strerror}); "
                "what was written can be read; make space"
            )


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


class _Journal:
    """A file of which only whole flushes are on the disk; keeps what it failed with.

    The writer seeks back in what it has not flushed, to put lengths right.
    """

    def __init__(self, path: Path) -> None:
        self.failure: OSError | None = None
        self._pending = bytearray()
        self._base = self._at = 0
        try:
            self._file: FileIO = path.open("xb", buffering=0)
        except FileExistsError:
            raise OutputError(f"{path} exists already; choose another name or delete it") from None
        except OSError as error:
            raise OutputError(
                f"cannot record to {path} ({error.strerror}); choose a folder that can be written"
            ) from None

    @property
    def closed(self) -> bool:
        return self._file.closed

    @property
    def pending(self) -> int:
        return len(self._pending)

    def write(self, data: bytes) -> int:
        begin = self._at - self._base
        self._pending[begin : begin + len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        end = self._base + len(self._pending)
        self._at = offset + (0 if whence == SEEK_SET else self._at if whence == SEEK_CUR else end)
        if not self._base <= self._at <= end:
            raise ValueError("what was written stays")
        return self._at

    def flush(self) -> None:
        pending, self._pending = memoryview(self._pending), bytearray()
        whole, self._base = self._base, self._base + len(pending)
        if self.failure is not None:
            return
        try:
            while pending:
                pending = pending[self._file.write(pending) :]
        except OSError as error:
            self.failure = error
            with suppress(OSError):
                os.ftruncate(self._file.fileno(), whole)

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()
