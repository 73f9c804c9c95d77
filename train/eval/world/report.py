"""What was measured on the world enters, tables and notes for people leave."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from denseav.export.terminal_text import safe_console
from denseav.train.eval.exported_model import OpenedModel
from denseav.train.eval.report import Row, tables
from denseav.train.eval.world.evaluator import WorldEvaluator
from denseav.train.world.clips import Head

WORST = 5


@dataclass(kw_only=True)
class Report:
    """What was measured.

    Attributes
    ----------
    rows : all results.
    classes : of each kind of audio, how well each class is found, in percent.
    answers : which head prefers which kind of audio.
    """

    rows: list[Row] = field(default_factory=list)
    classes: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    answers: dict[Head, int] = field(default_factory=dict)


def show(opened: OpenedModel, evaluator: WorldEvaluator, report: Report) -> None:
    """Print everything."""
    out = safe_console()
    untrained = "" if opened.trained else " (UNTRAINED: random weights)"
    digest = (opened.identity["sha256"] or "")[:12]
    out.print(f"{opened.name}{untrained}, {opened.identity['form']} {digest}", markup=False)
    out.print(f"on the world of seed {evaluator.split.seed}: percent, with 95 % intervals")
    for table in tables(report.rows):
        out.print(table)
    for note in _notes(opened, evaluator, report):
        out.print(note, markup=False)


def worst(classes: dict[str, dict[str, float]]) -> str:
    """Return the classes that are pointed at least often, for people."""
    order = sorted(classes, key=lambda name: classes[name]["pointing"])
    return ", ".join(f"{name} {classes[name]['pointing']:.0f} %" for name in order[:WORST])


def _notes(opened: OpenedModel, evaluator: WorldEvaluator, report: Report) -> Iterator[str]:
    for head, classes in report.classes.items():
        yield f"pointed at least often, {head} prompted: {worst(classes)}"
    heads = evaluator.model.heads
    if set(evaluator.own) - set(heads):
        owners = ", ".join(f"{heads[index]} for {head}" for head, index in evaluator.own.items())
        named = " and ".join(evaluator.own)
        yield f"no heads are named {named}; by what they answer to: {owners}"
    elif report.answers != evaluator.own:
        yield "the heads answer to each other's kind of sound more than to their own"
    if opened.calibration is None:
        yield (
            "a checkpoint has no calibrated thresholds: silence, noise and off-screen sounds are "
            "left out; export it and evaluate the bundle"
        )
