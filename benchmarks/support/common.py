"""What the benchmarks share: the machine, targets and verdicts, memory, and the programs they run.

Every benchmark prints its progress on standard error, then tables, and one JSON document as its
last line on standard output. It exits with 1 when a target was missed.
"""

import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
FULL_SIZE = ROOT / "configs" / "models" / "denseav.json"

_STARTED_S = time.monotonic()


def say(text: str) -> None:
    """Print one line of progress, with the seconds since the start."""
    elapsed_s = time.monotonic() - _STARTED_S
    print(f"[{elapsed_s:6.1f} s] {text}", file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """Return what the figures depend on; a load above the benchmark's own makes them worse."""
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "python": platform.python_version(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


@dataclass(frozen=True, kw_only=True)
class Check:
    """A figure and whether it meets its target."""

    name: str
    measured: float | None
    target: str
    passed: bool


def at_least(name: str, measured: float | None, least: float) -> Check:
    """Check a figure that should be large; one that could not be measured has failed."""
    passed = measured is not None and measured >= least
    return Check(name=name, measured=measured, target=f">= {least:g}", passed=passed)


def at_most(name: str, measured: float | None, most: float) -> Check:
    """Check a figure that should be small; one that could not be measured has failed."""
    passed = measured is not None and measured <= most
    return Check(name=name, measured=measured, target=f"<= {most:g}", passed=passed)


def finish(tables: Sequence[Table], record: dict[str, Any], checks: Sequence[Check]) -> int:
    """Print tables, targets and the JSON line; return the exit code."""
    console = Console(width=110)
    for table in tables:
        console.print(table)
    if checks:
        console.print(_checks_table(checks))
    everything = record | {"machine": machine(), "checks": [asdict(check) for check in checks]}
    print(json.dumps(everything))
    return 0 if all(check.passed for check in checks) else 1


def _checks_table(checks: Sequence[Check]) -> Table:
    table = Table("measure", "measured", "target", "", title="targets")
    for check in checks:
        measured = "-" if check.measured is None else f"{check.measured:.4g}"
        table.add_row(check.name, measured, check.target, "pass" if check.passed else "FAIL")
    return table


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What a process held, so many seconds after the first look."""

    seconds: float
    memory_mb: float
    threads: int
    descriptors: int


class MemoryWatch:
    """Look at what a process holds once a second, until told to stop or it ends."""

    def __init__(self, pid: int) -> None:
        self.sights: list[Sight] = []
        self._process = psutil.Process(pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join()

    @property
    def series_mb(self) -> list[float]:
        """All resident memory that was seen, in MB, one a second."""
        return [round(sight.memory_mb, 2) for sight in self.sights]

    def growth_mb(self, after_s: float) -> float | None:
        """Return the largest later rise over the memory at `after_s`; None for too short a run."""
        later_mb = [sight.memory_mb for sight in self.sights if sight.seconds >= after_s]
        return round(max(later_mb) - later_mb[0], 2) if len(later_mb) > 1 else None

    def _watch(self) -> None:
        started_s = time.monotonic()
        while not self._stop.wait(1.0):
            try:
                sight = Sight(
                    seconds=time.monotonic() - started_s,
                    memory_mb=self._process.memory_info().rss / 1e6,
                    threads=self._process.num_threads(),
                    descriptors=self._process.num_fds(),
                )
            except psutil.Error:
                return
            if sight.memory_mb:  # a process that has ended, and was not waited for, has none
                self.sights.append(sight)


def final_record(stats: Path) -> dict[str, Any]:
    """Return the last line of `--stats-json`: the whole run."""
    record: dict[str, Any] = json.loads(stats.read_text().splitlines()[-1])
    return record


def program(name: str) -> str:
    """Return the path of a command that is installed beside this Python."""
    return str(Path(sys.executable).with_name(name))


@dataclass(frozen=True, kw_only=True)
class Finished:
    """How a program ended: its exit code, the largest memory it ever held, and its time.

    `seconds` are on the wall; `cpu_seconds` are of all its threads, whatever else was running.
    """

    code: int
    seconds: float
    cpu_seconds: float
    peak_gb: float


def run_measured(command: Sequence[str]) -> Finished:
    """Run a program to its end; what it prints goes to standard error."""
    say("running " + " ".join(command))
    started_s = time.monotonic()
    process = subprocess.Popen(command, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Finished(
        code=process.returncode,
        seconds=round(time.monotonic() - started_s, 1),
        cpu_seconds=round(usage.ru_utime + usage.ru_stime, 1),
        peak_gb=round(usage.ru_maxrss * 1024 / 1e9, 2),  # Linux counts in KiB
    )


def export(out: Path, precision: str, frame_size: tuple[int, int], window_s: float) -> Finished:
    """Export the full-size architecture with random weights by `denseav-export`."""
    height, width = frame_size
    options = ["--precision", precision, "--frame-size", f"{height}x{width}"]
    options += ["--window", f"{window_s:g}", "--out", str(out)]
    return run_measured([program("denseav-export"), str(FULL_SIZE), *options])
