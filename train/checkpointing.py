"""Checkpoints of a run: all that is needed to go on as if nothing had happened.

`last.ckpt` and `best.ckpt` hold weights, optimizer, progress, and of each process its random
states and where its loader is; `model/` is the best network alone, as `denseav.models.load`
reads it; `settings.yaml` is what the run was told. Every checkpoint appears whole or not at all:
a full disk or a kill leaves the old one.

Errors
------
DiskError            a checkpoint cannot be written; the old one is whole
CheckpointError      a checkpoint is damaged, or of another network
"""

import dataclasses
import json
import os
import pickle
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer

from denseav.models import CheckpointError, DenseAV, ModelConfig, save
from denseav.train.errors import DiskError
from denseav.train.gather import gather_objects, rank
from denseav.train.settings import Settings

LAST = "last.ckpt"
BEST = "best.ckpt"
MODEL = "model"
SETTINGS = "settings.yaml"


class Resumable(Protocol):
    """A loader that can say where it is and go on from there."""

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader is."""

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
    best : the best mean recall so far.
    """

    step: int = 0
    skipped: int = 0
    skipped_in_row: int = 0
    best: float = -1.0


@dataclass(frozen=True)
class Keeper:
    """Writes and reads the checkpoints of one run's folder."""

    folder: Path
    settings: Settings

    def __post_init__(self) -> None:
        if rank() == 0:
            with writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)

    def save(
        self, learner: nn.Module, optimizer: Optimizer, loader: Resumable, progress: Progress
    ) -> None:
        """Write `last.ckpt`; all processes call it."""
        own = {"loader": loader.state_dict(), "random": _random_states()}
        processes = gather_objects(own)
        if rank() == 0:
            state = {
                "network": self.settings.network.to_json(),
                "progress": dataclasses.asdict(progress),
                "processes": processes,
                "learner": learner.state_dict(),
                "optimizer": optimizer.state_dict(),
            }
            partial = self.folder / f".{LAST}.partial"
            with writing(partial):
                torch.save(state, partial)
                _flush(partial)
                partial.replace(self.folder / LAST)

    def keep_best(self, model: DenseAV) -> None:
        """Make `last.ckpt` the best one too, and write its network to `model/`."""
        if rank() != 0:
            return
        partial = self.folder / f".{BEST}.partial"
        with writing(partial):
            partial.unlink(missing_ok=True)
            try:
                partial.hardlink_to(self.folder / LAST)
            except OSError:  # not every file system has links
                shutil.copyfile(self.folder / LAST, partial)
            partial.replace(self.folder / BEST)
        with writing(self.folder / MODEL):
            save(model, self.folder / MODEL)

    def resume(self, learner: nn.Module, optimizer: Optimizer, loader: Resumable) -> Progress:
        """Go on from `last.ckpt`, or begin where there is none; note what the run was told."""
        path = self.folder / LAST
        progress = self._restore(path, learner, optimizer, loader) if path.exists() else Progress()
        if rank() == 0:
            with writing(self.folder / SETTINGS):
                record = json.dumps(dataclasses.asdict(self.settings), indent=2)  # YAML too
                (self.folder / SETTINGS).write_text(record + "\n")
        return progress

    def _restore(
        self, path: Path, learner: nn.Module, optimizer: Optimizer, loader: Resumable
    ) -> Progress:
        state = self._read(path)
        try:
            learner.load_state_dict(state["learner"])
            optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"{path} does not fit this run ({str(error).splitlines()[0]}); give the settings "
                "it was made with, or another --out"
            ) from None
        own = state["processes"][rank() % len(state["processes"])]
        loader.load_state_dict(own["loader"])
        _restore_random(own["random"])
        return Progress(**state["progress"])

    def _read(self, path: Path) -> Any:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            network = ModelConfig.from_json(state["network"])
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError) as error:
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


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write into one line, and leave nothing half-written behind.

    Raises
    ------
    DiskError
        When the disk is full or cannot be written.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        path.unlink(missing_ok=True) if path.is_file() else None
        reason = str(error).strip().splitlines()[0]
        raise DiskError(
            f"{path} cannot be written ({reason}); the checkpoint before it is whole: free some "
            "space and start the same command again"
        ) from None


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _random_states() -> dict[str, Any]:
    states: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _restore_random(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    random.setstate(states["python"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _difference(theirs: ModelConfig, ours: ModelConfig) -> str:
    for field in dataclasses.fields(ModelConfig):
        one, other = getattr(theirs, field.name), getattr(ours, field.name)
        if one != other:
            return f"whose {field.name} is {one}, not {other}"
    return "though the settings are the same"
