"""The monotonic clock beside others of this machine: their readings in, whether it slipped out.

A reader on another machine trusts the publisher's clock to run as its own does. A suspended machine
stops it, and some programs set it right by making it slower or faster for a while.
"""

import sys
import time
from time import monotonic_ns

from denseav.stream.feed.client import DRIFT

SLIP_NS = 50_000_000
_UNSURE_NS = 1_000_000  # between two readings of the clock, when this thread was held up
# Not all systems have all: one counts on while suspended, one is never set right.
_NAMES = ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC_RAW", "CLOCK_MONOTONIC")
_OTHERS = [getattr(time, name) for name in _NAMES if hasattr(time, name)]


class SlipDetector:
    """Notices when the clock stops or changes its pace: by more than 50 ms beyond usual drift."""

    def __init__(self) -> None:
        self._noted_ns, self._offsets_ns = _read()

    def slipped(self) -> bool:
        """Return whether the clock has slipped since it was last asked; from then on afresh."""
        now_ns, offsets_ns = _read()
        if not offsets_ns:
            return False
        self._offsets_ns = self._offsets_ns or offsets_ns
        allowed_ns = max(0, now_ns - self._noted_ns) // DRIFT
        moved_ns = [now - then for now, then in zip(offsets_ns, self._offsets_ns, strict=True)]
        self._noted_ns = now_ns
        if any(abs(each_ns) > SLIP_NS + allowed_ns for each_ns in moved_ns):
            self._offsets_ns = offsets_ns
            return True
        self._offsets_ns = [
            then + min(max(moved, -allowed_ns), allowed_ns)
            for then, moved in zip(self._offsets_ns, moved_ns, strict=True)
        ]
        return False


def _read() -> tuple[int, list[int]]:
    """Return the time and how far ahead the other clocks are; nothing when that is not sure."""
    if sys.platform == "win32":  # where it counts on while suspended, and is never set right
        return monotonic_ns(), []
    before_ns = monotonic_ns()
    others_ns = [time.clock_gettime_ns(clock) for clock in _OTHERS]
    now_ns = monotonic_ns()
    sure = now_ns - before_ns < _UNSURE_NS
    return now_ns, [other_ns - now_ns for other_ns in others_ns] if sure else []
