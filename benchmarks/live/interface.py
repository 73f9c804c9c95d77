"""What `import denseav` costs, a loop over frames against the command, and a recording as data.

Programs of their own, all on the demo and the CPU: the import and the first frame; the same
seconds by `denseav-live --headless` and by a loop, in turn; the command with `--record run.mcap`;
and recordings that are killed, read by three readers.
"""

import argparse
import json
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from mcap.exceptions import EndOfFile
from mcap.reader import NonSeekingReader
from rich.table import Table

from benchmarks.support.common import (
    Check,
    at_least,
    at_most,
    final_record,
    finish,
    program,
    run_measured,
    say,
)
from denseav.stream.sources.recorded_run import RecordedRun
from denseav.stream.types import Frame

STARTS = 5  # of which the median counts
_START = """
import json, time
begun_s = time.perf_counter()
import denseav
import_s = time.perf_counter() - begun_s
begun_s = time.perf_counter()
with denseav.live(demo=True, device="cpu") as stream:
    next(stream)
    print(json.dumps([import_s, time.perf_counter() - begun_s]))
"""
_LOOP = """
import json, sys, denseav
frames = 0
with denseav.live(demo=True, device="cpu", seconds=float(sys.argv[1])) as stream:
    for frame in stream:
        frames += frame.heads["sound"].score > -1e9
    stats = stream.stats
json.dump([frames, stats.latency_p50_ms, stats.latency_p95_ms], open(sys.argv[2], "w"))
"""


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=15.0, help="of each run; default: 15")
    parser.add_argument("--kills", type=int, default=0, help="recordings to kill; default: 0")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        record = _started() | _compared(folder, options.seconds)
        record |= {"killed": list(_killed(folder, options.kills))}
    return finish([_table(record)], {"benchmark": "interface"} | record, _checks(record))


def _started() -> dict[str, Any]:
    runs = []
    for _ in range(STARTS):
        done = subprocess.run(
            [sys.executable, "-c", _START], stdout=subprocess.PIPE, text=True, check=True
        )
        runs.append(json.loads(done.stdout))
    imports_s, firsts_s = (sorted(values) for values in zip(*runs, strict=True))
    return {"import_s": imports_s[STARTS // 2], "first_frame_s": firsts_s[STARTS // 2]}


def _compared(folder: Path, seconds: float) -> dict[str, Any]:
    """Return each way's frames, latency and processor time a frame; of two turns, the cheaper."""
    found: dict[str, Any] = {}
    for turn in range(2):
        for way in ("command", "loop", "recording"):
            row = _once(folder, way, seconds, turn)
            if way not in found or row["cpu_ms"] < found[way]["cpu_ms"]:
                found[way] = row
    return found


def _once(folder: Path, way: str, seconds: float, turn: int) -> dict[str, Any]:
    out, recording = folder / f"{way}{turn}.json", folder / f"run{turn}.mcap"
    if way == "loop":
        done = run_measured([sys.executable, "-c", _LOOP, str(seconds), str(out)])
        frames, p50_ms, p95_ms = json.loads(out.read_text())
    else:
        command = [program("denseav-live"), "--demo", "--headless", "--device", "cpu"]
        command += ["--seconds", str(seconds), "--stats-json", str(out)]
        command += ["--record", str(recording)] if way == "recording" else []
        done = run_measured(command)
        report = final_record(out)
        frames, latency_ms = report["frames_out"], report["latency_ms"]["capture_to_heatmap"]
        p50_ms, p95_ms = latency_ms["p50"], latency_ms["p95"]
    row = {"frames": frames, "p50_ms": p50_ms, "p95_ms": p95_ms, "cpu_s": done.cpu_seconds}
    row["cpu_ms"] = 1000 * done.cpu_seconds / max(1, frames)
    if way == "recording":
        row["mb_per_minute"] = recording.stat().st_size / 1e6 / seconds * 60
        recording.unlink()
    return row


def _killed(folder: Path, kills: int) -> Iterator[dict[str, Any]]:
    """Yield how much of each killed recording three readers found, and how old its end was."""
    chance = random.Random(0)
    for number in range(kills):
        path = folder / f"killed{number}.mcap"
        command = [program("denseav-live"), "--demo", "--headless", "--device", "cpu"]
        with subprocess.Popen(
            [*command, "--record", str(path)], stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            next(line for line in process.stderr if "READY" in line)
            time.sleep(chance.uniform(1.0, 4.0))
            process.send_signal(signal.SIGKILL)
            killed_ns = time.time_ns()
        ours = sum(isinstance(item, Frame) for item in RecordedRun(path))
        theirs, newest_ns = _by_mcap(path)
        row = {"frames": ours, "by_mcap": theirs, "by_rerun": _by_rerun(path)}
        yield row | {"lost_s": (killed_ns - newest_ns) / 1e9}
        say(f"killed {number + 1} of {kills}: {row}")
        path.unlink()


def _by_mcap(path: Path) -> tuple[int, int]:
    frames = newest_ns = 0
    with path.open("rb") as file, suppress(EndOfFile, struct.error):  # which says it was cut
        for _, channel, message in NonSeekingReader(file).iter_messages(log_time_order=False):
            frames += channel.topic == "/camera"
            newest_ns = max(newest_ns, message.log_time)
    return frames, newest_ns


def _by_rerun(path: Path) -> bool:
    """Return whether Rerun's reader, which is another one, finds the pictures."""
    out = path.with_suffix(".rrd")
    command = [program("rerun"), "mcap", "convert", "--recover", str(path), "-o", str(out)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        return False
    shown = subprocess.run(
        [program("rerun"), "rrd", "print", str(out)], capture_output=True, check=True
    )
    out.unlink()
    return b"/camera" in shown.stdout


def _table(record: dict[str, Any]) -> Table:
    table = Table("way", "frames", "p50 ms", "p95 ms", "CPU ms a frame", title="the demo, headless")
    for way in ("command", "loop", "recording"):
        row = record[way]
        table.add_row(
            way,
            str(row["frames"]),
            f"{row['p50_ms']:.1f}",
            f"{row['p95_ms']:.1f}",
            f"{row['cpu_ms']:.2f}",
        )
    return table


def _checks(record: dict[str, Any]) -> list[Check]:
    command, loop = record["command"]["cpu_ms"], record["loop"]["cpu_ms"]
    checks = [
        at_most("import, s", record["import_s"], 0.1),
        at_most("first frame of the demo, s", record["first_frame_s"], 1.0),
        at_most("a loop's processor time over the command's, %", 100 * (loop / command - 1), 5.0),
    ]
    killed = record["killed"]
    if killed:
        whole = [row["frames"] == row["by_mcap"] > 0 and row["by_rerun"] for row in killed]
        checks.append(at_least("killed recordings that all readers read", sum(whole), len(killed)))
        lost_s = max(row["lost_s"] for row in killed)
        checks.append(at_most("what a kill cost at most, s", lost_s, 1.0))
    return checks


if __name__ == "__main__":
    sys.exit(main())
