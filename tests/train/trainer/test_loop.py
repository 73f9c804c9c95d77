"""The loop itself: that it learns, keeps the best, and stops when it should."""

import json
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from denseav.models import DenseAV, load, save
from denseav.train.cli.train import main, parse
from denseav.train.data.batch import Batch
from denseav.train.data.toy import ToyLoader
from denseav.train.errors import StoppedError
from denseav.train.loss.mix_and_separate import Separation
from denseav.train.trainer import loop
from denseav.train.trainer.checkpointer import BEST, LAST, MODEL
from denseav.train.trainer.loop import train
from denseav.train.trainer.tracking import run_log
from denseav.train.trainer.tracking.run_log import METRICS, RunLog
from tests.support.train.parts import NETWORK
from tests.support.train.runs import ARGUMENTS, DEBUG, SMALL, losses, make, quiet


class Poisoned(ToyLoader):
    """Made clips, of which some batches are not numbers."""

    bad: range

    def endless(self) -> Iterator[Batch]:
        for number, batch in enumerate(super().endless()):
            nothing = torch.full_like(batch.wave_BS, torch.nan)
            yield replace(batch, wave_BS=nothing) if number in self.bad else batch


def poison(monkeypatch: pytest.MonkeyPatch, bad: range) -> None:
    assert SMALL.made is not None
    loader = Poisoned(SMALL.made, rank=0, world_size=1, seed=0, mixtures=False)
    loader.bad = bad
    monkeypatch.setattr(loop, "open_loader", lambda settings: loader)


def test_debug_configuration_learns(tmp_path: Path) -> None:
    settings, out = parse(
        ["--config", str(DEBUG), "--out", str(tmp_path), "--optimization.steps", "100"]
    )
    progress = train(settings, out, quiet())
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    first = [line for line in lines if "recall/recall" in line][-1]
    # By chance one of 32 is found at first rank, and one of 6.4 among the first five.
    assert first["recall/image_to_audio/1"] + first["recall/audio_to_image/1"] > 8 * 2 * 100 / 32
    assert first["recall/image_to_audio/5"] > 3 * 500 / 32
    assert progress.skipped == 0
    made = losses(tmp_path)
    assert made[100] < 0.6 * made[10]


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


def test_a_run_begins_with_a_trained_network(tmp_path: Path) -> None:
    torch.manual_seed(5)
    trained = DenseAV(NETWORK)
    save(trained, tmp_path / "trained")
    still = replace(SMALL.optimization, aligner_steps=8, learning_rate=1e-12)
    settings = replace(SMALL, initial=str(tmp_path / "trained"), optimization=still)
    train(settings, make(tmp_path / "run"), quiet())
    after = load(tmp_path / "run" / MODEL).state_dict()
    for name, weight in trained.state_dict().items():
        torch.testing.assert_close(after[name], weight, msg=name)


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
    text = (tmp_path / METRICS).read_text()
    assert "NaN" not in text  # which is no JSON
    assert [step for step, loss in losses(tmp_path).items() if loss is None] == [3, 4, 5]


def test_what_is_measured_in_a_skipped_step_is_not_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, range(3, 4))
    found = iter((50.0, 40.0))
    monkeypatch.setattr(loop, "recalls", lambda *_: {"recall": next(found)})
    assert train(SMALL, make(tmp_path), quiet()).best == 40.0
    best = torch.load(tmp_path / BEST, weights_only=True)
    assert (best["progress"]["step"], best["progress"]["best"]) == (8, 40.0)


def test_a_run_whose_last_step_is_skipped_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, range(7, 8))
    short = replace(SMALL, rhythm=replace(SMALL.rhythm, validate=100))
    assert train(short, make(tmp_path), quiet()).skipped_in_row == 1
    last = torch.load(tmp_path / LAST, weights_only=True)
    assert last["progress"]["step"] == 8
    model = load(tmp_path / MODEL)
    for name, value in model.state_dict().items():
        assert torch.equal(value, last["learner"][f"model.{name}"]), name
        assert value.isfinite().all(), name


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


def test_figures_can_be_watched(tmp_path: Path) -> None:
    shown = StringIO()
    train(SMALL, make(tmp_path), Console(file=shown, width=400))
    assert shown.getvalue().startswith("1 process on the CPU, 32-true\n")
    line = next(line for line in shown.getvalue().splitlines() if line.startswith("step 5/8"))
    for part in ("contrast", "total_variation", "lr 1.00e-03", "norm", "clips/s", "waiting", "GB"):
        assert part in line
    events = EventAccumulator(str(tmp_path)).Reload()
    scalars = {event.step: event.value for event in events.Scalars("loss/total")}
    assert scalars == pytest.approx(losses(tmp_path))
    assert all(event.value > 0 for event in events.Scalars("gradient_norm"))
    picture = events.Images("heatmaps")[-1]
    assert picture.step == 8
    assert picture.width * picture.height >= 4 * 3 * 16 * 16


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU")
def test_how_busy_a_gpu_is_can_be_watched(tmp_path: Path) -> None:
    train(replace(SMALL, machine=replace(SMALL.machine, accelerator="cuda")), tmp_path, quiet())
    figures = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    busy = [line["gpu_percent"] for line in figures if "loss/total" in line]
    assert len(busy) == 8
    assert all(0 <= percent <= 100 for percent in busy)


def test_speed_is_that_of_training_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter((0.0, 10.0, 100.0, 104.0))  # the start, around validation, the line
    monkeypatch.setattr(run_log.time, "monotonic", lambda: next(now))
    with RunLog(tmp_path, SMALL, 0, quiet()) as log:
        log.count_step(28, waited_s=7.0)
        with log.paused():
            pass
        log.record_step(step=4, terms={}, rate=1e-3, norm=2.0, skipped=0)
    figures = json.loads((tmp_path / METRICS).read_text())
    assert figures["clips_per_s"] == pytest.approx(28 / 14)
    assert figures["waiting_percent"] == pytest.approx(50)


def test_the_command_ends_with_where_the_network_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main([*ARGUMENTS, "--out", str(tmp_path), "--optimization.steps", "2"]) == 0
    said = capsys.readouterr().err
    assert f"the network is in {tmp_path / MODEL}" in said.splitlines()[-1]
    assert load(tmp_path / MODEL).config.name == "debug"
