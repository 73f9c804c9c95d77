"""The long run of `benchmarks/live/soak.py`, made short: nothing of the program grows."""

import sys
from typing import Any

import pytest

from benchmarks.live import soak
from tests.support.live_command import COMMAND

pytestmark = pytest.mark.realtime

LEAKING = """
import json, sys, threading, time
kept, end_s = [], time.monotonic() + float(sys.argv[sys.argv.index("--seconds") + 1])
with open(sys.argv[-1], "w") as stats:
    while time.monotonic() < end_s:
        kept.append((open("/dev/null"), bytearray(1_000_000)))
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        time.sleep(0.25)
    p99 = {"capture_to_sink": {"p99": 1.0}}
    print(json.dumps(dict(final=True, seconds=1, fps=1, drops={}, latency_ms=p99)), file=stats)
"""


def test_a_short_run_leaks_nothing() -> None:
    figures = soak.soak(16.0, COMMAND)
    assert figures["memory_growth_mb"] is not None
    assert figures["fps"] > 0
    grown = [check for check in soak.checks(figures) if "lines" not in check.name]
    assert [check for check in grown if not check.passed] == []


def test_a_program_that_leaks_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "SETTLED_S", 1.0)
    figures = soak.soak(7.0, [sys.executable, "-c", LEAKING])
    assert figures["thread_growth"] >= 4
    assert figures["descriptor_growth"] >= 4
    assert figures["memory_growth_mb"] >= 4
    missed = {check.name for check in soak.checks(figures) if not check.passed}
    assert {"threads more than there were", "descriptors more than there were"} <= missed


def line(seconds: float, p99: float, final: bool = False) -> dict[str, Any]:
    latency_ms = {"capture_to_sink": {"p99": p99}}
    return {"seconds": seconds, "final": final, "latency_ms": latency_ms}


def test_a_minute_that_got_slower_is_a_miss() -> None:
    lines = [line(second, 20.0 if second < 120 else 27.0) for second in range(1, 181)]
    lines.append(line(180.2, 999.0, final=True))
    assert soak.p99_of_minutes(lines) == (20.0, 27.0)
    figures = {"seconds": 180, "lines": 181, "p99_ms": (20.0, 27.0)}
    nothing = dict.fromkeys(("memory_growth_mb", "thread_growth", "descriptor_growth"), 0)
    names = [check.name for check in soak.checks(figures | nothing) if not check.passed]
    assert names == ["p99 of the last minute over the first"]
