"""What each part of the objective brings, on the world: short runs that differ in one thing.

`discovered` is DenseAV's own objective, from random weights: neither it nor the pretraining of its
encoders is told which clips are speech. Of it there are three seeds, each with encoders of its own:
how far they differ is how far anything else has to, to mean something. All other runs begin with
the first one's encoders, see as many clean clips a step, and differ in what the first column of
each table says. The rows follow Hamilton et al. (2024), tables 3 and 4, and Ryu et al. (2025),
table 1.

    python benchmarks/ablations.py --out DIR

A run that has its figures in DIR is not made again. Its own head is the head that answers to that
kind of sound, learned from clips that are used for nothing else.
"""

import argparse
import json
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from common import ROOT, finish, program, say
from rich.table import Table

CONFIG = ROOT / "configs" / "train" / "demo.yaml"
CLIPS = 32  # of one step; in a couple of mix-and-separate there are two
UNTOLD = ["--separation", "null", "--world.told", "false", "--world.batch_size", f"{CLIPS}"]
UNTOLD += ["--network.heads", "[first, second]"]
TOLD = ["--world.batch_size", f"{CLIPS // 2}"]
FIRST = "discovered"
DISCOVERED = {
    FIRST: UNTOLD,
    "discovered, seed 1": [*UNTOLD, "--seed", "1"],
    "discovered, seed 2": [*UNTOLD, "--seed", "2"],
}
ON_ITS_ENCODERS = {
    "mix and separate": TOLD,  # the longest of the rest, so it goes first
    "without disentanglement": [*UNTOLD, "--loss.disentanglement", "0"],
    "heads summed": [*UNTOLD, "--pooling", "dense_sum"],
    "average pooling": [*UNTOLD, "--pooling", "average"],
    "CLS": [*UNTOLD, "--pooling", "cls", "--network.cls_similarity", "true"],
    "SimPool": [*UNTOLD, "--pooling", "simpool"],
    "SimPool, an eighth of the rate": [
        *(*UNTOLD, "--pooling", "simpool", "--optimization.learning_rate", "1e-4")
    ],
}
VARIANTS = DISCOVERED | ON_ITS_ENCODERS
Row = dict[str, float]
TOGETHER = "sound and speech at once"
ONE = {
    f"{head} {short}": (data, metric, column)
    for head in ("sound", "speech")
    for short, data, metric, column in (
        ("mAP", f"{head} prompted", "mAP", "total"),
        ("mIoU", f"{head} prompted", "mIoU", "total"),
        ("pointing", f"{head} prompted", "pointing", "total"),
        ("found", f"{head}", "the first shows it", "total"),
    )
} | {name: ("disentanglement", name, "total") for name in ("PredDis", "ActDis")}
BOTH = {
    f"{word}, {metric}": (TOGETHER, f"{metric}, {what}", "own head")
    for word, what in (("sound", "what sounds"), ("speech", "what is named"))
    for metric in ("mAP", "mIoU")
} | {"both pointed at": (TOGETHER, "both pointed at", "own head")}


def main() -> int:
    """Parse, train, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where runs and figures go")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time; default: %(default)s")
    parser.add_argument("--steps", type=int, default=700, help="of a run; default: %(default)s")
    parser.add_argument("--clips", type=int, default=120, help="of each kind; default: %(default)s")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        runs = {name: pool.submit(_measured, name, options, None) for name in DISCOVERED}
        first = runs[FIRST]
        runs |= {name: pool.submit(_measured, name, options, first) for name in ON_ITS_ENCODERS}
    found = {name: run.result() for name, run in runs.items()}
    tables = [_table("one thing heard", ONE, found), _table("two at once", BOTH, found)]
    record = {"benchmark": "ablations", "steps": options.steps, "clips": options.clips}
    return finish(tables, record | {"runs": found}, [])


def _measured(name: str, options: argparse.Namespace, first: Future[Any] | None) -> Row:
    """Train and measure; with the encoders of the `first` run, once it is done, or with its own."""
    run, figures = options.out / _slug(name), options.out / f"{_slug(name)}.json"
    if not figures.exists():
        if first is not None:
            first.result()
            for encoder in ("pretrained_audio", "pretrained_image"):
                begun = options.out / _slug(FIRST) / encoder
                shutil.copytree(begun, run / encoder, dirs_exist_ok=True)
        with (options.out / f"{_slug(name)}.log").open("a") as log:
            say(f"{name}: training")
            recipe = [*_recipe(options.steps), *VARIANTS[name], "--out", str(run)]
            _run([program("denseav-train"), *recipe], log)
            say(f"{name}: measuring")
            clips = ["--clips", str(options.clips), "--json", str(figures)]
            model = ["--model", str(run / "model")]
            _run([program("denseav-eval"), "--world", *model, *clips], log)
    rows = json.loads(figures.read_text())["results"]
    values = {(row["data"], row["metric"], row["head"]): row["value"] for row in rows}
    return {label: _value(values, key) for label, key in (ONE | BOTH).items()}


def _slug(name: str) -> str:
    return name.replace(",", "").replace(" ", "_")


def _recipe(steps: int) -> list[str]:
    """Return the demo's recipe in short: the same turns, each for its part of all steps."""
    single, contrast, ramp, cooldown = (round(steps * part) for part in (0.3, 0.3, 0.25, 0.35))
    return [
        *("--config", str(CONFIG), "--machine.devices", "1", "--world.single_batches", str(single)),
        *("--optimization.steps", str(steps), "--optimization.contrast_steps", str(contrast)),
        *("--optimization.ramp_steps", str(ramp), "--optimization.cooldown_steps", str(cooldown)),
        *("--optimization.aligner_steps", str(steps // 6), "--rhythm.validate", str(steps)),
    ]


def _run(command: Sequence[str], log: Any) -> None:
    subprocess.run(command, check=True, stdout=log, stderr=log)


def _value(values: dict[tuple[str, str, str], float], key: tuple[str, str, str]) -> float:
    data, metric, head = key
    if metric == "the first shows it":  # its title has the number of pictures too
        data = next(d for d, m, _ in values if m == metric and d.endswith(f", {data}"))
    return round(values[data, metric, head], 1)


def _table(title: str, columns: dict[str, tuple[str, str, str]], found: dict[str, Row]) -> Table:
    table = Table(title=title, padding=(0, 0))
    for column in ("run", *columns):
        table.add_column(column, justify="left" if column == "run" else "right")
    for name, figures in found.items():
        table.add_row(name, *(f"{figures[label]:.1f}" for label in columns))
    return table


if __name__ == "__main__":
    raise SystemExit(main())
