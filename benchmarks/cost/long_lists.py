"""Preparing from lists of millions of rows: time and memory until the first part is made.

A made list, whose files are not there, so that each is skipped at once, is given to the real
command three times: new, stopped after its first part, and going on. Linux alone.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

WORDS = ["there", "is", "a", "large", "building", "with", "many", "windows", "and", "trees"]


def places(file: TextIO, rows: int) -> None:
    """Write a list as PlacesAudio has it."""
    made = random.Random(0)
    file.write('{"data": [')
    for number in range(rows):
        speaker = f"A{made.getrandbits(52):013X}"
        row = {
            "uttid": f"{speaker}-GSUN_{made.getrandbits(128):032X}",
            "speaker": speaker,
            "asr_text": " ".join(made.choices(WORDS, k=19)),
            "wav": f"wavs/{number // 1000}/utterance_{number}.wav",
            "image": f"a/art_school/gsun_{made.getrandbits(128):032x}.jpg",
        }
        file.write(", " * (number > 0) + json.dumps(row))
    file.write("]}")


def audioset(file: TextIO, rows: int) -> None:
    """Write a list as AudioSet has it."""
    made = random.Random(0)
    file.write("YTID,start_seconds,end_seconds,positive_labels\n")
    for number in range(rows):
        start = made.randrange(600)
        labels = f"/m/0{number % 527:03d}x,/m/09x0r"
        file.write(f'{made.getrandbits(64):011x},{start}.000,{start + 10}.000,"{labels}"\n')


def measure(source: Path, out: Path) -> str:
    """Run the command until a part more is done, end it, and say what it took."""
    parts = out / "parts"
    before = len(list(parts.glob("*.json")))
    began = time.monotonic()
    command = ["denseav-data", "prepare", str(source), "--out", str(out), "--jobs", "1"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    while len(list(parts.glob("*.json"))) == before and process.poll() is None:
        time.sleep(0.05)
    took_s = time.monotonic() - began
    own = Path(f"/proc/{process.pid}")
    ticks = (own / "stat").read_text().split()[13:15]
    cpu_s = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    [line] = [line for line in (own / "status").read_text().splitlines() if "VmHWM" in line]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    peak_gb = int(line.split()[1]) / 1e6
    return f"{took_s:5.1f} s, {cpu_s:5.1f} s of processor time, {peak_gb:.2f} GB"


def main() -> None:
    """Measure both papers' lists."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    options = parser.parse_args()
    lists: dict[str, Callable[[TextIO, int], None]] = {
        "places.json": places,
        "audioset.csv": audioset,
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, write in lists.items():
            source = Path(folder) / "metadata" / name
            source.parent.mkdir(exist_ok=True)
            with source.open("w") as file:
                write(file, options.rows)
            size_mb = source.stat().st_size / 1e6
            print(f"{name}, {options.rows:,} rows, {size_mb:.0f} MB, load {os.getloadavg()[0]:.0f}")
            for run in ("new", "resumed", "resumed"):
                print(f"  {run:8} {measure(source, Path(folder) / f'out-{name}')}", flush=True)


if __name__ == "__main__":
    main()
