r"""What each part of the objective brings, on the world, and what is found when nothing is told.

*In short*: runs of 700 steps that all begin with the same encoders, see as many clean clips a step,
and differ in what the first column of the tables says, as in Hamilton et al. (2024), tables 3 and
4. `discovered` is DenseAV's own objective, which is not told which clips are speech, from three
seeds: how far those differ is how far anything else has to, to mean something. These encoders are
the demo's, of which the image encoder was pretrained on sounds alone: to that extent the kinds were
told. *At length*: 2,400 steps of that objective, again from three seeds, with encoders whose
pretraining was not told either, and mix-and-separate on the same, as in Ryu et al. (2025), table 1.

    denseav-train --config configs/train/demo.yaml --optimization.steps 1 --out TOLD
    denseav-train --config configs/train/demo.yaml --separation null --world.told false \
        --pretraining.image_steps 8000 --optimization.steps 1 --out UNTOLD
    python -m benchmarks.accuracy.ablations --told TOLD --untold UNTOLD --out DIR

A run that has its figures in DIR is not made again. Its own head is the head that answers to that
kind of sound, learned from clips that are used for nothing else.
"""

import argparse
import json
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from benchmarks.support.common import ROOT, finish, program, say

CONFIG = ROOT / "configs" / "train" / "demo.yaml"
CLIPS = 32  # of one step; in a couple of mix-and-separate there are two
UNTOLD = ["--separation", "null", "--world.told", "false", "--world.batch_size", f"{CLIPS}"]
UNTOLD += ["--network.heads", "[first, second]"]
TOLD = ["--world.batch_size", f"{CLIPS // 2}"]
SIMPOOL = [*UNTOLD, "--pooling", "simpool"]
SEEDS = {
    "discovered": UNTOLD,
    "discovered, seed 1": [*UNTOLD, "--seed", "1"],
    "discovered, seed 2": [*UNTOLD, "--seed", "2"],
}
IN_SHORT = SEEDS | {
    "mix and separate": TOLD,
    "without disentanglement": [*UNTOLD, "--loss.disentanglement", "0"],
    "heads summed": [*UNTOLD, "--pooling", "dense_sum"],
    "average pooling": [*UNTOLD, "--pooling", "average"],
    "CLS": [*UNTOLD, "--pooling", "cls", "--network.cls_similarity", "true"],
    "SimPool": SIMPOOL,
    "SimPool, an eighth of the rate": [*SIMPOOL, "--optimization.learning_rate", "1e-4"],
}
AT_LENGTH = SEEDS | {"mix and separate": TOLD}
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


class Group(NamedTuple):
    """Runs that are compared: what each is told, the encoders they begin with, and how long."""

    variants: dict[str, list[str]]
    pretrained: Path
    steps: int


def main() -> int:
    """Parse, train, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--told", type=Path, required=True, help="a run, for its encoders")
    parser.add_argument("--untold", type=Path, required=True, help="the same for the long runs")
    parser.add_argument("--out", type=Path, required=True, help="where runs and figures go")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time; default: %(default)s")
    parser.add_argument("--clips", type=int, default=120, help="of each kind; default: %(default)s")
    options = parser.parse_args()
    groups = {
        "in short": Group(IN_SHORT, options.told, 700),
        "at length": Group(AT_LENGTH, options.untold, 2_400),
    }
    found, tables = {}, []
    with ThreadPoolExecutor(options.jobs) as pool:
        for title, group in groups.items():
            out = options.out / title.replace(" ", "_")
            out.mkdir(parents=True, exist_ok=True)
            measure = partial(_measured, group=group, out=out, clips=options.clips)
            found[title] = dict(zip(group.variants, pool.map(measure, group.variants), strict=True))
            tables.append(_table(f"{title}, one thing heard", ONE, found[title]))
            tables.append(_table(f"{title}, two at once", BOTH, found[title]))
    return finish(tables, {"benchmark": "ablations", "clips": options.clips, "runs": found}, [])


def _measured(name: str, group: Group, out: Path, clips: int) -> Row:
    slug = name.replace(",", "").replace(" ", "_")
    run, figures = out / slug, out / f"{slug}.json"
    if not figures.exists():
        for encoder in ("pretrained_audio", "pretrained_image"):
            shutil.copytree(group.pretrained / encoder, run / encoder, dirs_exist_ok=True)
        with (out / f"{slug}.log").open("a") as log:
            say(f"{name}, {group.steps} steps: training")
            recipe = [*_recipe(group.steps), *group.variants[name], "--out", str(run)]
            _run([program("denseav-train"), *recipe], log)
            say(f"{name}, {group.steps} steps: measuring")
            wanted = ["--model", str(run / "model"), "--clips", str(clips), "--json", str(figures)]
            _run([program("denseav-eval"), "--world", *wanted], log)
    rows = json.loads(figures.read_text())["results"]
    values = {(row["data"], row["metric"], row["head"]): row["value"] for row in rows}
    return {label: _value(values, key) for label, key in (ONE | BOTH).items()}


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
