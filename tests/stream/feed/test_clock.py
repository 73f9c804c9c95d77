"""A clock that stops or changes its pace, in a publisher of its own: libc's is changed under it."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from denseav.stream.feed.client import FeedStaleError, HeatmapSubscriber
from denseav.stream.feed.clock import SlipDetector
from tests.support.feeds import free_endpoint
from tests.support.stalls import until

pytestmark = pytest.mark.realtime

# Once a file is there, CLOCK_MONOTONIC stands still for 2 s, or is slow by a tenth for 4 s.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *out) {
    static int (*real)(clockid_t, struct timespec *);
    static long long begun, taken;
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, out);
    if (failed || clock != CLOCK_MONOTONIC) return failed;
    long long now = out->tv_sec * 1000000000LL + out->tv_nsec;
    if (!begun && !access(getenv("SLIP_FROM"), F_OK)) begun = now;
    if (begun) taken = now - begun;
    long long most = getenv("SLIP_SLOWLY") ? 400000000LL : 2000000000LL;
    if (getenv("SLIP_SLOWLY")) taken /= 10;
    now -= taken < most ? taken : most;
    out->tv_sec = now / 1000000000LL;
    out->tv_nsec = now % 1000000000LL;
    return 0;
}
"""
PUBLISHER = """
import itertools, select, sys
from tests.support.feeds import heatmap, publishing
with publishing(sys.argv[1]) as publisher:
    for index in itertools.count():
        publisher.heatmap(heatmap(index))
        select.select([], [], [], 0.01)
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not sys.platform.startswith("linux") or not shutil.which("gcc"):
        pytest.skip("it takes Linux and gcc")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    command = ["gcc", "-shared", "-fPIC", "-O1", "-o", "shim.so", "shim.c", "-ldl"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "shim.so"


@pytest.mark.parametrize("slowly", [False, True], ids=["suspended", "slewed"])
def test_a_slipped_clock_begins_a_new_run_and_remote_readers_stay_fresh(
    shim: Path, tmp_path: Path, slowly: bool, begin: Callable[..., subprocess.Popen[str]]
) -> None:
    endpoint, slip = free_endpoint(), tmp_path / "slip"
    environment = {**os.environ, "LD_PRELOAD": str(shim), "SLIP_FROM": str(slip)}
    if slowly:
        environment["SLIP_SLOWLY"] = "1"
    begin([sys.executable, "-c", PUBLISHER, endpoint], env=environment)
    with HeatmapSubscriber(endpoint) as feed:
        feed._clock = "another machine"
        until(lambda: feed._newest)
        assert feed.restarts == 0
        slip.touch()
        until(lambda: feed.restarts >= 1)
        assert next(feed).sequence < 1000
        ages_ms = []

        def fresh() -> bool:
            """Ages of a second in a row; a clock that stands still sends none meanwhile."""
            with suppress(FeedStaleError):
                ages_ms.append(feed.age_ms(next(feed)))
            return len(ages_ms) >= 50

        until(fresh)
    assert min(ages_ms[-20:]) < 200


def test_a_clock_that_runs_well_has_not_slipped() -> None:
    detector = SlipDetector()
    end_s = time.monotonic() + 0.3
    while time.monotonic() < end_s:
        assert not detector.slipped()
