"""Between a producer and a consumer: one slot, the newest item wins, so live input never queues."""

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class LatestSlot(Generic[T]):
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
