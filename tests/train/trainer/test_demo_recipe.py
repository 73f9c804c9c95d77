"""The demonstration's whole recipe on the world, far smaller: everything it does, in seconds."""

import ctypes.util
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from denseav.models import load
from denseav.train.loss.denseav_loss import Weights
from denseav.train.loss.mix_and_separate import Separation
from denseav.train.trainer.checkpointer import LAST, MODEL
from denseav.train.trainer.loop import train
from denseav.train.trainer.settings import (
    Backbones,
    Intervals,
    Machine,
    Optimization,
    Pretraining,
    Settings,
)
from denseav.train.trainer.tracking.run_log import METRICS
from denseav.train.world.loader import WorldSettings
from tests.support.train.runs import quiet
from tests.train.trainer.test_pretrain import NETWORK

pytestmark = pytest.mark.skipif(
    ctypes.util.find_library("espeak-ng") is None, reason="espeak-ng is not installed"
)
ALONE, MIXED, END = 2, 3, 6
RECIPE = Settings(
    network=NETWORK,
    backbones=Backbones(image="", audio=""),
    pretraining=Pretraining(
        steps=4, batch_size=2, image_steps=4, image_batch_size=4, clusters=4, clustered=2
    ),
    world=WorldSettings(
        batch_size=4, image_size=64, single_batches=2, told=True, validation_clips=8
    ),
    separation=Separation(own_head=True),
    loss=Weights(wrong_head=0.5),
    optimization=Optimization(
        aligner_steps=ALONE,
        steps=END,
        learning_rate=1e-3,
        warmup_steps=1,
        contrast_steps=MIXED,
        ramp_steps=2,
        learn_stem=False,
    ),
    machine=Machine(accelerator="cpu", devices=1, precision="32-true"),
    rhythm=Intervals(log=1, save=1, validate=3),
)


def run(settings: Settings, folder: Path, steps: int) -> None:
    optimization = replace(settings.optimization, steps=steps)
    train(replace(settings, optimization=optimization), folder, quiet())


def terms(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    return [line for line in lines if "loss/total" in line]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    run(RECIPE, folder, END)
    return folder


def test_the_recipe_goes_from_pretraining_to_a_network(whole: Path) -> None:
    assert (whole / "pretrained_audio").is_dir()
    assert (whole / "pretrained_image").is_dir()
    steps = terms(whole)
    assert [line["step"] for line in steps] == [*range(1, END + 1)]
    assert all(math.isfinite(value) for line in steps for value in line.values())
    assert load(whole / MODEL).config.trained


def test_mixtures_and_regularisers_come_in_their_turn(whole: Path) -> None:
    for line in terms(whole):
        assert ("loss/separation_sound" in line) == (line["step"] > MIXED), line


def test_it_goes_on_in_the_world_where_it_was_left(whole: Path, tmp_path: Path) -> None:
    for steps in (ALONE + 2, END):
        run(RECIPE, tmp_path, steps)
    assert terms(tmp_path)[-1]["loss/total"] == terms(whole)[-1]["loss/total"]
    one, same = (
        torch.load(folder / LAST, weights_only=True)["learner"] for folder in (whole, tmp_path)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)


def test_nothing_is_told_where_kinds_are_not(tmp_path: Path) -> None:
    untold = replace(
        RECIPE,
        world=replace(RECIPE.world, told=False, validation_clips=16),
        separation=None,
        loss=Weights(),
        pretraining=None,
    )
    run(untold, tmp_path, 2)
    assert not any("sound" in name or "speech" in name for line in terms(tmp_path) for name in line)
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    measured = [line for line in lines if "recall/recall" in line]
    assert all(0 <= line[name] <= 100 for line in measured for name in ("PredDis", "ActDis"))
    assert len(measured) == 1
