"""The status endpoint's messages, read the way `feed_client` reads heatmaps."""

from dataclasses import dataclass
from typing import Any

from denseav.stream.feed.client import (
    DAMAGE,
    TIME_MAX_NS,
    FeedFormatError,
    HeatmapSubscriber,
    expect,
    field,
    split,
)

STATES = ("starting", "live", "stalled", "camera_lost", "replay", "ended")
GRADES = ("excellent", "fair", "poor", "unusable")


@dataclass(frozen=True)
class SourceReport:
    """How the publisher's camera or microphone did, for how long, and how often it was lost."""

    kind: str
    state: str
    for_ms: int
    losses: int


@dataclass(frozen=True)
class StatusMessage:
    """How a publisher was doing at `publish_ns`; `header` has every field, `data` the bytes."""

    run: str
    sequence: int
    publish_ns: int
    state: str
    health: str
    replay: bool
    sources: tuple[SourceReport, ...]
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
        sources = tuple(_source(record) for record in header.get("sources", ()))
    except DAMAGE as error:
        raise FeedFormatError(f"not a status message: {error!s:.99}") from None
    said = state, grade, replay, sources
    return StatusMessage(run, sequence, header["publish_ns"], *said, header, data)


def _source(record: Any) -> SourceReport:
    counts = (field(record, name, int, TIME_MAX_NS) for name in ("for_ms", "losses"))
    return SourceReport(field(record, "kind", str), field(record, "state", str), *counts)


class StatusSubscriber(HeatmapSubscriber):
    """Keeps the newest status of one publisher; reads as `HeatmapSubscriber` does."""

    _kind = "status"
    _decode = staticmethod(decode_status)
