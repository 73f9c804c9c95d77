"""What tests of whole runs share: a small run, the command, and the losses it noted."""

import json
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from denseav.train.data.toy import ToySettings
from denseav.train.distributed.fabric import Machine
from denseav.train.trainer.settings import Backbones, Intervals, Optimization, Settings
from denseav.train.trainer.tracking.run_log import METRICS
from tests.support.train.parts import NETWORK

DEBUG = Path(__file__).parents[3] / "configs" / "train" / "debug.yaml"
SMALL = Settings(
    network=NETWORK,
    backbones=Backbones(image="", audio=""),
    made=ToySettings(things=8, batch_size=4, image_size=16, samples=2960 + 2880),
    optimization=Optimization(aligner_steps=3, steps=8, learning_rate=1e-3, warmup_steps=2),
    machine=Machine(accelerator="cpu", precision="32-true", threads=1),
    rhythm=Intervals(log=1, save=2, validate=4),
)
ARGUMENTS = (
    "--config", str(DEBUG), "--optimization.steps", "26", "--optimization.aligner_steps", "5",
    "--rhythm.log", "1", "--rhythm.save", "3", "--rhythm.validate", "1000",
)  # fmt: skip


def start(folder: Path, *more: str, **options: Any) -> subprocess.Popen[str]:
    """Start the command with the debug configuration; `folder` is the run's."""
    command = [
        sys.executable,
        "-m",
        "denseav.train.cli.train",
        *ARGUMENTS,
        "--out",
        str(folder),
        *more,
    ]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


def losses(folder: Path) -> dict[int, float]:
    """Return the total loss of each step that was noted."""
    figures = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    return {line["step"]: line["loss/total"] for line in figures if "loss/total" in line}


def make(folder: Path) -> Path:
    """Return a folder that is there."""
    folder.mkdir(exist_ok=True)
    return folder


def quiet() -> Console:
    """Return a console that nobody sees."""
    return Console(file=StringIO())
