"""Kill and restart the camera and the sound server of one run of `denseav-live`, 20 times each.

The feed is read meanwhile: each must be back in under 3 s after it serves again, and no heatmap may
come from an old picture, nor a valid head from sound of while there was none.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from benchmarks.support.common import Check, at_least, at_most, finish, say
from tests.support.faults import break_and_mend

BACK_S = 3.0


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="of each; default: %(default)s")
    times = parser.parse_args().times
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
    record = {"benchmark": "faults", "back_s": back_s, "heatmaps": faults.judged}
    return finish([table], record, checks)


def _tell(stale: Sequence[str]) -> None:
    for complaint in stale[:20]:
        say(complaint)


if __name__ == "__main__":
    raise SystemExit(main())
