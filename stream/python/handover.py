"""Between the thread that makes items and whoever takes them, in a loop or a coroutine: one place.

The newest item wins, or each waits its turn, as the maker says; an end is told to all who take.
Nothing here knows what the items are.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from threading import Condition
from time import monotonic
from typing import Generic, TypeVar

T = TypeVar("T")

_POLL_S = 0.2  # how soon a wait notices Ctrl-C where signals do not end it


class HandoverEnded(Exception):  # noqa: N818 - as StopIteration is none
    """There is nothing more to take."""


class Handover(Generic[T]):
    """One place for an item. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._item: T | None = None
        self._ended = False
        self._changed = Condition()
        self._wakers: list[Callable[[], object]] = []  # of coroutines that wait

    def put(self, item: T) -> bool:
        """Leave an item at once; return whether it replaced one that nobody had taken."""
        with self._changed:
            replaced = self._item is not None
            self._item = item
            self._wake()
            return replaced

    def put_in_turn(self, item: T) -> None:
        """Leave an item once the one before was taken, or never when this has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is None or self._ended)
            self._item = None if self._ended else item
            self._wake()

    def end(self) -> None:
        """Let nothing more in; what is inside can still be taken."""
        with self._changed:
            self._ended = True
            self._wake()

    def take(self, timeout_s: float) -> T:
        """Take the item, waiting for one.

        Raises
        ------
        HandoverEnded
            When it has ended.
        TimeoutError
            When none came in time.
        """
        end_s = monotonic() + timeout_s
        with self._changed:
            while self._item is None and not self._ended:
                left_s = end_s - monotonic()
                if left_s <= 0:
                    raise TimeoutError
                self._changed.wait(min(left_s, _POLL_S))
            return self._taken()

    async def take_soon(self, timeout_s: float) -> T:
        """Take the item as `take` does, without keeping the event loop."""
        loop, woken, end_s = asyncio.get_running_loop(), asyncio.Event(), monotonic() + timeout_s

        def wake() -> None:
            loop.call_soon_threadsafe(woken.set)

        with self._changed:
            self._wakers.append(wake)
        try:
            while True:
                woken.clear()
                with suppress(TimeoutError):
                    return self.take(0.0)
                left_s = end_s - monotonic()
                if left_s <= 0:
                    raise TimeoutError
                with suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), left_s)
        finally:
            with self._changed:
                self._wakers.remove(wake)

    def _taken(self) -> T:
        item, self._item = self._item, None
        if item is None:
            raise HandoverEnded
        self._changed.notify_all()
        return item

    def _wake(self) -> None:
        self._changed.notify_all()
        for wake in self._wakers:
            with suppress(RuntimeError):  # its loop has ended
                wake()
