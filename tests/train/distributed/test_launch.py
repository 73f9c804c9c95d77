"""Processes that SLURM or torchrun starts: one run of them all, or one line that says why not."""

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from denseav.models import load
from denseav.train.cli.train import main
from denseav.train.trainer.checkpointer import LAST, MODEL
from tests.support.ports import free_port
from tests.support.train.forked_commands import forked_commands
from tests.support.train.runs import losses
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


STEPS, FAULT_AT = 8, 5
RUN = (*ARGUMENTS[2:], "--optimization.steps", str(STEPS), "--rhythm.save", "2")
HERE = {"configs/train/denseav_2head.yaml": str(DEBUG), "-per-node 8": "-per-node 1"}


def blocks(start: str) -> list[str]:
    """Return the documents' blocks with a line that begins so, for this machine."""
    texts = re.findall(r"^```sh\n(.*?)^```$", (DOCS / "training.md").read_text(), re.M | re.S)
    found = [text for text in texts if re.search(f"^{start}", text, re.M)]
    for documented, here in HERE.items():
        found = [text.replace(documented, here) for text in found]
    return found


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with forked_commands(tmp_path_factory.mktemp("commands")) as environment:
        yield environment


@pytest.fixture(scope="module")
def whole(commands: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """Return the losses of the documents' line for one machine, with two processes."""
    out = tmp_path_factory.mktemp("whole")
    (line,) = (line for line in blocks("denseav-train")[1].splitlines() if "torchrun" in line)
    line = line.replace("-per-node 1", f"-per-node 2 --master-port {free_port()}")
    line = line.replace("runs/2head", str(out))
    ended = run(["bash", "-c", shlex.join([*shlex.split(line), *RUN])], commands)
    assert ended.returncode == 0, ended.stderr
    assert len(torch.load(out / LAST, weights_only=True)["processes"]) == 2
    found = losses(out)
    assert list(found) == list(range(1, STEPS + 1))
    return found


def test_a_killed_process_of_two_machines_is_started_again(
    tmp_path: Path, commands: dict[str, str], whole: dict[int, float]
) -> None:
    """torchrun's restarts go on from the last checkpoint, on the curve that nobody killed."""
    out, killed = tmp_path / "run", tmp_path / "killed"
    (text,) = blocks("torchrun --nnodes")
    text = text.replace("/shared/runs/2head", f"{out} {shlex.join(RUN)}")
    text = text.replace("HOST:29500", f"127.0.0.1:{free_port()} --local-addr 127.0.0.1")
    here = commands | {"FAULT": f"{FAULT_AT}:{signal.SIGKILL:d}:{killed}"}
    with ThreadPoolExecutor(2) as machines:
        ended = list(machines.map(lambda _: run(["bash", "-ec", text], here), range(2)))
    said = "".join(one.stderr for one in ended)
    assert [one.returncode for one in ended] == [0, 0], said
    assert killed.exists()
    assert re.findall(r"^step (\d+): \w+ learn until", said, re.M) == ["0", "4"], said
    assert losses(out) == whole


SRUN = """#!/bin/bash
# Starts the tasks as srun does, on a node for each.
export SLURM_JOB_ID=4711 SLURM_JOB_NAME=train SLURM_NODELIST=localhost MASTER_PORT={port}
export SLURM_NNODES=2 SLURM_NTASKS=2 SLURM_NTASKS_PER_NODE=1 SLURM_LOCALID=0
for task in 0 1; do SLURM_PROCID=$task SLURM_NODEID=$task "$@" & tasks+=($!); done
for task in "${{tasks[@]}}"; do wait "$task"; code=$?; ((code > worst)) && worst=$code; done
exit "$worst"
"""


def test_the_job_file_is_queued_again_until_it_is_done(
    tmp_path: Path, commands: dict[str, str], whole: dict[int, float]
) -> None:
    (text,) = blocks("#SBATCH --nodes")
    text = text.replace("/shared/runs/2head", f"{tmp_path / 'run'} {shlex.join(RUN)}")
    for name, program in {
        "job": text,
        "srun": SRUN.format(port=free_port()),
        "scontrol": f'#!/bin/bash\necho "$@" >> {tmp_path / "asked"}\n',
    }.items():
        (tmp_path / name).write_text(program)
        (tmp_path / name).chmod(0o755)
    told = f"{FAULT_AT}:{signal.SIGUSR1:d}:{tmp_path / 'told'}"
    here = {"PATH": f"{tmp_path}{os.pathsep}{commands['PATH']}", "SLURM_JOB_ID": "4711"}
    for times in (1, 2):
        ended = run([str(tmp_path / "job")], commands | here | {"FAULT": told})
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr.count("told to stop after step") == (times == 1), ended.stderr
        assert (tmp_path / "asked").read_text() == "requeue 4711\n"
    assert losses(tmp_path / "run") == whole


def test_processes_that_would_look_for_the_dead_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = {"RUN_ID": "none", "RESTART_COUNT": "1", "USE_AGENT_STORE": "True"}
    for name, value in started.items():
        monkeypatch.setenv(f"TORCHELASTIC_{name}", value)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([*ARGUMENTS, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in said
    assert said.count("\n") == 1, said


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
