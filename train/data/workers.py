"""Worker processes: how many this process may have, and what starts them.

It knows nothing of what they do.
"""

import multiprocessing
import os
import sys
from multiprocessing.context import BaseContext


def usable_cores() -> int:
    """Return how many cores this process may use; all there are where a system binds none."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def worker_context(preload: str) -> BaseContext:
    """Return what starts workers: a server that has the module `preload`, or new processes.

    Never a fork of this process, whose threads (PyTorch's, libav's) would be lost in it.
    """
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    return context
