"""The status endpoint's messages, read the way `feed_client` reads heatmaps."""

from dataclasses import dataclass
from typing import Any

from denseav.stream.feed_client import (
    DAMAGE,
    FeedFormatError,
    HeatmapSubscriber,
    expect,
    field,
    split,
)

STATES = ("starting", "live", "stalled", "replay", "ended")
GRADES = ("excellent", "fair", "poor", "unusable")


@dataclass(frozen=True)
class StatusMessage:
    """How a publisher was doing at `publish_ns`; `header` has every field, `data` the bytes."""

    run: str
    sequence: int
    publish_ns: int
    state: str
    health: str
    replay: bool
    header: dict[str, Any]
    data: bytes

    @property
    def capture_ns(self) -> int:
        """When what it says was so: its age counts from here."""
        return self.publish_ns


def decode_status(data: bytes) -> StatusMessage:
    """Return what a status message says; FeedFormatError is all that it ever raises."""
    try:
        header, run, sequence, shape, starts = split(data, "status")
        expect(shape == (0, 0, 0) and starts[1] == len(data), "it carries more than a header")
        state, grade = field(header, "state", str), field(header, "health", str)
        replay = field(header, "replay", bool)
    except DAMAGE as error:
        raise FeedFormatError(f"not a status message: {error!s:.99}") from None
    return StatusMessage(run, sequence, header["publish_ns"], state, grade, replay, header, data)


class StatusSubscriber(HeatmapSubscriber):
    """Keeps the newest status of one publisher; reads as `HeatmapSubscriber` does."""

    _kind = "status"
    _decode = staticmethod(decode_status)
