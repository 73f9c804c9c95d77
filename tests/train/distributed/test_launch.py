"""Processes that SLURM or torchrun starts: one run of them all, or one line that says why not."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import torch

from denseav.models import load
from denseav.train.cli.train import main
from denseav.train.trainer.checkpointer import LAST, MODEL
from tests.support.ports import free_port
from tests.support.train.tasks import run_tasks, slurm

DOCS = Path(__file__).parents[3] / "docs"
DEBUG = DOCS.parent / "configs" / "train" / "debug.yaml"
ARGUMENTS = (
    "--config", str(DEBUG), "--optimization.steps", "3",
    "--rhythm.log", "1", "--rhythm.validate", "3", "--made.batch_size", "4",
)  # fmt: skip


def test_tasks_of_slurm_are_one_run(tmp_path: Path) -> None:
    first, other = run_tasks(*ARGUMENTS, "--out", str(tmp_path))  # how many is srun's to say
    assert (first.code, other.code) == (0, 0), first.said + other.said
    assert len(re.findall(r"^step \d/3  contrast", first.said, re.MULTILINE)) == 3
    assert "step" not in other.said
    state = torch.load(tmp_path / LAST, weights_only=True)
    assert [own["loader"]["given"] for own in state["processes"]] == [3, 3]
    assert load(tmp_path / MODEL).config.trained


def test_one_task_of_slurm_is_a_run_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in slurm(1)[0].items():
        monkeypatch.setenv(name, value)
    assert main([*ARGUMENTS, "--out", str(tmp_path)]) == 0
    state = torch.load(tmp_path / LAST, weights_only=True)
    assert [own["loader"]["given"] for own in state["processes"]] == [3]


def documented(start: str) -> list[str]:
    """Return the arguments of the one line of the documents that begins so."""
    text = (DOCS / "training.md").read_text().replace("\\\n", " ")
    (line,) = (line for line in text.splitlines() if line.startswith(start))
    return shlex.split(line)


def test_torchruns_line_of_the_documents_is_one_run(tmp_path: Path) -> None:
    """The line itself, with two processes, the debug configuration and three steps."""
    command = documented("torchrun --nproc-per-node")
    command[command.index("8")] = "2"
    command[command.index("configs/train/denseav_2head.yaml")] = str(DEBUG)
    command[command.index("runs/2head")] = str(tmp_path)
    ports = ("--master-port", str(free_port()))
    command[1:1] = ports
    ended = subprocess.run([*command, *ARGUMENTS[2:]], capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr
    assert len(torch.load(tmp_path / LAST, weights_only=True)["processes"]) == 2


WRONG = {
    "more tasks than devices": (2, {}, "srun started 2 processes, the settings have 1 nodes of 1"),
    "fewer tasks": (1, {}, "srun started 1 processes"),
    "other nodes": (2, {"SLURM_NNODES": "2"}, "--machine.nodes"),
    "tasks not by node": (2, {"SLURM_NTASKS_PER_NODE": ""}, "--ntasks-per-node"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_another_number_of_tasks_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wrong: str,
) -> None:
    tasks, change, remedy = WRONG[wrong]
    devices = 1 if wrong == "more tasks than devices" else 2
    for name, value in (slurm(tasks)[0] | change).items():
        if value:
            monkeypatch.setenv(name, value)
    out = tmp_path / "run"
    assert main([*ARGUMENTS, "--out", str(out), "--machine.devices", str(devices)]) == 2
    said = capsys.readouterr().err
    assert remedy in said
    assert said.count("\n") == 1, said
    assert not out.exists()
