"""Between producers and a consumer: one slot, the newest item wins, so live input never queues.

Where items are of several kinds, each kind has a slot, and they are taken round-robin: of those
with something new, the one whose last turn is longest ago is next. While a kind waits, no other has
two turns, and one that has something new within each round has its full share, whenever it comes.
"""

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class LatestSlot(Generic[T]):
    """Hold the newest item, of each kind, until somebody takes it.

    Parameters
    ----------
    kind : says of which kind an item is; few kinds. Without it all are of one.
    """

    def __init__(self, kind: Callable[[T], Hashable] = lambda _: None) -> None:
        self._kind = kind
        self._items: dict[Hashable, T] = {}
        self._turns: dict[Hashable, int] = {}  # the number of each kind's last one
        self._taken = 0
        self._closed = False
        self._changed = threading.Condition()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to take."""
        return not self._items

    def put(self, item: T) -> bool:
        """Leave `item` for the consumer and return at once; a closed mailbox takes nothing.

        Returns whether it replaced one of its kind that nobody had taken: the caller counts those.
        """
        with self._changed:
            if self._closed:
                return False
            kind = self._kind(item)
            replaced = kind in self._items
            self._items[kind] = item
            self._changed.notify()
            return replaced

    def get(self, timeout_s: float) -> T | None:
        """Take the item whose turn it is, waiting for one.

        Returns None when none came in time or the mailbox is closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed, timeout_s)
            if not self._items:
                return None
            kind = min(self._items, key=lambda each: self._turns.get(each, 0))
            self._taken += 1
            self._turns[kind] = self._taken
            return self._items.pop(kind)

    def close(self) -> None:
        """Take no more items and wake who waits; an item already inside can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
