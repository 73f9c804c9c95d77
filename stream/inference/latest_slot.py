"""Between a producer and a consumer: the newest item wins, so live input never queues.

A mailbox has one slot. A waiting line holds frames until they are due, and then the newest of
those that are due wins.
"""

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Generic, TypeVar

from denseav.stream.types import Frame

Came = tuple[Frame, float]  # a frame, and when it came

HELD_BYTES_MAX = 256 * 2**20  # of pictures that wait: 2 s of 1280x720 at 48 a second

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Hold the newest item until somebody takes it."""

    def __init__(self) -> None:
        self._item: T | None = None
        self._closed = False
        self._changed = threading.Condition()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to take."""
        return self._item is None

    def put(self, item: T) -> bool:
        """Leave `item` for the consumer and return at once; a closed mailbox takes nothing.

        Returns whether it replaced one that nobody had taken: the caller counts those.
        """
        with self._changed:
            if self._closed:
                return False
            replaced = self._item is not None
            self._item = item
            self._changed.notify()
            return replaced

    def get(self, timeout_s: float) -> T | None:
        """Take the item, waiting for one; None when none came in time or the mailbox is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is not None or self._closed, timeout_s)
            item, self._item = self._item, None
            return item

    def close(self) -> None:
        """Take no more items and wake who waits; an item already inside can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class WaitingLine:
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
