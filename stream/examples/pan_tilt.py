"""A camera that turns towards the sound, and stands still as soon as the feed is not to be trusted.

    python pan_tilt.py tcp://127.0.0.1:5557 [FILE.client|- [CAMERA]]

It prints degrees per second, one command a line, in place of a motor: put your own in `Mount`.
Three things are worth keeping: nothing turns any more when the newest picture is 200 ms old,
whatever the reason; no box means no turning; and every rate is limited. On a robot without denseav,
copy `stream/feed/client.py` beside this file as `feed_client.py`, and import from `feed_client`.
"""

import sys
import time
from contextlib import suppress
from pathlib import Path

from denseav.stream.feed.client import FeedError, HeatmapSubscriber, HeatMessage

TICK_S = 0.02
MAX_AGE_MS = 150.0  # 200 less two ticks: a command holds until the next one
FIELD_OF_VIEW_DEG = (70.0, 43.0)  # of the camera, across and down
GAIN_PER_S = 1.5
RATE_MAX_DEG_S = 40.0
DEAD_ZONE_DEG = 2.0


class Mount:
    """The motors. This one prints."""

    def turn(self, pan_deg_s: float, tilt_deg_s: float, why: str) -> None:
        """Turn at these rates until told otherwise: right and down are positive."""
        print(f"pan {pan_deg_s:+.1f} tilt {tilt_deg_s:+.1f} {why}", flush=True)  # noqa: T201


def rates_deg_s(message: HeatMessage) -> tuple[float, float]:
    """Return how fast to turn, across and down, to bring the sound into the middle."""
    sound = message.heads.get("sound")
    if sound is None or sound.peak is None or sound.box is None:
        return 0.0, 0.0
    found = []
    for place, size, view_deg in zip(sound.peak, message.frame_size, FIELD_OF_VIEW_DEG):  # noqa: B905
        off_deg = (place / size - 0.5) * view_deg
        rate = 0.0 if abs(off_deg) < DEAD_ZONE_DEG else GAIN_PER_S * off_deg
        found.append(max(-RATE_MAX_DEG_S, min(RATE_MAX_DEG_S, rate)))
    return found[0], found[1]


def follow(feed: HeatmapSubscriber, mount: Mount) -> None:
    """Follow the sound until interrupted."""
    try:
        while True:
            try:
                mount.turn(
                    *rates_deg_s(feed.read_latest(MAX_AGE_MS, timeout_ms=0)), "towards the sound"
                )
            except FeedError as error:
                mount.turn(0.0, 0.0, f"stopped: {error}")
            time.sleep(TICK_S)
    finally:
        mount.turn(0.0, 0.0, "stopped: ended")


if __name__ == "__main__":
    given = dict(enumerate(sys.argv))
    keys = None if given.get(2, "-") == "-" else Path(given[2])
    with (
        HeatmapSubscriber(given[1], keys, camera=given.get(3, "")) as subscriber,
        suppress(KeyboardInterrupt),
    ):
        follow(subscriber, Mount())
