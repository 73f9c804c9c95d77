"""A delay line: frames in with the time they came, out when they are due; the newest due wins.

Between the sources' threads and the one that makes heatmaps; its memory is bounded.
"""

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic

from denseav.stream.types import Frame

TimedFrame = tuple[Frame, float]  # a frame, and when it came

HELD_BYTES_MAX = 256 * 2**20  # of pictures that wait: 2 s of 1280x720 at 48 a second


class DelayLine:
    """Hold frames until they are due. Where too many wait they are thinned evenly.

    Parameters
    ----------
    wait_s : tells how many seconds a frame still has to wait, at least; 0 when it is due.
    dropped : called with how many frames were overtaken by one that was due as well.
    """

    def __init__(self, wait_s: Callable[[Frame], float], dropped: Callable[[int], None]) -> None:
        self._wait_s = wait_s
        self._dropped = dropped
        self._frames: deque[TimedFrame] = deque()
        self._held_bytes = 0
        self._changed = threading.Condition()

    @property
    def empty(self) -> bool:
        """Whether no frame waits."""
        return not self._frames

    def put(self, timed: TimedFrame) -> bool:
        """Let a frame wait. Returns whether one had to be dropped because too many wait."""
        with self._changed:
            self._frames.append(timed)
            self._held_bytes += timed[0].image_HW3.nbytes
            thinned = False
            while self._held_bytes > HELD_BYTES_MAX and len(self._frames) > 2:
                self._thin()
                thinned = True
            self._changed.notify()
            return thinned

    def get(self, timeout_s: float) -> TimedFrame | None:
        """Take the newest frame that is due, waiting for one; None when none was in time."""
        end_s = monotonic() + timeout_s
        with self._changed:
            while True:
                left_s = end_s - monotonic()
                waits_s = self._first_waits_s()
                if waits_s <= 0:
                    return self._newest_due()
                if left_s <= 0:
                    return None
                self._changed.wait(min(waits_s, left_s))

    def _thin(self) -> None:
        """Drop the frame whose neighbours are closest together: the gap it leaves is smallest."""
        times_s = [frame.capture_s for frame, _ in self._frames]
        gaps_s = [after - before for before, after in zip(times_s, times_s[2:], strict=False)]
        at = 1 + gaps_s.index(min(gaps_s))
        self._held_bytes -= self._frames[at][0].image_HW3.nbytes
        del self._frames[at]

    def _first_waits_s(self) -> float:
        return self._wait_s(self._frames[0][0]) if self._frames else float("inf")

    def _newest_due(self) -> TimedFrame:
        timed, overtaken = self._pop(), 0
        while self._first_waits_s() <= 0:
            timed, overtaken = self._pop(), overtaken + 1
        if overtaken:
            self._dropped(overtaken)
        return timed

    def _pop(self) -> TimedFrame:
        timed = self._frames.popleft()
        self._held_bytes -= timed[0].image_HW3.nbytes
        return timed
