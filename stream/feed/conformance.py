"""The check of a feed against `FEED.md`: messages in, complaints out.

It finds more than a reader needs to know; what the decoder refuses does not come here.
Axes: K heads, H W cells of the maps.
"""

import numpy as np
from numpy.typing import NDArray

from denseav.stream.feed.client import PREFIX, HeatMessage, StatusMessage
from denseav.stream.feed.message import region

STATES = ("starting", "live", "stalled", "camera_lost", "replay", "ended")
GRADES = ("excellent", "fair", "poor", "unusable")
_PIXEL = 0.01  # how exact places must be
_HEAT_FIELDS = ("frame", "skew_ms", "audio_dbfs", "model", "backend", "precision", "drops")
_STATUS_GAP_S = 1.0  # twice what it should be


class Check:
    """What was found wrong with a feed, while its messages are given one by one.

    `heats` and `statuses` count them; `found` has each complaint once.
    """

    def __init__(self) -> None:
        self.heats = self.statuses = 0
        self.found: set[str] = set()
        self._last: dict[str, HeatMessage] = {}  # of each camera

    def heat(self, message: HeatMessage) -> None:
        """Check a heat message, by itself and after the last one."""
        self.heats += 1
        self.found.update(check_heat(message))
        camera = message.header["camera"]
        if camera in self._last:
            self.found.update(check_pair(self._last[camera], message))
        self._last[camera] = message

    def status(self, message: StatusMessage) -> None:
        """Check a status message."""
        self.statuses += 1
        self.found.update(check_status(message))

    def end(self, seconds: float) -> None:
        """Check that enough status messages came in all these seconds."""
        if self.statuses < seconds / _STATUS_GAP_S:
            self.found.add(f"{self.statuses} statuses in {seconds:.1f} s; 2 a second are due")


def check_heat(message: HeatMessage) -> list[str]:
    """Return what contradicts itself or is missing in one decoded message."""
    header = message.header
    found = [f"the field {name} is missing" for name in _HEAT_FIELDS if name not in header]
    if not header["audio_start_ns"] < header["audio_end_ns"]:
        found.append("the sound's interval is empty or ends before it begins")
    skew_ms = (header["audio_end_ns"] - message.capture_ns) / 1e6
    if abs(header.get("skew_ms", skew_ms) - skew_ms) > 0.01:
        found.append(f"skew_ms is not the sound's end less the capture, {skew_ms:.3f}")
    if _body_offset(message.data) % 8:
        found.append("the maps do not begin at a multiple of 8 bytes")
    if message.preview_jpeg and not message.preview_jpeg.startswith(b"\xff\xd8\xff"):
        found.append("the preview is no JPEG")
    return found + _check_places(message)


def check_pair(last: HeatMessage, message: HeatMessage) -> list[str]:
    """Return what is wrong between two messages that came one after the other."""
    if last.run != message.run:
        return []
    found = []
    if message.sequence <= last.sequence:
        found.append(f"sequence {message.sequence} came after {last.sequence}")
    if message.publish_ns < last.publish_ns:
        found.append("the publish time went back")
    if message.capture_ns < last.capture_ns:
        found.append("the capture time went back")
    return found


def check_status(status: StatusMessage) -> list[str]:
    """Return what is wrong with one decoded status message."""
    found = []
    if status.state not in STATES:
        found.append(f"the state {status.state!r} is none that FEED.md names")
    if status.health not in GRADES:
        found.append(f"the health {status.health!r} is none that FEED.md names")
    if status.replay != (status.state == "replay"):
        found.append("state and replay contradict each other")
    return found


def _check_places(message: HeatMessage) -> list[str]:
    """Compare what is said of each head with its map."""
    found = []
    scale_x, scale_y = message.heat_to_pixel_33[0, 0], message.heat_to_pixel_33[1, 1]
    for head, heat_HW in zip(message.heads.values(), message.maps_KHW, strict=True):
        (column, row), box = region(heat_HW, head.threshold)
        if head.valid and not _close(head.peak, message.heat_to_pixel_33, (column, row)):
            found.append(f"{head.name}: the peak is not where the map is hottest")
        expected = box and np.multiply(box, (scale_x, scale_y) * 2)
        same = (head.box is None) == (expected is None) if head.valid else head.box is None
        if head.box is not None and expected is not None:
            same = bool(np.allclose(head.box, expected, atol=_PIXEL))
        if not same:
            found.append(f"{head.name}: the box is not round the active cells at the peak")
    return found


def _close(
    peak: tuple[float, ...] | None, matrix_33: NDArray[np.float64], cell: tuple[int, int]
) -> bool:
    x, y, w = matrix_33 @ (cell[0] + 0.5, cell[1] + 0.5, 1)
    return peak is not None and bool(np.allclose(peak, (x / w, y / w), atol=_PIXEL))


def _body_offset(data: bytes) -> int:
    fields = PREFIX.unpack_from(data)
    return int(fields[4] + fields[5])
