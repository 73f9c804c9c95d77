"""Frames enter, and leave when they are due; the newest of those that are due wins."""

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic

from denseav.stream.types import Frame

Came = tuple[Frame, float]  # a frame, and when it came

HELD_BYTES_MAX = 256 * 2**20  # of pictures that wait: 2 s of 1280x720 at 48 a second


class DelayLine:
    """Hold frames until they are due.

    Parameters
    ----------
    wait_s : tells how many seconds a frame still has to wait, at least; 0 when it is due.
    dropped : called with how many frames were overtaken by one that was due as well.
    """

    def __init__(self, wait_s: Callable[[Frame], float], dropped: Callable[[int], None]) -> None:
        self._wait_s = wait_s
        self._dropped = dropped
        self._frames: deque[Came] = deque()
        self._held_bytes = 0
        self._changed = threading.Condition()

    @property
    def empty(self) -> bool:
        """Whether no frame waits."""
        return not self._frames

    def put(self, came: Came) -> bool:
        """Let a frame wait. Returns whether it was dropped because too many wait already."""
        with self._changed:
            nbytes = came[0].image_HW3.nbytes
            if self._frames and self._held_bytes + nbytes > HELD_BYTES_MAX:
                return True
            self._frames.append(came)
            self._held_bytes += nbytes
            self._changed.notify()
            return False

    def get(self, timeout_s: float) -> Came | None:
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

    def _first_waits_s(self) -> float:
        return self._wait_s(self._frames[0][0]) if self._frames else float("inf")

    def _newest_due(self) -> Came:
        came, overtaken = self._pop(), 0
        while self._first_waits_s() <= 0:
            came, overtaken = self._pop(), overtaken + 1
        if overtaken:
            self._dropped(overtaken)
        return came

    def _pop(self) -> Came:
        came = self._frames.popleft()
        self._held_bytes -= came[0].image_HW3.nbytes
        return came
