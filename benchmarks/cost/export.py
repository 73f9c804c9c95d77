"""Export the full-size architecture to fp32 and fp16, and run a file with each bundle.

Minutes and the largest memory are the whole program's, from its start to its end: loading, graphs,
parity against PyTorch. The run is `denseav-live --source` over the beginning of the demo clip.
"""

import argparse
import os
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.support.bundles import workplace
from benchmarks.support.common import (
    Check,
    at_least,
    at_most,
    export,
    final_record,
    finish,
    program,
    run_measured,
)
from denseav.export.runtime.bundle import open_bundle
from denseav.stream.sources.open import DEMO_CLIP

PRECISIONS = ("fp32", "fp16")
FRAME_SIZE = (224, 296)


def main() -> int:
    """Parse, export and run, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, help="keep the bundles here; by default they go")
    parser.add_argument("--window", type=float, default=10.0, help="seconds; default: 10")
    parser.add_argument("--clip-seconds", type=float, default=3.0, help="to run; default: 3")
    options = parser.parse_args()
    record: dict[str, Any] = {"benchmark": "export", "load_before": round(os.getloadavg()[0], 2)}
    checks: list[Check] = []
    with workplace(options.work) as work:
        for precision in PRECISIONS:
            figures = _measure(precision, work, options.window, options.clip_seconds)
            record[precision] = figures
            checks += _checks(precision, figures)
    return finish([_table(record)], record, checks)


def _measure(precision: str, work: Path, window_s: float, clip_s: float) -> dict[str, Any]:
    folder = work / f"export-{precision}"
    exported = export(folder, precision, FRAME_SIZE, window_s)
    if exported.code:
        raise SystemExit(f"denseav-export ended with code {exported.code}")
    manifest = open_bundle(folder).manifest
    stats = work / f"run-{precision}.json"
    command = [program("denseav-live"), "--source", str(DEMO_CLIP), "--offline", "--headless"]
    command += ["--seconds", str(clip_s), "--model", str(folder), "--stats-json", str(stats)]
    run = run_measured([*command, "--device", "cpu", "--threads", str(os.cpu_count())])
    report = final_record(stats) if stats.exists() else {}
    return {
        "export_minutes": round(exported.seconds / 60, 2),
        "export_cpu_minutes": round(exported.cpu_seconds / 60, 2),
        "export_peak_gb": exported.peak_gb,
        "bundle_mb": round(sum(path.stat().st_size for path in folder.iterdir()) / 1e6, 1),
        "parity": manifest.parity,
        "run_code": run.code,
        "run_peak_gb": run.peak_gb,
        "run_frames": report.get("frames_out", 0),
        "run_fps": report.get("fps"),
    }


def _checks(precision: str, figures: dict[str, Any]) -> list[Check]:
    return [
        at_most(f"{precision}: export, minutes", figures["export_minutes"], 5),
        at_most(f"{precision}: export, peak GB", figures["export_peak_gb"], 12),
        at_most(f"{precision}: denseav-live exit code", figures["run_code"], 0),
        at_least(f"{precision}: heatmaps from the file", figures["run_frames"], 1),
    ]


def _table(record: dict[str, Any]) -> Table:
    table = Table("figure", *PRECISIONS, title="denseav-export, full size")
    rows = ("export_minutes", "export_cpu_minutes", "export_peak_gb", "bundle_mb")
    for figure in (*rows, "run_frames", "run_fps", "run_peak_gb"):
        values = [str(record[precision][figure]) for precision in PRECISIONS]
        table.add_row(figure.replace("_", " "), *values)
    for figure in ("cosine", "rank_correlation", "max_abs"):
        worst = max if figure == "max_abs" else min
        parities = [record[precision]["parity"].values() for precision in PRECISIONS]
        values = [f"{worst(head[figure] for head in heads):.6f}" for heads in parities]
        table.add_row(f"{figure.replace('_', ' ')}, the worse head", *values)
    return table


if __name__ == "__main__":
    raise SystemExit(main())
