"""Run `denseav-live --demo --headless` for long on two cores, and look for what grows.

The program runs as a process of its own and writes its figures as JSON lines; this one looks once
a second at its memory, threads and descriptors. Both leave the rest of the machine alone: they
keep to two cores.
"""

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from benchmarks.support.adversaries import (
    ADVERSARIES,
    DISK_FULL,
    besiege,
    siege_checks,
    siege_table,
)
from benchmarks.support.common import (
    Check,
    MemoryWatch,
    Sight,
    at_least,
    at_most,
    finish,
    program,
    say,
)

SETTLED_S = 10.0  # buffers fill and arenas form before
MINUTE_S = 60.0
WINDOW_S = 10.0  # what one line's percentiles cover
CORES = 2


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="default: %(default)s")
    parser.add_argument(
        "--hostile", action="store_true", help="with a recording, and every adversary at once"
    )
    options = parser.parse_args()
    if options.hostile:
        return _hostile(60 * options.minutes)
    load = round(os.getloadavg()[0], 2)
    figures = soak(60 * options.minutes)
    record = {"benchmark": "soak", "load_before": load} | figures
    return finish([_table(figures)], record, checks(figures))


def _hostile(seconds: float) -> int:
    # The recording is to be whole.
    adversaries = {name: act for name, act in ADVERSARIES.items() if name != DISK_FULL}
    siege = besiege(adversaries, seconds)
    record = {"benchmark": "soak", "adversaries": list(adversaries), **asdict(siege)}
    return finish([siege_table({"all": siege})], record, siege_checks("all", siege))


def soak(seconds: float, command: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the program for so long and return what grew, and how it did.

    Parameters
    ----------
    command : what starts the program, without its options; None for the one installed here.
    """
    with tempfile.TemporaryDirectory() as folder:
        stats = Path(folder) / "stats.jsonl"
        watch = _run(command or [program("denseav-live")], seconds, stats)
        lines = [json.loads(line) for line in stats.read_text().splitlines()]
    return {
        "seconds": seconds,
        "lines": len(lines),
        "fps": lines[-1]["fps"],
        "drops": lines[-1]["drops"],
        "memory_mb": watch.series_mb,
        "memory_growth_mb": watch.growth_mb(SETTLED_S),
        "thread_growth": growth([sight.threads for sight in _settled(watch.sights)]),
        "descriptor_growth": growth([sight.descriptors for sight in _settled(watch.sights)]),
        "p99_ms": p99_of_minutes(lines),
    }


def checks(figures: dict[str, Any]) -> list[Check]:
    """Hold the figures against the targets; latency needs three minutes to say anything."""
    found = [
        at_most("memory growth after 10 s, MB", figures["memory_growth_mb"], 10),
        at_most("threads more than there were", figures["thread_growth"], 0),
        at_most("descriptors more than there were", figures["descriptor_growth"], 0),
        at_least("lines of figures, of one a second", figures["lines"], 0.9 * figures["seconds"]),
    ]
    first_ms, last_ms = figures["p99_ms"]
    if figures["seconds"] >= 3 * MINUTE_S:
        ratio = None if first_ms is None or last_ms is None else last_ms / first_ms
        found.append(at_most("p99 of the last minute over the first", ratio, 1.3))
    return found


def growth(counts: Sequence[int]) -> int | None:
    """Return by how much the most in the second half is over the most in the first.

    A file that is opened again and again makes a count go up and down; a leak makes it go up.
    """
    if len(counts) < 2:
        return None
    half = len(counts) // 2
    return max(counts[half:]) - max(counts[:half])


def p99_of_minutes(lines: Sequence[dict[str, Any]]) -> tuple[float | None, float | None]:
    """Return the p99 from capture to sink, in ms, of the first settled minute and of the last.

    Each is the mean over the lines whose 10 seconds lie within that minute.
    """
    end_s = lines[-1]["seconds"]
    starts_s = (SETTLED_S, max(SETTLED_S, end_s - MINUTE_S))
    p99_ms = [
        [
            line["latency_ms"]["capture_to_sink"]["p99"]
            for line in lines
            if not line["final"] and start_s + WINDOW_S <= line["seconds"] <= start_s + MINUTE_S
        ]
        for start_s in starts_s
    ]
    first, last = (round(fmean(values), 3) if values else None for values in p99_ms)
    return first, last


def _run(command: Sequence[str], seconds: float, stats: Path) -> MemoryWatch:
    options = ["--demo", "--headless", "--device", "cpu", "--seconds", str(seconds)]
    whole = [*command, *options, "--stats-json", str(stats)]
    say(" ".join(whole))
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(cores)[:CORES])
    try:
        with subprocess.Popen(whole) as process:
            watch = MemoryWatch(process.pid)
    finally:
        os.sched_setaffinity(0, cores)
    watch.stop()
    if process.returncode:
        raise SystemExit(f"denseav-live ended with code {process.returncode}")
    return watch


def _settled(sights: Sequence[Sight]) -> list[Sight]:
    return [sight for sight in sights if sight.seconds >= SETTLED_S]


def _table(figures: dict[str, Any]) -> Table:
    table = Table("figure", "value", title=f"denseav-live --demo, {figures['seconds']:.0f} s")
    first_ms, last_ms = figures["p99_ms"]
    table.add_row("p99 to sink, first and last minute", f"{first_ms} / {last_ms} ms")
    table.add_row("heatmaps a second", f"{figures['fps']:.2f}")
    drops = ", ".join(f"{count} {cause}" for cause, count in figures["drops"].items())
    table.add_row("drops", drops or "0")
    table.add_row("resident memory at the end", f"{figures['memory_mb'][-1]:.1f} MB")
    return table


if __name__ == "__main__":
    raise SystemExit(main())
