"""Descriptors that are kept for the process, with a process of its own that has few."""

import ctypes
import subprocess
import sys

import pytest

from denseav.export.process_limits import RESERVED, descriptors_are_few

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")

TAKING = """
import os, resource, sys
from denseav.export.process_limits import descriptors_are_few
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
last = 0
while not descriptors_are_few():
    last = os.open(os.devnull, os.O_RDONLY)
left = 0
try:
    while True:
        os.open(os.devnull, os.O_RDONLY)
        left += 1
except OSError:
    print(left, descriptors_are_few())
"""

ARENAS = """
import ctypes, threading
from denseav.export.process_limits import keep_memory_together
keep_memory_together()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.fdopen.restype = ctypes.c_void_p
meeting = threading.Barrier(8)
def take():
    meeting.wait()
    library.malloc(1000)
    meeting.wait()
threads = [threading.Thread(target=take) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
file = ctypes.c_void_p(library.fdopen(1, b"w"))
library.malloc_info(0, file)
library.fflush(file)
"""


def test_here_there_are_enough() -> None:
    assert not descriptors_are_few()


@pytest.mark.parametrize(("limit", "kept"), [(300, RESERVED), (64, 8)])
def test_so_many_are_kept_and_of_few_an_eighth(limit: int, kept: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TAKING, str(limit)], capture_output=True, text=True, check=True
    )
    left, few_at_last = done.stdout.split()
    assert int(left) == kept
    assert few_at_last == "True"


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="is no glibc")
def test_the_memory_of_many_threads_lies_in_two_places() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ARENAS], capture_output=True, text=True, check=True
    )
    assert 1 <= done.stdout.count("<heap nr=") <= 2
