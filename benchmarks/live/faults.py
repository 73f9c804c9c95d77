"""Break what a run of `denseav-live` depends on, and attack it as a neighbour could.

First the camera and the sound server are killed and restarted, 20 times each: each must be back in
under 3 s after it serves again, and no heatmap may come from an old picture, nor a valid head from
sound of while there was none. Then each adversary has a run of its own, which has to go on: the
feed comes, memory and descriptors stay, the recording is whole, the exit code is as promised. The
last of them are cameras that give rubbish for three seconds of nine, each of another kind.
"""

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.support.adversaries import (
    ADVERSARIES,
    SETTLED_S,
    Siege,
    besiege,
    siege_checks,
    siege_table,
)
from benchmarks.support.common import Check, at_least, at_most, finish, say
from benchmarks.support.rubbish import RUBBISH, RUBBISH_S, RubbishCamera
from tests.support.faults import break_and_mend
from tests.support.servers import PulseServer

BACK_S = 3.0
LEAST_S = 2 * SETTLED_S


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="of each; default: %(default)s")
    parser.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        help=f"of each adversary, 0 or at least {LEAST_S:g}; default: %(default)s",
    )
    options = parser.parse_args()
    if 0 < options.seconds < LEAST_S:
        parser.error(f"--seconds is 0, or at least {LEAST_S:g}: memory and a full disk come late")
    tables, record, checks = _attacked(options.seconds) if options.seconds else ([], {}, [])
    if options.times:
        table, back_s, found = _broken(options.times)
        tables, record, checks = [table, *tables], record | back_s, found + checks
    return finish(tables, {"benchmark": "faults", **record}, checks)


def _attacked(seconds: float) -> tuple[list[Table], dict[str, Any], list[Check]]:
    sieges: dict[str, Siege] = {}
    checks: list[Check] = []
    for name, act in ADVERSARIES.items():
        sieges[name] = besiege({name: act}, seconds)
        checks += siege_checks(name, sieges[name])
        say(f"{name}: {sieges[name]}")
    for name in RUBBISH:
        sieges[name] = _shown_rubbish(name, seconds)
        checks += siege_checks(name, sieges[name], RUBBISH_S + BACK_S)
        say(f"{name}: {sieges[name]}")
    record = {name: asdict(siege) for name, siege in sieges.items()}
    return [siege_table(sieges)], {"adversaries": record}, checks


def _shown_rubbish(name: str, seconds: float) -> Siege:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as serving:
        camera, sound = RubbishCamera(name), PulseServer(Path(folder), "/dev/urandom")
        serving.callback(camera.kill)
        serving.callback(sound.kill)
        source = ("--camera", camera.url, "--mic", "pulse")
        return besiege({name: camera.attack}, seconds, source, sound.environment)


def _broken(times: int) -> tuple[Table, dict[str, Any], list[Check]]:
    with tempfile.TemporaryDirectory() as folder:
        faults = break_and_mend(Path(folder), times, say)
    back_s = {"camera": faults.camera_s, "microphone": faults.microphone_s}
    table = Table("source", "times back", "median s", "longest s", title="after it serves again")
    checks: list[Check] = []
    for source, seconds in back_s.items():
        middle, longest = float(np.median(seconds)), max(seconds)
        table.add_row(source, str(len(seconds)), f"{middle:.2f}", f"{longest:.2f}")
        checks.append(at_least(f"{source}: times back", len(seconds), times))
        checks.append(at_most(f"{source}: longest until back, s", longest, BACK_S))
    checks.append(at_most("heatmaps from stale data", len(faults.stale), 0))
    checks.append(at_most("exit code", faults.code, 0))
    _tell(faults.stale)
    return table, {"back_s": back_s, "heatmaps": faults.judged}, checks


def _tell(stale: Sequence[str]) -> None:
    for complaint in stale[:20]:
        say(complaint)


if __name__ == "__main__":
    raise SystemExit(main())
