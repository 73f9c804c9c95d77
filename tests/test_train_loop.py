"""The loop itself: that it learns, goes on after a kill, and stops when it should."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from train_parts import NETWORK

from denseav.models import CheckpointError, load
from denseav.train import loop
from denseav.train.batches import Batch
from denseav.train.checkpointing import BEST, LAST, MODEL
from denseav.train.cli import main, parse
from denseav.train.debug_data import MadeLoader, MadeSettings
from denseav.train.errors import DiskError, StoppedError
from denseav.train.loop import train
from denseav.train.separate import Separation
from denseav.train.settings import Backbones, Machine, Optimization, Rhythm, Settings
from denseav.train.watch import METRICS

DEBUG = Path(__file__).parents[1] / "configs" / "train" / "debug.yaml"
SMALL = Settings(
    network=NETWORK,
    backbones=Backbones(image="", audio=""),
    made=MadeSettings(things=8, batch_size=4, image_size=16, samples=2960 + 2880),
    optimization=Optimization(aligner_steps=3, steps=8, learning_rate=1e-3, warmup_steps=2),
    machine=Machine(accelerator="cpu", precision="32-true", threads=1),
    rhythm=Rhythm(log=1, save=2, validate=4),
)
ARGUMENTS = (
    "--config", str(DEBUG), "--optimization.steps", "26", "--optimization.aligner_steps", "5",
    "--rhythm.log", "1", "--rhythm.save", "3", "--rhythm.validate", "1000",
)  # fmt: skip


def quiet() -> Console:
    return Console(file=StringIO())


def losses(folder: Path) -> dict[int, float]:
    lines = (folder / METRICS).read_text().splitlines()
    figures = [json.loads(line) for line in lines]
    return {line["step"]: line["loss/total"] for line in figures if "loss/total" in line}


def start(folder: Path, *more: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "denseav.train.cli", *ARGUMENTS, "--out", str(folder), *more]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


class Poisoned(MadeLoader):
    """Made clips, of which some batches are not numbers."""

    bad: range

    def endless(self) -> Iterator[Batch]:
        for number, batch in enumerate(super().endless()):
            nothing = torch.full_like(batch.wave_BS, torch.nan)
            yield replace(batch, wave_BS=nothing) if number in self.bad else batch


def poison(monkeypatch: pytest.MonkeyPatch, bad: range) -> None:
    assert SMALL.made is not None
    loader = Poisoned(SMALL.made, rank=0, world=1, seed=0, mixtures=False)
    loader.bad = bad
    monkeypatch.setattr(loop, "open_loader", lambda settings: loader)


def test_debug_configuration_learns(tmp_path: Path) -> None:
    settings, out = parse(
        ["--config", str(DEBUG), "--out", str(tmp_path), "--optimization.steps", "120"]
    )
    progress = train(settings, out, quiet())
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    first = [line for line in lines if "recall/recall" in line][-1]
    # By chance one of 32 is found at first rank, and one of 6.4 among the first five.
    assert first["recall/image_to_audio/1"] + first["recall/audio_to_image/1"] > 8 * 2 * 100 / 32
    assert first["recall/image_to_audio/5"] > 3 * 500 / 32
    assert progress.skipped == 0
    made = losses(tmp_path)
    assert made[120] < 0.6 * made[10]


def test_kill_and_the_same_command_again_give_the_same_run(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    running = start(whole)
    victim = start(killed)
    assert victim.stderr is not None
    for line in victim.stderr:
        if line.startswith("step 14/"):
            victim.send_signal(signal.SIGKILL)
            break
    victim.wait()
    victim.stderr.close()
    assert max(losses(killed)) < 26
    again = start(killed)
    _, said = again.communicate(timeout=240)
    assert again.returncode == 0, said
    resumed = re.search(r"step (\d+): everything learn", said)
    assert resumed is not None
    assert int(resumed[1]) % 3 == 0
    assert int(resumed[1]) >= 12
    _, said = running.communicate(timeout=240)
    assert running.returncode == 0, said
    assert losses(killed) == losses(whole)
    states = [torch.load(folder / LAST, weights_only=True) for folder in (whole, killed)]
    assert states[0]["learner"].keys() == states[1]["learner"].keys()
    for name, value in states[0]["learner"].items():
        assert torch.equal(value, states[1]["learner"][name]), name


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


def test_best_and_last_are_kept_and_the_best_opens(tmp_path: Path) -> None:
    progress = train(SMALL, make(tmp_path), quiet())
    last = torch.load(tmp_path / LAST, weights_only=True)
    best = torch.load(tmp_path / BEST, weights_only=True)
    assert last["progress"]["step"] == 8
    assert best["progress"]["best"] == progress.best > 0
    model = load(tmp_path / MODEL)
    assert model.config.trained
    for name, value in model.state_dict().items():
        assert torch.equal(value, best["learner"][f"model.{name}"]), name
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("pooling", ["average", "cls", "simpool"])
def test_ablations_learn_too(tmp_path: Path, pooling: Any) -> None:
    network = replace(NETWORK, cls_similarity=pooling == "cls")
    train(replace(SMALL, network=network, pooling=pooling), make(tmp_path), quiet())
    weights = torch.load(tmp_path / LAST, weights_only=True)["learner"]
    assert ("pool.query.weight" in weights) == (pooling == "simpool")
    assert all(value.isfinite().all() for value in weights.values())
    assert load(tmp_path / MODEL).config.cls_similarity == (pooling == "cls")


def test_mixtures_are_heard_once_aligners_are_warm(tmp_path: Path) -> None:
    train(replace(SMALL, separation=Separation()), make(tmp_path), quiet())
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    heard = {line["step"]: "loss/separation_sound" in line for line in lines if "skipped" in line}
    assert heard == {step: step > 3 for step in range(1, 9)}
    assert all("loss/correspondence_speech" in line for line in lines if "skipped" in line)


def test_half_precision_stays_near_the_full(tmp_path: Path) -> None:
    half = replace(SMALL, machine=replace(SMALL.machine, precision="bf16-mixed"))
    train(half, make(tmp_path / "half"), quiet())
    train(SMALL, make(tmp_path / "full"), quiet())
    full = losses(tmp_path / "full")
    assert losses(tmp_path / "half") == pytest.approx(full, rel=0.1)
    assert losses(tmp_path / "half") != full
    weights = torch.load(tmp_path / "half" / LAST, weights_only=True)["learner"]
    assert {value.dtype for value in weights.values()} == {torch.float32}


def test_accumulated_batches_each_count(tmp_path: Path) -> None:
    optimization = replace(SMALL.optimization, accumulate=3)
    train(replace(SMALL, optimization=optimization), make(tmp_path), quiet())
    state = torch.load(tmp_path / LAST, weights_only=True)
    assert state["processes"][0]["loader"] == {"given": 24}


def test_a_step_that_is_not_finite_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, range(2, 5))
    progress = train(SMALL, make(tmp_path), quiet())
    assert (progress.step, progress.skipped, progress.skipped_in_row) == (8, 3, 0)
    weights = torch.load(tmp_path / LAST, weights_only=True)["learner"]
    assert all(value.isfinite().all() for value in weights.values())


def test_ten_such_steps_in_a_row_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, range(5, 99))
    longer = replace(SMALL.optimization, steps=30)
    with pytest.raises(StoppedError, match="10 steps in a row"):
        train(replace(SMALL, optimization=longer), make(tmp_path), quiet())
    state = torch.load(tmp_path / LAST, weights_only=True)
    assert state["progress"]["step"] == 4
    assert all(value.isfinite().all() for value in state["learner"].values())


def test_a_disk_that_is_full_leaves_the_old_checkpoint_whole(tmp_path: Path) -> None:
    train(replace(SMALL, optimization=replace(SMALL.optimization, steps=2)), tmp_path, quiet())
    before = (tmp_path / LAST).read_bytes()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, old[1]))
    try:
        with pytest.raises(DiskError, match="the checkpoint before it is whole"):
            train(SMALL, tmp_path, quiet())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert (tmp_path / LAST).read_bytes() == before
    assert not list(tmp_path.glob(".*.partial"))
    assert train(SMALL, tmp_path, quiet()).step == 8


def test_other_checkpoints_are_refused(tmp_path: Path) -> None:
    train(SMALL, make(tmp_path), quiet())
    other = replace(NETWORK, code_dim=24)
    with pytest.raises(CheckpointError, match="code_dim is 12, not 24"):
        train(replace(SMALL, network=other), tmp_path, quiet())
    whole = (tmp_path / LAST).read_bytes()
    (tmp_path / LAST).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"is damaged .* copy best\.ckpt over it"):
        train(SMALL, tmp_path, quiet())


def test_figures_can_be_watched(tmp_path: Path) -> None:
    shown = StringIO()
    train(SMALL, make(tmp_path), Console(file=shown, width=400))
    line = next(line for line in shown.getvalue().splitlines() if line.startswith("step 5/8"))
    for part in ("contrast", "total_variation", "lr 1.00e-03", "clips/s", "GB", "ETA"):
        assert part in line
    board = EventAccumulator(str(tmp_path)).Reload()
    scalars = {event.step: event.value for event in board.Scalars("loss/total")}
    assert scalars == pytest.approx(losses(tmp_path))
    picture = board.Images("heatmaps")[-1]
    assert picture.step == 8
    assert picture.width * picture.height >= 4 * 3 * 16 * 16


def test_a_line_cut_off_by_a_kill_is_forgotten(tmp_path: Path) -> None:
    train(replace(SMALL, optimization=replace(SMALL.optimization, steps=4)), tmp_path, quiet())
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 5, "loss/total": 1}\n{"step": 6, "lo')
    train(SMALL, tmp_path, quiet())
    assert list(losses(tmp_path)) == list(range(1, 9))


BAD = {
    "--losss.splice 1": "losss.splice",
    "--loss.splice much": "splice",
    "--made.batch_size 64": "lower --made.batch_size",
    "--optimization.steps 0": "at least 1",
    "--network.code_dim 65": "code_dim 65",
    "--pooling cls": "cls_similarity",
    "--network.aggregation.clips mima": "--pooling",
    "--machine.accelerator cuda --machine.devices 99": "99 GPUs",
    "--config nowhere.yaml": "nowhere.yaml",
    "--made null": "--data.shards",
}


@pytest.mark.parametrize("arguments", BAD)
def test_bad_settings_are_one_line_with_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: str
) -> None:
    code = main(["--config", str(DEBUG), "--out", str(tmp_path / "run"), *arguments.split()])
    said = capsys.readouterr().err.strip()
    assert code == 2
    assert BAD[arguments] in said
    assert said.count("\n") == 0, said


def test_two_processes_speak_once_and_go_on(tmp_path: Path) -> None:
    two = ("--machine.devices", "2", "--made.batch_size", "4", "--rhythm.log", "2")
    for steps in ("6", "8"):
        run = start(tmp_path, *two, "--optimization.steps", steps)
        _, said = run.communicate(timeout=240)
        assert run.returncode == 0, said
        assert said.count(f"step {steps}/{steps}  contrast") == 1
    state = torch.load(tmp_path / LAST, weights_only=True)
    assert [own["loader"]["given"] for own in state["processes"]] == [8, 8]
    assert list(losses(tmp_path)) == [2, 4, 6, 8]
    again, _ = parse(["--config", str(tmp_path / "settings.yaml"), "--out", "elsewhere"])
    assert (again.machine.devices, again.optimization.steps) == (2, 8)


def make(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def test_the_command_ends_with_where_the_network_is(tmp_path: Path) -> None:
    run = start(tmp_path, "--optimization.steps", "2", env=os.environ | {"COLUMNS": "200"})
    _, said = run.communicate(timeout=240)
    assert run.returncode == 0, said
    assert f"the network is in {tmp_path / MODEL}" in said.splitlines()[-1]
    assert load(tmp_path / MODEL).config.name == "debug"
