r"""Heads separated without labels, by a start from clusters: seeds, and what each part brings.

Each seed is `configs/train/discovered.yaml` with its own untold pretraining of both encoders. What
differs from it begins with the encoders of seed 0: no gate and no clusters (the paper's objective
alone); the gate alone, without mixtures or a price for the wrong head; mixtures without the price;
clusters of audio alone, which do not ask what pictures tell, of the audio encoder, by a coin, of an
encoder with random weights, and by loudness; a gate of 1/6 and of 1/2 of all steps; the
disentanglement of the paper 0, 1, 5 and 20 times. With fewer steps there is the recipe itself too,
to compare with. Three kinds of audio with three heads, for which PredDis and ActDis are not
defined, have encoders of their own. Every run is exported, its heads named from labelled clips, and
measured on held-out clips of the world, as the card has it.

    python -m benchmarks.accuracy.discovered --out DIR
    python -m benchmarks.accuracy.discovered --out DIR --only "seed 0" "no gate" --steps 800

Runs are made one after the other. What is stopped by SIGTERM goes on where it was, and a run that
has its row in DIR is not made again; exit code 75 says that one is not done. `curves.png` has
PredDis and ActDis of the validation clips over steps, and where each gate opens (extra `plot`).
"""

import argparse
import json
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import yaml
from rich.table import Table

from benchmarks.support.common import ROOT, Check, at_least, at_most, finish, program, say
from denseav.train.clusters.cluster_start import ClusterStart

CONFIG = ROOT / "configs" / "train" / "discovered.yaml"
PAPER = 0.05  # the weight of the paper's disentanglement
SEEDS = 5
PAIRS = 40  # of each kind, for calibration and for the heads' names
Row = dict[str, float | str | int]
MEASURES = {
    "PredDis": ("disentanglement", "PredDis", "total"),
    "ActDis": ("disentanglement", "ActDis", "total"),
    "by kind": ("head choice", "explained by kind", "total"),
    "by class": ("head choice", "explained by class", "total"),
    "mAP, sound": ("sound prompted", "mAP", "own head"),
    "mAP, speech": ("speech prompted", "mAP", "own head"),
    "pointing, sound": ("sound prompted", "pointing", "own head"),
    "pointing, speech": ("speech prompted", "pointing", "own head"),
    "both at once": ("sound and speech at once", "both pointed at", "own head"),
} | {
    what: ("area above threshold", what, "any head")
    for what in ("silence", "noise", "offscreen sound", "offscreen speech")
}
KINDS = ("sound", "speech", "tune")
THREE = {
    "by kind": MEASURES["by kind"],
    "by class": MEASURES["by class"],
    **{f"own head, {kind}": ("own head chosen", kind, "own head") for kind in KINDS},
    **{f"mAP, {kind}": (f"{kind} prompted", "mAP", "own head") for kind in KINDS},
    **{f"pointing, {kind}": (f"{kind} prompted", "pointing", "own head") for kind in KINDS},
    **{
        what: ("area above threshold", what, "any head")
        for what in ("silence", "noise", *(f"offscreen {kind}" for kind in KINDS))
    },
}
"""What is measured of three kinds, in the place of `MEASURES`."""
LEAST = {"PredDis": (95, 90), "ActDis": (85, 80)}
"""What the mean of all seeds, and each of them, is to reach."""
LEAST_MEAN = {
    "mAP, sound": 68, "mAP, speech": 66, "pointing, sound": 90, "pointing, speech": 88,
    "both at once": 55,
}  # fmt: skip
MOST_MEAN = {"silence": 1, "noise": 3, "offscreen sound": 10, "offscreen speech": 10}


_NO_PRICE = ["--loss.wrong_head", "0"]
_AUDIO_ALONE = ["--cluster_start.pictures", "false"]


class Run(NamedTuple):
    """What a run is told beside the configuration, and whose encoders it begins with."""

    own: list[str]
    seed: int
    encoders: str | None = None
    tunes: bool = False

    @property
    def measures(self) -> dict[str, tuple[str, str, str]]:
        """Return what is measured, and where the report has it."""
        return THREE if self.tunes else MEASURES


