"""Descriptors that are kept for the process, with a process of its own that has few."""

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
