"""What a process has of the system, kept for itself: file descriptors and memory.

Nothing enters; whether descriptors run out leaves, connections by their number are ended, and what
is ours is opened although they have run out for a moment. Any thread. It knows nothing of who
connects.
"""

import ctypes
import errno
import math
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from time import monotonic, sleep
from typing import TypeVar

if sys.platform != "win32":  # which has no such limits
    import resource

RESERVED = 32
"""Descriptors that no connection may take: recordings, cameras and keys are opened meanwhile."""

PATIENCE_S = 5.0
"""How long it is waited for a descriptor: the connections that have all are ended long before."""

GIVEN_BACK_S = 20.0
_ARENAS_MAX = 2
_M_ARENA_MAX = -8  # of glibc's malloc.h
_AGAIN_S = 0.01

T = TypeVar("T")


def descriptors_are_few() -> bool:
    """Return whether a connection more would take a descriptor that is kept for the process.

    The system gives the lowest number that is free, so a high one says that those below are taken.
    Of a limit under 256, an eighth is kept.
    """
    if sys.platform != "win32":
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit != resource.RLIM_INFINITY:
            return _lowest_free() >= limit - min(RESERVED, limit // 8)
    return False


def patiently(open_it: Callable[[], T]) -> T:
    """Return what a call opens, tried again where connections have every descriptor.

    A listener ends those that took what is kept once they have come, and so a moment later.

    Raises
    ------
    OSError
        What it failed with; of too few descriptors, only after `PATIENCE_S`.
    """
    end_s = monotonic() + PATIENCE_S
    while True:
        try:
            return open_it()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or monotonic() >= end_s:
                raise
        sleep(_AGAIN_S)


def _lowest_free() -> float:
    """Return the number that the next descriptor would have; infinity when there is none."""
    try:
        number = os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return math.inf
    os.close(number)
    return number


def end_connection(number: int, port: int) -> None:
    """End a connection by its descriptor, if it is one that came in at this port.

    For libraries that cannot: they take it for the other side's going, and close it.
    """
    with suppress(OSError):  # it has gone, or was none
        connection = socket.socket(fileno=number)
        try:
            listens = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if not listens and connection.getsockname()[1:2] == (port,):
                connection.shutdown(socket.SHUT_RDWR)
        finally:
            connection.detach()


def end_connections(port: int) -> None:
    """End all that came in at a port; nothing where descriptors have no limit."""
    if sys.platform != "win32":
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        for number in range(max(0, limit)):
            end_connection(number, port)


def address_space_mb() -> float:
    """Return how much the process may have of it, in MB; infinity without a limit."""
    if sys.platform != "win32":
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            return limit / 1e6
    return math.inf


def keep_memory_together() -> None:
    """Have few places for memory to lie in, and give back what is free of them from time to time.

    Every thread would else keep what floods of connections took for a moment. Call it before there
    are threads. It is the whole process's, and nothing where the C library is not glibc.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if not hasattr(library, "malloc_trim"):
        return
    library.mallopt(_M_ARENA_MAX, _ARENAS_MAX)

    def give_back() -> None:
        while True:
            sleep(GIVEN_BACK_S)
            library.malloc_trim(0)  # a millisecond or two

    with suppress(RuntimeError):  # the system gives no thread
        Thread(target=give_back, name="memory", daemon=True).start()
