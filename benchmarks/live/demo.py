"""Run `denseav-live --demo --headless` as a person would, and hold it against its targets.

The demo clip has 640x480 pixels, 30 frames a second and stereo sound. The program runs as a
process of its own; this one only looks at its memory once a second.
"""

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.support.common import (
    Check,
    MemoryWatch,
    at_least,
    at_most,
    final_record,
    finish,
    program,
    say,
)

SETTLED_S = 10.0  # memory may still grow before: buffers fill, arenas form


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="for each pass; default: 1")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        stats = Path(folder) / "stats.json"
        ready_s, memory = _run(options.seconds, options.threads, stats)
        report = final_record(stats)
    report |= {
        "load_before": round(load, 2),
        "start_to_first_heatmap_s": ready_s,
        "audio_hops_per_s": round(report["audio_hops"] / report["seconds"], 3),
        "memory_mb": memory.series_mb,
        "memory_growth_mb": memory.growth_mb(SETTLED_S),
    }
    return finish([_table(report)], {"benchmark": "live"} | report, _checks(report))


def _run(seconds: float, threads: int, stats: Path) -> tuple[float | None, MemoryWatch]:
    """Run the program; return the seconds from its start to its first heatmap, and its memory."""
    command = [program("denseav-live"), "--demo", "--headless", "--device", "cpu"]
    command += ["--seconds", str(seconds), "--threads", str(threads), "--stats-json", str(stats)]
    say(" ".join(command))
    ready_s = None
    started_s = time.monotonic()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        memory = MemoryWatch(process.pid)
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("denseav-live READY"):
                ready_s = round(time.monotonic() - started_s, 3)
            say(line.rstrip())
    memory.stop()
    if process.returncode:
        raise SystemExit(f"denseav-live ended with code {process.returncode}")
    return ready_s, memory


def _table(report: dict[str, Any]) -> Table:
    table = Table("figure", "value", title=f"denseav-live --demo, {report['seconds']:.0f} s")
    for way, latency_ms in report["latency_ms"].items():
        if latency_ms["p50"] is None:
            continue
        values = " / ".join(f"{value:.1f}" for value in latency_ms.values())
        table.add_row(f"{way.replace('_', ' ')}, p50 / p95 / p99", f"{values} ms")
    ages = " / ".join(f"{value:.0f}" for value in report["audio_age_ms"].values())
    table.add_row("audio age, p50 / p95", f"{ages} ms")
    table.add_row("frames in / out", f"{report['frames_in']} / {report['frames_out']}")
    table.add_row("drops", ", ".join(f"{n} {cause}" for cause, n in report["drops"].items()))
    table.add_row("resident memory at the end", f"{report['memory_mb'][-1]:.1f} MB")
    table.add_row("load average before", f"{report['load_before']}")
    return table


def _checks(report: dict[str, Any]) -> list[Check]:
    p95_ms = report["latency_ms"]["capture_to_heatmap"]["p95"]
    return [
        at_least("frames a second (30, less one in a hundred)", report["fps"], 29.7),
        at_most("capture to heatmap, p95 ms", p95_ms, 60),
        at_least("audio hops a second (one in 180 ms)", report["audio_hops_per_s"], 5.5),
        at_most("hops skipped", report["drops"].get("hop_skipped", 0), 0),
        at_most("memory growth after 10 s, MB", report["memory_growth_mb"], 5),
        at_most("start to first heatmap, s", report["start_to_first_heatmap_s"], 3),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
