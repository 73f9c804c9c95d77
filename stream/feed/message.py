"""The encoder of the feed: a `Heatmap` in, the bytes of one message out, as `FEED.md` has them.

It runs on the feed's own thread, and knows nothing of sockets. Axes: K heads, H W cells of the
maps, Y X the same for one head.
"""

import hashlib
import json
import re
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from denseav.export.runtime.bundle import Head
from denseav.stream.feed.client import MAGIC, MAJOR, MINOR, PREFIX, clock_name
from denseav.stream.feed.client import Head as FoundHead
from denseav.stream.types import Heatmap

PREVIEW_LONGEST_SIDE = 1280
PREVIEW_QUALITY = 80
_HALF_MAX = float(np.finfo(np.float16).max)
_LABEL_CHARACTERS, _MARK_DIGITS = 16, 8  # of the 25 that "status/" leaves of a topic's 32 bytes


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where messages come from: what is the same in all of a run's.

    Attributes
    ----------
    camera_id : the camera's name in topics: 1 to 25 letters, digits, dots and dashes.
    heads : in the order of the maps.
    model : the bundle's sha256. `backend` and `precision` are the session's.
    """

    camera_id: str
    heads: Sequence[Head]
    model: str
    backend: str
    precision: str


class Envelope:
    """Numbers and labels the messages of one kind.

    Parameters
    ----------
    kind : `heat` or `status`.
    camera_id : as in the topic.
    run : 16 random bytes, the same for all of a run's messages.
    """

    def __init__(self, kind: str, camera_id: str, run: bytes) -> None:
        self._topic = f"{kind}/{camera_id}".encode()
        self._camera_id = camera_id
        self._run = run
        self._host = clock_name()
        self.sequence = 0

    def seal(
        self, fields: Mapping[str, Any], maps_KHW: NDArray[np.float16] | None, preview: bytes = b""
    ) -> bytes:
        """Return the message: prefix, header padded to whole 8 bytes, maps, preview."""
        self.sequence += 1
        now_ns = time.monotonic_ns()
        common = {
            "camera": self._camera_id,
            "host": self._host,
            "publish_ns": now_ns,
            "unix_offset_ns": time.time_ns() - now_ns,
        }
        header = json.dumps(common | dict(fields), separators=(",", ":"), allow_nan=False).encode()
        header += b" " * (-len(header) % 8)
        shape = (0, 0, 0) if maps_KHW is None else maps_KHW.shape
        maps = b"" if maps_KHW is None else maps_KHW.astype("<f2", copy=False).tobytes()
        prefix = PREFIX.pack(
            *(self._topic, MAGIC, MAJOR, MINOR, PREFIX.size, len(header), len(maps), len(preview)),
            *(*shape, 0, 0, self.sequence, self._run),
        )
        return b"".join((prefix, header, maps, preview))


def default_camera_id(name: str, spec: str) -> str:
    """Return a topic's name for a camera that is given none, the same in each run of it.

    Parameters
    ----------
    name : what people read, of which it begins with as much as topics allow.
    spec : what opens it. With this machine's names it makes a mark by which two channels of one
        recorder differ, and the first cameras of two machines.
    """
    label = re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-")[:_LABEL_CHARACTERS] or "camera"
    machine = f"{socket.gethostname()} {uuid.getnode()}".encode()
    # Slow on purpose: the specification may hold a password, and everybody sees the mark.
    mark = hashlib.pbkdf2_hmac("sha256", spec.encode(errors="replace"), machine, 200_000)
    return f"{label}-{mark.hex()[:_MARK_DIGITS]}"


def new_run() -> bytes:
    """Return what names one run of a publisher."""
    return uuid.uuid4().bytes


def heat_fields(
    origin: Origin, heatmap: Heatmap, drops: Mapping[str, int]
) -> tuple[dict[str, Any], NDArray[np.float16]]:
    """Return the header's fields and the maps, finite throughout, of one heatmap."""
    frame_height, frame_width = heatmap.frame.image_HW3.shape[:2]
    limited_KHW = np.clip(np.nan_to_num(heatmap.heat_KHW), -_HALF_MAX, _HALF_MAX)
    maps_KHW: NDArray[np.float16] = limited_KHW.astype(np.float16)
    rows, columns = maps_KHW.shape[1:]
    scale = (frame_width / columns, frame_height / rows)
    found = found_heads(origin.heads, maps_KHW, (frame_width, frame_height), heatmap.valid_K)
    assert heatmap.audio_start_s is not None
    assert heatmap.audio_end_s is not None
    skew_s = heatmap.audio_end_s - heatmap.frame.capture_s
    fields = {
        "frame": heatmap.frame.index,
        "frame_size": [frame_width, frame_height],
        "capture_ns": min(_ns(heatmap.frame.capture_s), time.monotonic_ns()),
        "audio_start_ns": _ns(heatmap.audio_start_s),
        "audio_end_ns": _ns(heatmap.audio_end_s),
        "skew_ms": round(1000 * skew_s, 3),
        "audio_dbfs": round(heatmap.rms_dbfs, 1),
        "heads": [_record(head) for head in found.values()],
        "heat_to_pixel": [scale[0], 0, 0, 0, scale[1], 0, 0, 0, 1],
        "model": origin.model,
        "backend": origin.backend,
        "precision": origin.precision,
        "drops": dict(drops),
    }
    return fields, maps_KHW


