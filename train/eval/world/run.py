"""The evaluation on the world, in order: a model and a seed enter, rows and a report leave.

Everything is measured on clips made here and now from the seed, of parts that are held out of all
training.
"""

from pathlib import Path
from typing import Any

from rich.console import Console

from denseav.train.eval.exported_model import Calibration, OpenedModel, open_model
from denseav.train.eval.pieces import Track
from denseav.train.eval.report import write_json
from denseav.train.eval.world.evaluator import WorldEvaluator, make_evaluator, preferred
from denseav.train.eval.world.heatmaps import Prompted, prompted
from denseav.train.eval.world.probes import mixed, retrieved, unseen
from denseav.train.eval.world.report import Report, show
from denseav.train.eval.world.scores import (
    disentangled_rows,
    head_choice_rows,
    mixed_rows,
    own_head_rows,
    prompted_rows,
    retrieval_rows,
    unseen_rows,
)
from denseav.train.eval.world.split import Split
from denseav.train.world.clips import TWO_HEADS, Head, Kind

CLIPS = 300
GALLERY = 100
"""How many pictures one is to be found among."""

UNSEEN: tuple[Kind, ...] = ("silence", "noise", "offscreen_sound", "offscreen_speech")
OFFSCREEN_TUNE: tuple[Kind, ...] = ("offscreen_tune",)


def evaluate_world(
    evaluator: WorldEvaluator, clips: int, calibration: Calibration | None, track: Track
) -> Report:
    """Measure everything that the world can tell of a model.

    Parameters
    ----------
    evaluator : the model, and the test split.
    clips : how many of each kind.
    calibration : what the area above the threshold is measured with; None leaves it out.
    track : shows how far it has come.
    """
    report = Report()
    found: dict[Head, Prompted] = {}
    for head in evaluator.own:
        found[head] = prompted(
            evaluator=evaluator, head=head, count=clips, calibration=calibration, track=track
        )
        rows, report.classes[head] = prompted_rows(f"{head} prompted", found[head])
        report.rows += rows
    report.answers = preferred({head: prompted.sims_NK for head, prompted in found.items()})
    report.rows += disentangled_rows(found["speech"].sims_NK, found["sound"].sims_NK)
    report.rows += head_choice_rows(found)
    if len(found) > len(TWO_HEADS):
        report.rows += own_head_rows(found, evaluator.own)
    report.rows += mixed_rows(mixed(evaluator, clips, track))
    if calibration is not None:
        for kind in [*UNSEEN, *(OFFSCREEN_TUNE if "tune" in evaluator.own else ())]:
            area_Nx = unseen(
                evaluator=evaluator, kind=kind, count=clips, calibration=calibration, track=track
            )
            report.rows += unseen_rows(kind, area_Nx, evaluator.model.heads)
    for head in evaluator.own:
        report.rows += retrieval_rows(head, *retrieved(evaluator, head, min(clips, GALLERY), track))
    return report


def run(
    model: str,
    device: str,
    seed: int,
    clips: int,
    json_path: Path | None,
    console: Console,
    track: Track,
) -> None:
    """Open a model, measure it, print the tables, and write JSON if asked to.

    Raises
    ------
    CheckpointError, DataError
        When the model cannot be used, its pictures are larger than the world, espeak-ng is
        missing, or the JSON cannot be written.
    """
    with console.status(f"loading {model}"):
        opened = open_model(model, device)
        split = Split(seed=seed, size=opened.model.frame_size, samples=opened.model.window_samples)
    evaluator = make_evaluator(opened.model, split)
    report = evaluate_world(evaluator, clips, opened.calibration, track)
    show(opened, evaluator, report)
    if json_path is not None:
        about = _about(opened, evaluator, model, clips)
        write_json(json_path, {**about, "classes": report.classes}, report.rows)


def _about(
    opened: OpenedModel, evaluator: WorldEvaluator, model: str, clips: int
) -> dict[str, Any]:
    split, heads = evaluator.split, evaluator.model.heads
    return {
        "world": {
            "seed": split.seed,
            "clips_of_each_kind": clips,
            "frame_size": split.size,
            "window_samples": split.samples,
        },
        "source": model,
        "model": opened.name,
        "trained": opened.trained,
        **opened.identity,
        "heads": heads,
        "own_heads": {head: heads[index] for head, index in evaluator.own.items()},
    }
