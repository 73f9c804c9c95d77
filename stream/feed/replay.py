"""The replay of a recording: its messages in, the very bytes out, at their old pace.

It runs on the caller's thread until all is sent, and knows nothing of how files are made.
"""

from collections.abc import Sequence
from pathlib import Path
from time import monotonic, sleep

from denseav.stream.feed.client import HeatMessage
from denseav.stream.feed.message import Envelope
from denseav.stream.feed.recording import messages
from denseav.stream.feed.sockets import FeedSockets

_STATUS_S = 0.5
_STEP_S = 0.02


def replay(path: Path, firsts: Sequence[HeatMessage], sockets: FeedSockets) -> int:
    """Wait for a subscriber, then send every message as it was; return how many.

    Meanwhile the status says that this is a replay.

    Parameters
    ----------
    firsts : of each camera, from `check_whole`, which has to come before.

    Raises
    ------
    StreamError
        When the recording cannot be read, or keys can no longer be checked.
    """
    statuses = [
        Envelope("status", first.header["camera"], bytes.fromhex(first.run)) for first in firsts
    ]
    status_s, sent = monotonic(), 0

    def step(until_s: float) -> None:
        """Serve subscriptions and the status, and sleep, but not beyond a time."""
        nonlocal status_s
        sockets.look()
        if monotonic() >= status_s:
            status_s = monotonic() + _STATUS_S
            for status in statuses:
                sockets.send_status(status.seal(_status_fields(sent, sockets.subscribers), None))
        sleep(max(0.0, min(_STEP_S, until_s - monotonic())))

    while not sockets.subscribers:
        step(monotonic() + _STEP_S)
    begin_s = monotonic()
    for time_s, message in messages(path):
        while monotonic() < begin_s + time_s:
            step(begin_s + time_s)
        sockets.send_heat(message)
        sent += 1
    end_s = monotonic() + _STATUS_S
    while monotonic() < end_s:
        step(end_s)
    return sent


def _status_fields(sent: int, subscribers: int) -> dict[str, object]:
    fields: dict[str, object] = {"state": "replay", "health": "unusable", "replay": True}
    return fields | {"published": sent, "subscribers": subscribers}