def runs(steps: int) -> dict[str, Run]:
    """Return every run by its name, those that others begin with before them."""
    found = {f"seed {seed}": Run([], seed) for seed in range(SEEDS)}
    ablations = {"the recipe": list[str]()} if steps < _whole() else {}
    ablations |= {
        "no gate": ["--cluster_start", "null", *_NO_PRICE],
        "gate alone": ["--cluster_start.mixtures", "false", *_NO_PRICE],
        "no price": _NO_PRICE,
        "audio alone": _AUDIO_ALONE,
        "a coin": [*_AUDIO_ALONE, "--cluster_start.by", "coin"],
        "random encoder": [*_AUDIO_ALONE, "--cluster_start.by", "random_encoder"],
        "loudness": [*_AUDIO_ALONE, "--cluster_start.by", "loudness"],
        "gate 1/6": ["--cluster_start.gate_steps", str(steps // 6)],
        "gate 1/2": ["--cluster_start.gate_steps", str(steps // 2)],
    } | {
        f"disentanglement x {times}": ["--loss.disentanglement", f"{times * PAPER}"]
        for times in (0, 1, 5, 20)
    }
    found |= {name: Run(own, 0, "seed 0") for name, own in ablations.items()}
    three = ["--network.heads", "[first, second, third]", "--network.code_dim", "192"]
    three += ["--world.kinds", f"[{', '.join(KINDS)}]"]
    return found | {"three kinds": Run(three, 0, tunes=True)}


def main() -> int:
    """Parse, train, export, measure, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="where runs and rows go")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these runs; default: all")
    parser.add_argument("--steps", type=int, help="of each run; default: the configuration's")
    parser.add_argument("--clips", type=int, default=120, help="of each kind; default: %(default)s")
    options = parser.parse_args()
    steps = options.steps or _whole()
    planned = runs(steps)
    names = options.only or list(planned)
    if unknown := sorted(set(names) - set(planned)):
        parser.error(f"no run is called {unknown[0]}; there are: {', '.join(planned)}")
    rows = {name: row_of(name, planned, steps, options.out, options.clips) for name in names}
    title = "one thing heard, held-out clips, percent"
    two, three = (
        {name: row for name, row in rows.items() if planned[name].tunes is tunes}
        for tunes in (False, True)
    )
    shown = [_table(title, two, MEASURES)] if two else []
    shown += [_table(title, three, THREE)] if three else []
    plot_curves({name: options.out / _slug(name) for name in two}, options.out / "curves.png")
    record = {"benchmark": "discovered", "steps": steps, "clips": options.clips, "rows": rows}
    return finish(shown, record, _checks(rows))


def _whole() -> int:
    steps: int = yaml.safe_load(CONFIG.read_text())["optimization"]["steps"]
    return steps


def row_of(name: str, planned: Mapping[str, Run], steps: int, out: Path, clips: int) -> Row:
    """Return a run's figures; make it, and what it begins with, where there are none."""
    run, folder, row = planned[name], out / _slug(name), out / f"{_slug(name)}.row.json"
    if not row.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if run.encoders is not None:
            _share_encoders(out / _slug(run.encoders), folder)
        with (out / f"{_slug(name)}.log").open("a") as log:
            say(f"{name}: training")
            told = [*_recipe(steps), *run.own, "--seed", str(run.seed), "--out", str(folder)]
            _call(["denseav-train", "--config", str(CONFIG), *told], log)
            figures = _measured(folder, run, out, clips, log)
        row.write_text(json.dumps({"run": name, "seed": run.seed, "steps": steps} | figures) + "\n")
    found: Row = json.loads(row.read_text())
    return found


def _recipe(steps: int) -> list[str]:
    """Return the configuration's turns, each for its part of as many steps."""
    settings = yaml.safe_load(CONFIG.read_text())
    whole = settings["optimization"]["steps"]
    if steps == whole:
        return []
    told = ["--optimization.steps", str(steps)]
    told += ["--world.single_batches", str(settings["world"]["single_batches"] * steps // whole)]
    gate = ClusterStart(**settings["cluster_start"]).gate_steps * steps // whole
    told += ["--cluster_start.gate_steps", str(gate)]
    for turn in ("aligner_steps", "cooldown_steps", "contrast_steps", "ramp_steps"):
        told += [f"--optimization.{turn}", str(settings["optimization"][turn] * steps // whole)]
    return told


def _share_encoders(source: Path, folder: Path) -> None:
    for encoder in ("pretrained_audio", "pretrained_image"):
        if not (source / encoder).is_dir():
            raise SystemExit(f"{source} has no {encoder} yet: make that run first")
        if not (folder / encoder).exists():
            shutil.copytree(source / encoder, folder / encoder)


def _measured(folder: Path, run: Run, out: Path, clips: int, log: Any) -> Row:
    """Export a run's model as the demo is, name its heads, and measure the bundle."""
    pairs = out / ("pairs_tunes" if run.tunes else "pairs")
    if not pairs.exists():
        partial = pairs.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        kinds = ["--seen", "--tunes"] if run.tunes else ["--seen"]
        wanted = [*kinds, "--clips", str(PAIRS * (9 if run.tunes else 7)), "--out", str(partial)]
        _call(["denseav-data", "world", "negatives", *wanted], log)
        partial.rename(pairs)
    bundle, report = folder / "bundle", folder / "world.json"
    say(f"{folder.name}: exporting and measuring")
    told = ["--window", "2", "--calibration", str(pairs), "--name-heads", str(pairs)]
    _call(["denseav-export", str(folder / "model"), *told, "--out", str(bundle)], log)
    told = ["--model", str(bundle), "--clips", str(clips), "--json", str(report)]
    _call(["denseav-eval", "--world", *told], log)
    values = {
        (row["data"], row["metric"], row["head"]): row["value"]
        for row in json.loads(report.read_text())["results"]
    }
    return {label: round(values[key], 1) for label, key in run.measures.items()}


def _call(command: Sequence[str], log: Any) -> None:
    """Run a command; SIGTERM goes on to it, and its exit code ends this too."""
    with subprocess.Popen([program(command[0]), *command[1:]], stdout=log, stderr=log) as child:
        before = signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        code = child.wait()
        signal.signal(signal.SIGTERM, before)
    if code:
        say(f"{command[0]} ended with {code}: {log.name} says why")
        raise SystemExit(code)


def curve(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Return PredDis and ActDis of a run's validation clips, by step."""
    path = run / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {
        name: [(line["step"], line[name]) for line in lines if name in line]
        for name in ("PredDis", "ActDis")
    }


def gate_of(run: Path) -> int:
    """Return the step at which a run's gate opens; 0 where it has none."""
    start = yaml.safe_load((run / "settings.yaml").read_text())["cluster_start"]
    return start["gate_steps"] if start else 0


def plot_curves(folders: Mapping[str, Path], path: Path) -> None:
    """Draw how far heads are apart over steps, of each run in its colour, its gate dotted."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for panel, measure in zip(panels, ("PredDis", "ActDis"), strict=True):
        for number, (name, folder) in enumerate(folders.items()):
            points = curve(folder)[measure]
            colour = f"C{number % 10}"
            steps, values = zip(*points, strict=True) if points else ((), ())
            panel.plot(
                steps, values, color=colour, label=name, linestyle="-" if number < 10 else "--"
            )
            if gate := gate_of(folder):
                panel.axvline(gate, color=colour, linestyle=":", linewidth=0.8)
        panel.set(title=f"{measure} of validation clips", xlabel="step (dotted: the gate opens)")
    panels[0].set_ylabel("percent")
    figure.legend(*panels[0].get_legend_handles_labels(), fontsize="small", loc="outside right")
    figure.savefig(path)


def _table(title: str, rows: Mapping[str, Row], measures: Mapping[str, Any]) -> Table:
    table = Table(title=title, padding=(0, 0))
    for column in ("run", *measures):
        table.add_column(column, justify="left" if column == "run" else "right")
    for name, row in rows.items():
        table.add_row(name, *(f"{row[label]:.1f}" for label in measures))
    if len(seeds := _seeds(rows)) > 1:
        spread = {label: [float(row[label]) for row in seeds] for label in measures}
        table.add_section()
        for what, of in (("mean of the seeds", mean), ("their deviation", stdev)):
            table.add_row(what, *(f"{of(values):.1f}" for values in spread.values()))
    return table


def _checks(rows: Mapping[str, Row]) -> list[Check]:
    if len(seeds := _seeds(rows)) < SEEDS:
        return []
    values = {label: [float(row[label]) for row in seeds] for label in MEASURES}
    checks = []
    for label, (of_mean, of_each) in LEAST.items():
        checks.append(at_least(f"{label}, mean of the seeds", mean(values[label]), of_mean))
        checks.append(at_least(f"{label}, least of the seeds", min(values[label]), of_each))
    for label, least in LEAST_MEAN.items():
        checks.append(at_least(f"{label}, mean of the seeds", mean(values[label]), least))
    for label, most in MOST_MEAN.items():
        checks.append(at_most(f"{label}, mean of the seeds", mean(values[label]), most))
    return checks


def _seeds(rows: Mapping[str, Row]) -> list[Row]:
    return [row for name, row in rows.items() if name.startswith("seed ")]


def _slug(name: str) -> str:
    return name.replace(" ", "_").replace("/", "_of_")


if __name__ == "__main__":
    raise SystemExit(main())
