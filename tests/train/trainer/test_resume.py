"""What a run survives: kills and other settings; and then goes on as if nothing was."""

import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from denseav.models import CheckpointError
from denseav.train.cli.train import main, parse
from denseav.train.data.shards import save_clips
from denseav.train.errors import PreemptedError
from denseav.train.trainer import loop
from denseav.train.trainer.checkpointer import BEST, LAST
from denseav.train.trainer.loop import train
from denseav.train.trainer.optimizer import learning_rate
from denseav.train.trainer.tracking.run_log import METRICS, RunLog
from tests.support.train.made_clips import made_clip
from tests.support.train.parts import NETWORK
from tests.support.train.runs import ARGUMENTS, SMALL, losses, make, quiet, start
from tests.support.train.tasks import run_tasks


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    save_clips(folder, (made_clip(number) for number in range(9)))
    return folder


@pytest.mark.parametrize("source", ["made", "shards"])
def test_kill_and_the_same_command_again_give_the_same_run(
    tmp_path: Path, shards: Path, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    own = (
        "--made", "null", "--data.shards", str(shards), "--data.image_size", "32",
        "--data.batch_size", "2", "--data.workers", "1",
    ) if source == "shards" else ()  # fmt: skip
    victim = start(killed, *own)
    assert victim.stderr is not None
    loading: list[psutil.Process] = []
    for line in victim.stderr:
        if line.startswith("step 14/"):
            loading = psutil.Process(victim.pid).children(recursive=True)
            victim.send_signal(signal.SIGKILL)
            break
    victim.wait()
    victim.stderr.close()
    assert bool(loading) == (source == "shards")
    assert not psutil.wait_procs(loading, timeout=20)[1]
    assert max(losses(killed)) < 26
    assert main([*ARGUMENTS, "--out", str(killed), *own]) == 0
    resumed = re.search(r"step (\d+): everything learn", capsys.readouterr().err)
    assert resumed is not None
    assert int(resumed[1]) % 3 == 0
    assert int(resumed[1]) >= 12
    assert main([*ARGUMENTS, "--out", str(whole), *own]) == 0
    assert losses(killed) == losses(whole)
    states = [torch.load(folder / LAST, weights_only=True) for folder in (whole, killed)]
    assert states[0]["learner"].keys() == states[1]["learner"].keys()
    for name, value in states[0]["learner"].items():
        assert torch.equal(value, states[1]["learner"][name]), name


TWO = ("--machine.devices", "2", "--made.batch_size", "4", "--rhythm.save", "1000")


def test_two_processes_that_are_told_to_stop_go_on_as_if_nothing_was(tmp_path: Path) -> None:
    """The signal comes to the whole group, the second process included."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run = start(stopped, *TWO, start_new_session=True)
    assert run.stderr is not None
    for line in run.stderr:
        if line.startswith("step 9/"):
            os.killpg(run.pid, signal.SIGTERM)
            break
    said = run.stderr.read()
    run.stderr.close()
    assert run.wait(timeout=60) == 75, said
    assert said.count("told to stop after step") == 1, said
    assert "Traceback" not in said
    step = torch.load(stopped / LAST, weights_only=True)["progress"]["step"]
    assert 9 <= step < 26
    for folder in (stopped, whole):
        ended = run_tasks(*ARGUMENTS, "--out", str(folder), *TWO)
        said = "".join(one.said for one in ended)
        assert [one.code for one in ended] == [0, 0], said
        assert said.count("step 26/26  contrast") == 1
        assert "Warning" not in said
    assert losses(stopped) == losses(whole)
    assert list(losses(stopped)) == list(range(1, 27))
    for folder in (whole, stopped):
        state = torch.load(folder / LAST, weights_only=True)
        assert [own["loader"]["given"] for own in state["processes"]] == [26, 26]
    again, _ = parse(["--config", str(stopped / "settings.yaml"), "--out", "elsewhere"])
    assert (again.machine.devices, again.optimization.steps) == (2, 26)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_run_that_is_told_to_stop_saves_and_goes_on_as_if_nothing_was(
    tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = RunLog.record_step

    def record_and_stop(self: RunLog, *, step: int, **figures: Any) -> None:
        record(self, step=step, **figures)
        if step == 3:
            signal.raise_signal(number)

    settings = replace(SMALL, rhythm=replace(SMALL.rhythm, save=1000))
    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "record_step", record_and_stop)
        with pytest.raises(PreemptedError, match="told to stop after step 3"):
            train(settings, make(tmp_path / "stopped"), quiet())
    assert torch.load(tmp_path / "stopped" / LAST, weights_only=True)["progress"]["step"] == 3
    for folder in ("stopped", "whole"):
        train(settings, make(tmp_path / folder), quiet())
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")


def test_workers_that_load_outlive_a_signal_to_all(tmp_path: Path, shards: Path) -> None:
    own = (
        "--made", "null", "--data.shards", str(shards), "--data.image_size", "32",
        "--data.batch_size", "2", "--data.workers", "1",
    )  # fmt: skip
    run = start(tmp_path, *own, start_new_session=True)
    assert run.stderr is not None
    for line in run.stderr:
        if line.startswith("step 6/"):
            os.killpg(run.pid, signal.SIGTERM)
            break
    said = run.stderr.read()
    run.stderr.close()
    assert run.wait(timeout=60) == 75, said
    assert "Traceback" not in said


@pytest.mark.parametrize(("restart", "steps"), [(True, 5.0), (False, 8.0)])
def test_the_second_stage_begins_anew_as_released(
    tmp_path: Path, restart: bool, steps: float
) -> None:
    optimization = replace(SMALL.optimization, restart=restart)
    train(replace(SMALL, optimization=optimization), make(tmp_path), quiet())
    averages = torch.load(tmp_path / LAST, weights_only=True)["optimizer"]["state"]
    assert max(float(state["step"]) for state in averages.values()) == steps
    rates = [learning_rate(optimization, step) for step in range(8)]
    assert rates[2:5] == ([1e-3, 5e-4, 1e-3] if restart else [1e-3] * 3)


def test_a_checkpoint_every_so_often_is_kept(tmp_path: Path) -> None:
    train(replace(SMALL, rhythm=replace(SMALL.rhythm, keep=3)), make(tmp_path), quiet())
    kept = sorted(path.name for path in tmp_path.glob("step-*"))
    assert kept == ["step-00000003.ckpt", "step-00000006.ckpt"]
    for step, name in zip((3, 6), kept, strict=True):
        assert torch.load(tmp_path / name, weights_only=True)["progress"]["step"] == step


def test_the_best_stays_where_no_recall_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = replace(SMALL, optimization=replace(SMALL.optimization, steps=4))
    assert train(short, make(tmp_path), quiet()).measured
    before = (tmp_path / BEST).read_bytes()
    monkeypatch.setattr(loop, "held_out", lambda _: {})
    train(SMALL, tmp_path, quiet())
    assert (tmp_path / BEST).read_bytes() == before
    assert not train(SMALL, make(tmp_path / "blind"), quiet()).measured
    best = torch.load(tmp_path / "blind" / BEST, weights_only=True)
    assert best["progress"]["step"] == 8


def test_a_run_ends_once_nothing_better_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter((30.0, 50.0, 40.0, 50.0, 60.0, 55.0))
    monkeypatch.setattr(loop, "recalls", lambda _: {"recall": next(found)})
    settings = replace(SMALL, rhythm=replace(SMALL.rhythm, validate=1, patience=2))
    progress = train(settings, make(tmp_path), quiet())
    assert (progress.step, progress.best, progress.stale) == (4, 50.0, 2)
    assert torch.load(tmp_path / BEST, weights_only=True)["progress"]["step"] == 2
    assert train(settings, tmp_path, quiet()).step == 4  # and stays ended
    rhythm = replace(settings.rhythm, validate=5, patience=3, model="last")
    longer = replace(settings, rhythm=rhythm)
    assert train(longer, tmp_path, quiet()).best == 60.0
    assert torch.load(tmp_path / BEST, weights_only=True)["progress"]["step"] == 8


def test_a_kill_in_the_first_stage_or_at_its_end_changes_nothing(tmp_path: Path) -> None:
    train(SMALL, make(tmp_path / "whole"), quiet())
    for stop in (2, 3, 6):
        folder = make(tmp_path / f"stop{stop}")
        short = replace(SMALL.optimization, steps=stop)
        train(replace(SMALL, optimization=short), folder, quiet())
        train(SMALL, folder, quiet())
        assert losses(folder) == losses(tmp_path / "whole"), stop


def test_what_chance_leaves_out_is_the_same_after_a_kill(tmp_path: Path) -> None:
    audio = replace(NETWORK.audio, layers=3, dropout=0.2, layer_drop=0.5, time_mask=0.2)
    noisy = replace(SMALL, network=replace(NETWORK, audio=audio))
    short = replace(noisy, optimization=replace(SMALL.optimization, steps=4))
    for settings, folder in ((noisy, "whole"), (short, "killed"), (noisy, "killed")):
        train(settings, make(tmp_path / folder), quiet())
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    train(SMALL, make(tmp_path / "plain"), quiet())
    assert losses(tmp_path / "plain") != losses(tmp_path / "whole")


def test_the_gradient_scaler_goes_on_where_it_was(tmp_path: Path) -> None:
    half = replace(SMALL, machine=replace(SMALL.machine, precision="16-mixed"))
    short = replace(half, optimization=replace(SMALL.optimization, steps=4))
    train(half, make(tmp_path / "whole"), quiet())
    train(short, make(tmp_path / "killed"), quiet())
    path = tmp_path / "killed" / LAST
    state = torch.load(path, weights_only=True)
    before = state["progress"]["skipped"]
    assert state["scaler"]["scale"] == 2.0 ** (16 - before)
    state["scaler"]["scale"] = 2.0**18  # too much: the next steps overflow
    torch.save(state, path)
    more = train(half, tmp_path / "killed", quiet()).skipped - before
    assert more > 0
    assert torch.load(path, weights_only=True)["scaler"]["scale"] == 2.0 ** (18 - more)
    train(short, make(tmp_path / "again"), quiet())
    train(half, make(tmp_path / "again"), quiet())
    assert losses(tmp_path / "again") == losses(tmp_path / "whole")
    assert losses(tmp_path / "again") != losses(tmp_path / "killed")


def test_other_checkpoints_are_refused(tmp_path: Path) -> None:
    train(SMALL, make(tmp_path), quiet())
    other = replace(NETWORK, code_dim=24)
    with pytest.raises(CheckpointError, match="code_dim is 12, not 24"):
        train(replace(SMALL, network=other), tmp_path, quiet())
    whole = (tmp_path / LAST).read_bytes()
    (tmp_path / LAST).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"is damaged .* copy best\.ckpt over it"):
        train(SMALL, tmp_path, quiet())


def test_a_line_cut_off_by_a_kill_is_forgotten(tmp_path: Path) -> None:
    train(replace(SMALL, optimization=replace(SMALL.optimization, steps=4)), tmp_path, quiet())
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 5, "loss/total": 1}\n{"step": 6, "lo')
    train(SMALL, tmp_path, quiet())
    assert list(losses(tmp_path)) == list(range(1, 9))
