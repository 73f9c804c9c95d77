"""Worker processes: how many this process may have, and what starts them.

It knows nothing of what they do.
"""

import multiprocessing
import os
import signal
import sys
from multiprocessing.context import BaseContext

SHARED_MEMORY = "/dev/shm"
STOP_SIGNALS = [signal.SIGTERM]
"""What schedulers send before they take a machine away: SLURM's --signal, torchrun, Kubernetes."""
if sys.platform != "win32":
    STOP_SIGNALS.append(signal.SIGUSR1)


def usable_cores() -> int:
    """Return how many cores this process may use; all there are where a system binds none."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def shared_memory_bytes() -> int:
    """Return how much worker processes may share: 0 where they cannot even have a semaphore."""
    if sys.platform != "linux":
        return sys.maxsize
    try:
        room = os.statvfs(SHARED_MEMORY)
    except OSError:
        return 0
    return room.f_bavail * room.f_frsize if os.access(SHARED_MEMORY, os.W_OK) else 0


def worker_context(preload: str) -> BaseContext:
    """Return what starts workers: a server that has the module `preload`, or new processes.

    Never a fork of this process, whose threads (PyTorch's, libav's) would be lost in it.
    """
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    return context


def ignore_stop_signals() -> None:
    """Leave stopping to the parent: schedulers signal a whole group of processes at once."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