def found_heads(
    heads: Sequence[Head],
    heat_KHW: NDArray[np.floating],
    frame_size: tuple[int, int],
    valid_K: Sequence[bool],
) -> dict[str, FoundHead]:
    """Return for each head, by its name, what was found and where.

    Parameters
    ----------
    heads : of the model, in the order of the maps.
    heat_KHW : their maps.
    frame_size : width and height of the frame in pixels.
    valid_K : which of them mean something: the others have no place.
    """
    rows, columns = heat_KHW.shape[1:]
    scale = (frame_size[0] / columns, frame_size[1] / rows)
    each = zip(heads, heat_KHW, valid_K, strict=True)
    return {head.name: _found(head, heat_YX, scale, valid) for head, heat_YX, valid in each}


def region(
    heat_YX: NDArray[np.floating], threshold: float
) -> tuple[tuple[int, int], tuple[int, int, int, int] | None]:
    """Return the hottest cell (column, row) and the box of cells round it over the threshold.

    The box is (left, top, right, bottom), right and bottom just outside, of the cells that hang
    together with the hottest; None when that is under the threshold itself.
    """
    row, column = (int(index) for index in np.unravel_index(np.argmax(heat_YX), heat_YX.shape))
    active_YX = (heat_YX.astype(np.float32) >= threshold).astype(np.uint8)
    if not active_YX[row, column]:
        return (column, row), None
    _, label_YX, stats, _ = cv2.connectedComponentsWithStats(active_YX, connectivity=8)
    left, top, width, height = (int(value) for value in stats[label_YX[row, column]][:4])
    return (column, row), (left, top, left + width, top + height)


def preview_jpeg(image_HW3: NDArray[np.uint8]) -> bytes:
    """Return the picture as JPEG, made smaller where its long side is over 1280."""
    height, width = image_HW3.shape[:2]
    shrink = PREVIEW_LONGEST_SIDE / max(height, width)
    if shrink < 1:
        size = max(1, round(width * shrink)), max(1, round(height * shrink))
        image_HW3 = cv2.resize(image_HW3, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    _, jpeg = cv2.imencode(".jpg", image_HW3, (cv2.IMWRITE_JPEG_QUALITY, PREVIEW_QUALITY))
    return jpeg.tobytes()


def _found(
    head: Head, heat_YX: NDArray[np.floating], scale: tuple[float, float], valid: bool
) -> FoundHead:
    (column, row), cells = region(heat_YX, head.threshold)
    peak = box = None
    if valid:
        peak = round((column + 0.5) * scale[0], 3), round((row + 0.5) * scale[1], 3)
    if valid and cells is not None:
        box = tuple(round(edge * scale[index % 2], 3) for index, edge in enumerate(cells))
    return FoundHead(
        name=head.name,
        valid=valid,
        score=float(heat_YX[row, column]),
        threshold=head.threshold,
        ceiling=head.ceiling,
        peak=peak,
        box=box,
        heat=heat_YX.astype(np.float32, copy=False),
    )


def _record(head: FoundHead) -> dict[str, Any]:
    """Return a head as the header has it: all but its map."""
    names = "name", "valid", "threshold", "ceiling", "score", "peak", "box"
    return {name: getattr(head, name) for name in names}


def _ns(time_s: float) -> int:
    return round(1e9 * time_s)
