"""Checkpoints of a run: all that is needed to go on as if nothing had happened.

`last.ckpt`, `best.ckpt` and those that are kept hold weights, optimizer, gradient scaler, progress,
and of each process its random states and where its loader is; any number of processes reads them.
`model/` is the best network alone, as `denseav.models.load` reads it; `settings.yaml` is what the
run was told. Every file appears whole or not at all: a full disk or a kill leaves the old one.

Errors
------
DiskError            a checkpoint cannot be written; the old one is whole
CheckpointError      a checkpoint is damaged, or of another network
"""

import dataclasses
import json
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.optim import Optimizer

from denseav.models import CheckpointError, ModelConfig
from denseav.models.checkpoints.checkpoint import CONFIG, write
from denseav.models.checkpoints.pickled_file import load_pickled
from denseav.train.distributed.collectives import gather_objects, rank
from denseav.train.distributed.fsdp import gathered, shard_like
from denseav.train.distributed.rank0_files import on_rank_zero, replacing, writing
from denseav.train.loss.learner import Learner
from denseav.train.trainer.settings import Settings
from denseav.train.trainer.weight_average import WeightAverage

LAST = "last.ckpt"
BEST = "best.ckpt"
MODEL = "model"
SETTINGS = "settings.yaml"


class Resumable(Protocol):
    """A part of a run that can say where it is and go on from there."""

    def state_dict(self) -> dict[str, Any]:
        """Return where it is."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""


@dataclass
class Progress:
    """How far a run is.

    Attributes
    ----------
    step : steps done, skipped ones too.
    skipped : steps without effect, because the gradient was not finite.
    skipped_in_row : of these, the latest without a good one since.
    best : the best mean recall so far, in percent; below 0 before any.
    stale : how many validations in a row have found no better one.
    """

    step: int = 0
    skipped: int = 0
    skipped_in_row: int = 0
    best: float = -1.0
    stale: int = 0

    def improves(self, recall: float | None) -> bool:
        """Note a recall, and tell whether it is the best; while none is measured, the latest is."""
        if recall is None:
            return not self.measured
        better = recall > self.best
        self.stale = 0 if better else self.stale + 1
        self.best = max(self.best, recall)
        return better

    @property
    def measured(self) -> bool:
        """Tell whether any recall was measured."""
        return self.best >= 0


@dataclass(frozen=True)
class RunState:
    """What a run changes, beside its progress.

    Attributes
    ----------
    learner, optimizer, loader : as the loop uses them.
    average : of the learner's weights, where one is kept.
    """

    learner: Learner
    optimizer: Optimizer
    loader: Resumable
    average: WeightAverage | None = None


@dataclass(frozen=True)
class Checkpointer:
    """Writes and reads the checkpoints of one run's folder.

    Attributes
    ----------
    folder : the run's.
    settings : what the run was told.
    scaler : what scales gradients, if that precision does.
    """

    folder: Path
    settings: Settings
    scaler: Resumable

    def __post_init__(self) -> None:
        on_rank_zero(self._make_folder)

    def save(self, run: RunState, progress: Progress, *, best: bool) -> None:
        """Write `last.ckpt`, and `best.ckpt` and `model/` where it is to be them; all call it."""
        own = {"loader": run.loader.state_dict(), "random": random_states()}
        state = {
            "network": self.settings.network.to_json(),
            "progress": dataclasses.asdict(progress),
            "processes": gather_objects(own),
            "scaler": self.scaler.state_dict(),
            "learner": gathered(dict(run.learner.state_dict())),
            "optimizer": gathered(run.optimizer.state_dict()),
        }
        if run.average is not None:
            state["average"] = run.average.state_dict()
        on_rank_zero(lambda: self._write(state, best=best))

    def resume(self, run: RunState) -> Progress:
        """Go on from `last.ckpt`, or begin where there is none; note what the run was told."""
        path = self.folder / LAST
        here = gather_objects(path.exists())
        if here[0] and not all(here):
            raise CheckpointError(
                f"{path} is not on every node; give an --out that all nodes share, or copy it to "
                "each of them"
            )
        progress = Progress()
        if here[0]:
            progress = self._restore(path, run)
            on_rank_zero(self._restore_missing)
        on_rank_zero(self._write_settings)
        return progress

    def _make_folder(self) -> None:
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def _write(self, state: dict[str, Any], *, best: bool) -> None:
        with replacing(self.folder / LAST) as partial:
            torch.save(state, partial)
            _flush(partial)
            # Before it counts as done: a run that ends in between does the step again.
            if best:
                self._write_best(partial, state)
            step, keep = state["progress"]["step"], self.settings.rhythm.keep
            if keep and step % keep == 0:
                self._link(partial, self.folder / f"step-{step:08d}.ckpt")

    def _write_best(self, checkpoint: Path, state: dict[str, Any]) -> None:
        self._link(checkpoint, self.folder / BEST)
        averaging = self.settings.optimization.average
        evaluated = averaging is not None and averaging.evaluate and "average" in state
        learner = state["learner"] | (state["average"]["weights"] if evaluated else {})
        of_model = [name for name in learner if name.startswith("model.")]
        weights = {name.removeprefix("model."): learner[name] for name in of_model}
        trained = dataclasses.replace(self.settings.network, trained=True)
        folder = self.folder / MODEL
        with writing(folder):
            write(trained, weights, folder)

    @staticmethod
    def _link(checkpoint: Path, path: Path) -> None:
        with replacing(path) as partial:
            try:
                partial.hardlink_to(checkpoint)
            except OSError:  # not every file system has links
                shutil.copyfile(checkpoint, partial)

    def _restore_missing(self) -> None:
        """Keep the best, or the last where that is gone too, if somebody removed it."""
        best = self.folder / BEST
        checkpoint = best if best.exists() else self.folder / LAST
        if checkpoint != best or not (self.folder / MODEL / CONFIG).exists():
            self._write_best(checkpoint, self._read(checkpoint))

    def _write_settings(self) -> None:
        record = json.dumps(dataclasses.asdict(self.settings), indent=2)  # YAML too
        with replacing(self.folder / SETTINGS) as partial:
            partial.write_text(record + "\n")

    def _restore(self, path: Path, run: RunState) -> Progress:
        state = self._read(path)
        try:
            own = state["processes"][rank() % len(state["processes"])]
            place, states = own["loader"], own["random"]
            progress = Progress(**state["progress"])
            _load(run, state)
            self.scaler.load_state_dict(state["scaler"])
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{path} does not fit this run ({str(error).splitlines()[0]}); give the settings "
                "it was made with, or another --out"
            ) from None
        if place.keys() != run.loader.state_dict().keys():
            raise CheckpointError(
                f"{path} is of a run on another kind of data; give the data it was made with, or "
                "another --out"
            )
        run.loader.load_state_dict(place)
        restore_random(states)
        return progress

    def _read(self, path: Path) -> Any:
        try:
            state = load_pickled(path)
            network = ModelConfig.from_json(state["network"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CheckpointError(
                f"{path} is damaged ({str(error).splitlines()[0]}); copy {BEST} over it, or give "
                "another --out"
            ) from None
        if network != self.settings.network:
            raise CheckpointError(
                f"{path} is of another architecture, "
                f"{_difference(network, self.settings.network)}; give the configuration it was "
                "made with, or another --out"
            )
        return state


def random_states() -> dict[str, Any]:
    """Return the states of all that draws by chance in this process."""
    # NumPy draws the stretches of sound that HuBERT does not hear.
    numbers = np.random.get_state(legacy=False)
    place = numbers["state"]
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": numbers | {"state": place | {"key": place["key"].tolist()}},
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random(states: dict[str, Any]) -> None:
    """Let everything draw on as it did where `random_states` was asked."""
    torch.set_rng_state(states["torch"])
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _load(run: RunState, state: dict[str, Any]) -> None:
    """Load what any number of processes saved, each its part; rates and such are the settings'.

    An average that no checkpoint has begins here.
    """
    now = run.learner.state_dict()
    weights = state["learner"]
    run.learner.load_state_dict(
        {key: shard_like(weights[key], now[key]) if key in now else weights[key] for key in weights}
    )
    groups, saved = run.optimizer.state_dict()["param_groups"], state["optimizer"]["param_groups"]
    if [group["params"] for group in groups] != [group["params"] for group in saved]:
        raise ValueError("its optimizer has other groups of weights")
    parameters = [weight for group in run.optimizer.param_groups for weight in group["params"]]
    averages = {
        number: {name: shard_like(value, parameters[number]) for name, value in of_one.items()}
        for number, of_one in state["optimizer"]["state"].items()
    }
    run.optimizer.load_state_dict({"state": averages, "param_groups": groups})
    if run.average is not None:
        run.average.load_state_dict(state.get("average", {"updates": 0, "weights": weights}))


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _difference(theirs: ModelConfig, ours: ModelConfig) -> str:
    for field in dataclasses.fields(ModelConfig):
        one, other = getattr(theirs, field.name), getattr(ours, field.name)
        if one != other:
            return f"whose {field.name} is {one}, not {other}"
    return "though the settings are the same"
