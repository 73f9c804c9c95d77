"""Throws damaged files, lists, configurations and messages at all that reads from outside.

    python -m benchmarks.fuzz.run [--minutes N] [--targets NAME ...] [--kept DIR]

The targets take turns of some hundred inputs, which Hypothesis makes of good ones, each turn in a
process of its own, so that a decoder that dies is a finding too. So is anything but the documented
exceptions, a hang and gigabytes; Hypothesis shrinks it, and its bytes are kept in DIR. Prints a
table, and on the last line the figures as JSON; exits 1 when something was found.
"""

import argparse
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from rich.table import Table

from benchmarks.fuzz.damage import damaged
from benchmarks.fuzz.targets import TARGETS
from benchmarks.support.common import at_most, finish, say

TURN = 200  # inputs
INPUT_S, TURN_S = 60, 900
GROWTH_BYTES_MAX = 4 * 2**30  # of a process's addresses, over what it has at first
LINE_CHARS = 300


@dataclass
class Tally:
    """What became of one target's inputs."""

    inputs: int = 0
    findings: list[str] = field(default_factory=list)


def main() -> int:
    """Parse, run the turns, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="default: %(default)s")
    parser.add_argument("--targets", nargs="+", choices=sorted(TARGETS), default=sorted(TARGETS))
    parser.add_argument("--kept", type=Path, default=Path("fuzz-findings"), metavar="DIR")
    options = parser.parse_args()
    tallies = {name: Tally() for name in options.targets}
    end_s = time.monotonic() + 60 * options.minutes
    first = turn = time.time_ns() % 2**31
    while time.monotonic() < end_s or turn == first:
        for name, tally in tallies.items():
            _take_turn(name, turn, tally, options.kept)
        turn += 1
    table = Table("target", "inputs", "findings", title="damaged input")
    for name, tally in tallies.items():
        table.add_row(name, f"{tally.inputs:,}", str(len(tally.findings)))
    found = {name: tally.findings for name, tally in tallies.items() if tally.findings}
    inputs = {name: tally.inputs for name, tally in tallies.items()}
    record = {"benchmark": "fuzz", "first_seed": first, "inputs": inputs, "findings": found}
    return finish([table], record, [at_most("findings", sum(map(len, found.values())), 0)])


def _take_turn(name: str, number: int, tally: Tally, kept: Path) -> None:
    """Run one turn of a target in a process of its own, and keep what it found."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        receiver, sender = multiprocessing.Pipe(duplex=False)
        context = multiprocessing.get_context("fork")  # a turn of a new interpreter takes seconds
        process = context.Process(target=_turn, args=(name, number, Path(folder), sender))
        process.start()
        sender.close()
        try:
            count, reason = receiver.recv() if receiver.poll(TURN_S) else (0, f"over {TURN_S} s")
        except EOFError:
            process.join()
            count, reason = 0, f"it died, exit code {process.exitcode}"
        process.kill()
        process.join()
        tally.inputs += count
        if reason:
            tally.findings.append(reason)
            kept.mkdir(parents=True, exist_ok=True)
            path = kept / f"{name}-{number}"
            path.write_bytes((Path(folder) / "input").read_bytes())
            path.with_suffix(".txt").write_text(reason)
            say(f"{name}, seed {number}, {path}: {reason}")


def _turn(name: str, number: int, folder: Path, sender: Connection) -> None:
    target = TARGETS[name]
    work, last = folder / "work", folder / "input"
    work.mkdir()
    os.chdir(work)
    warnings.simplefilter("ignore")
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - the process's own
    _bound_memory()
    signal.signal(signal.SIGALRM, _hang)
    count = 0

    @seed(number)
    @settings(
        max_examples=TURN,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(damaged(target.good(work)))
    def run(data: bytes) -> None:
        nonlocal count
        count += 1
        last.write_bytes(data)
        signal.alarm(INPUT_S)
        try:
            target.read(data, work)
        except target.documented:
            pass
        finally:
            signal.alarm(0)

    reason = ""
    try:
        run()
    except BaseException:  # noqa: BLE001 - whatever it is, it is what is looked for
        lines = [line[:LINE_CHARS] for line in traceback.format_exc().splitlines()]
        reason = "\n".join(line for line in lines if "data=b" not in line)
    sender.send((count, reason))
    os._exit(0)


def _bound_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + GROWTH_BYTES_MAX
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _hang(*_: object) -> None:
    raise TimeoutError(f"over {INPUT_S} s")


if __name__ == "__main__":
    raise SystemExit(main())
