"""For tests that need a machine that keeps up, on machines that do not always."""

import functools
from collections.abc import Callable
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
