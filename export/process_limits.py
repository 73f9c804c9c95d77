"""What a process has of the system, kept for itself: file descriptors and memory.

Nothing enters; whether descriptors run out leaves. Any thread. It knows nothing of who connects.
"""

import ctypes
import math
import os
import sys

try:
    import resource
except ImportError:  # Windows, which has no such limits
    resource = None  # type: ignore[assignment]

RESERVED = 32
"""Descriptors that no connection may take: recordings, cameras and keys are opened meanwhile."""

_ARENAS_MAX = 2
_M_ARENA_MAX = -8  # of glibc's malloc.h


def descriptors_are_few() -> bool:
    """Return whether a connection more would take a descriptor that is kept for the process.

    The system gives the lowest number that is free, so a high one says that those below are taken.
    Of a limit under 256, an eighth is kept.
    """
    if resource is None:
        return False
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return False
    try:
        number = os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return True
    os.close(number)
    return number >= limit - min(RESERVED, limit // 8)


def address_space_mb() -> float:
    """Return how much the process may have of it, in MB; infinity without a limit."""
    if resource is None:
        return math.inf
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return math.inf if limit == resource.RLIM_INFINITY else limit / 1e6


def keep_memory_together() -> None:
    """Have few places for memory to lie in, before threads are there that would each have one.

    What floods of connections take for a moment is else kept by every thread that served them.
    """
    if sys.platform == "linux":
        set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # no other library's is glibc's
        if set_option is not None:
            set_option(_M_ARENA_MAX, _ARENAS_MAX)
