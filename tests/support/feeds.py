"""A real publisher, real subscribers and real keys on this machine."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from denseav.export.runtime.bundle import Head
from denseav.stream.feed import keys as feed_keys
from denseav.stream.feed.client import decode
from denseav.stream.feed.message import Envelope, Origin, heat_fields
from denseav.stream.feed.publisher import CameraFeed, Publisher
from denseav.stream.feed.recording import Recording
from denseav.stream.stats.stats import Stats
from denseav.stream.types import Frame, Heatmap
from tests.support.ports import free_port

RUN = bytes(range(16))
HEADS = (
    Head(name="speech", threshold=0.5, ceiling=1.0),
    Head(name="sound", threshold=0.25, ceiling=0.75),
)
ORIGIN = Origin(camera_id="cam0", heads=HEADS, model="ab" * 32, backend="cpu", precision="fp32")


def free_endpoint() -> str:
    """An address on this machine whose port and the next are free."""
    return f"tcp://127.0.0.1:{free_port(neighbours=1)}"


def status_of(endpoint: str) -> str:
    head, _, port = endpoint.rpartition(":")
    return f"{head}:{int(port) + 1}"


def heat(index: int = 0) -> NDArray[np.float32]:
    """Two maps of 4x6 cells: speech is cold, sound has a hot block at rows 1-2, columns 3-4."""
    heat_KHW = np.zeros((2, 4, 6), np.float32)
    heat_KHW[0] = 0.125
    heat_KHW[1, 1:3, 3:5] = 0.5
    heat_KHW[1, 2, 4] = 0.75 + 0.0625 * (index % 2)
    heat_KHW[1, 0, 0] = 0.5  # active as well, but not where the peak is
    return heat_KHW


def heatmap(
    index: int = 0,
    capture_s: float | None = None,
    heat_KHW: NDArray[np.float32] | None = None,
    size: tuple[int, int] = (640, 480),
) -> Heatmap:
    now_s = time.monotonic() if capture_s is None else capture_s
    image_HW3 = np.full((size[1], size[0], 3), index % 256, np.uint8)
    heat_KHW = heat(index) if heat_KHW is None else heat_KHW
    valid_K = (True,) * len(heat_KHW)
    return Heatmap(
        Frame(image_HW3, index, now_s), heat_KHW, valid_K, now_s - 0.3, now_s - 0.1, -20.0, now_s
    )


def message(index: int = 0, preview: bytes = b"", envelope: Envelope | None = None) -> bytes:
    """One heat message, made by our encoder."""
    envelope = envelope or Envelope("heat", "cam0", RUN)
    fields, maps_KHW = heat_fields(ORIGIN, heatmap(index), {"model_busy": 3})
    return envelope.seal(fields, maps_KHW, preview)


@contextmanager
def publishing(
    endpoint: str,
    keys: Path | None = None,
    *,
    preview: bool = False,
    cameras: Sequence[str] = (ORIGIN.camera_id,),
) -> Iterator[Publisher]:
    feeds = [
        CameraFeed(origin=replace(ORIGIN, camera_id=name), snapshot=Stats().snapshot)
        for name in cameras
    ]
    publisher = Publisher(endpoint, feeds, keys=keys, preview=preview)
    try:
        yield publisher
    finally:
        publisher.close()


def publish_until(publisher: Publisher, done: Callable[[], object], fps: float = 50.0) -> int:
    """Publish until `done`, for twenty seconds at most; return how many heatmaps were given."""
    for index in range(round(20 * fps)):
        if done():
            return index
        publisher.heatmap(heatmap(index))
        time.sleep(1 / fps)
    raise AssertionError("it did not come to that in twenty seconds")


def make_keys(folder: Path, *names: str) -> dict[str, Path]:
    """Keys of a publisher in `folder`, and the key files of clients beside it."""
    feed_keys.init(folder)
    files = {}
    for name in names:
        files[name] = folder.parent / f"{folder.name}-{name}.client"
        feed_keys.add_client(folder, name, files[name])
    return files


def make_recording(path: Path, count: int = 5) -> list[bytes]:
    envelope = Envelope("heat", "cam0", RUN)
    kept = [message(index, envelope=envelope) for index in range(count)]
    recording = Recording(path)
    for each in kept:
        recording.add(decode(each))
    recording.close()
    return kept
