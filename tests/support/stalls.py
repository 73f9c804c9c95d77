"""For tests that need a machine that keeps up, on machines that do not always."""

import functools
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import ParamSpec

P = ParamSpec("P")


def thrice(test: Callable[P, None]) -> Callable[P, None]:
    """Try a test up to three times: a machine that stalls spoils one, a fault all."""

    @functools.wraps(test)
    def tried(*arguments: P.args, **options: P.kwargs) -> None:
        for _ in range(2):
            with suppress(AssertionError):
                return test(*arguments, **options)
        return test(*arguments, **options)

    return tried


def until(done: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Wait until it is `done`."""
    end_s = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < end_s, "it never comes to that"
        time.sleep(0.002)


def until_threads(allowed: Iterable[threading.Thread]) -> None:
    """Wait until none but these are alive."""
    until(lambda: set(threading.enumerate()) <= set(allowed))
