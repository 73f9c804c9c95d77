"""Training from shards on disk: the very next batch after an interruption, mixtures, validation."""

import json
from collections.abc import Iterable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from denseav.models import CheckpointError, load
from denseav.models.config import LoraConfig
from denseav.train.data.dataset import DataSettings, Mixing
from denseav.train.data.shards import Clip, save_clips
from denseav.train.data.toy import ToySettings
from denseav.train.distributed.fabric import Machine
from denseav.train.errors import DataError
from denseav.train.loss.mix_and_separate import Separation
from denseav.train.trainer.checkpointer import BEST, LAST, MODEL
from denseav.train.trainer.loop import train
from denseav.train.trainer.settings import Backbones, Intervals, Optimization, Settings
from denseav.train.trainer.tracking.run_log import METRICS
from tests.support.train.made_clips import made_clip
from tests.support.train.parts import NETWORK


def clips(kind: str, count: int) -> Iterable[Clip]:
    return (replace(made_clip(number), kind=kind) for number in range(count))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("sets")
    for kind, count in (("speech", 7), ("sound", 5)):
        save_clips(folder / kind, clips(kind, count))
    data = DataSettings(
        shards=str(folder / "speech"),
        others=str(folder / "sound"),
        batch_size=2,
        workers=0,
        image_size=16,
    )
    return Settings(
        network=NETWORK,
        backbones=Backbones(image="", audio=""),
        data=data,
        validation=replace(data, others=""),
        optimization=Optimization(aligner_steps=2, steps=7, learning_rate=1e-3, warmup_steps=2),
        machine=Machine(accelerator="cpu", precision="32-true", threads=1),
        rhythm=Intervals(log=1, save=2, validate=7),
    )


def run(settings: Settings, folder: Path) -> dict[int, float]:
    train(settings, folder, Console(file=StringIO()))
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    return {line["step"]: line["loss/total"] for line in lines if "loss/total" in line}


def test_in_mid_epoch_it_goes_on_with_the_very_next_batch_and_the_same_chance(
    settings: Settings, tmp_path: Path
) -> None:
    image = replace(NETWORK.image, lora=LoraConfig(rank=2, alpha=4, dropout=0.5))
    audio = replace(NETWORK.audio, layers=3, dropout=0.2, layer_drop=0.5, time_mask=0.2)
    noisy = replace(settings, network=replace(NETWORK, image=image, audio=audio))
    whole = run(noisy, tmp_path / "whole")
    assert list(whole) == [1, 2, 3, 4, 5, 6, 7]  # two epochs of three batches, and one
    for stop in (2, 3, 5):
        folder = tmp_path / f"stop{stop}"
        run(replace(noisy, optimization=replace(settings.optimization, steps=stop)), folder)
        assert run(noisy, folder) == whole, stop


def test_all_of_the_losses_see_their_part(settings: Settings, tmp_path: Path) -> None:
    run(settings, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    terms = [line for line in lines if "skipped" in line]
    assert any(line["loss/splice"] > 0 for line in terms)
    recall = next(line for line in lines if "recall/recall" in line)
    assert 0 <= recall["recall/image_to_audio/1"] <= 100
    assert load(tmp_path / MODEL).config.trained


def test_mix_and_separate_from_two_sets(settings: Settings, tmp_path: Path) -> None:
    assert settings.data is not None
    mixing = replace(settings.data, mixing=Mixing())
    separate = replace(settings, data=mixing, separation=Separation())
    assert all(torch.tensor(list(run(separate, tmp_path).values())).isfinite())
    lines = (tmp_path / METRICS).read_text().splitlines()
    assert "loss/separation_speech" in json.loads(lines[-2])
    one_kind = replace(mixing, others=mixing.shards)
    with pytest.raises(DataError, match="--kind"):
        run(replace(separate, data=one_kind), tmp_path / "one")


def test_other_shards_than_the_checkpoints_are_refused(settings: Settings, tmp_path: Path) -> None:
    run(settings, tmp_path / "run")
    assert settings.data is not None
    other = replace(settings.data, shards=settings.data.others, others="")
    longer = replace(settings.optimization, steps=9)
    with pytest.raises(DataError, match="clips 7, not 5"):
        run(replace(settings, data=other, optimization=longer), tmp_path / "run")
    state = torch.load(tmp_path / "run" / LAST, weights_only=True)
    assert state["progress"]["step"] == 7
    made = ToySettings(things=4, batch_size=2, image_size=16, samples=2960 + 2880)
    with pytest.raises(CheckpointError, match="another kind of data"):
        run(replace(settings, data=None, made=made), tmp_path / "run")


def test_the_best_is_by_the_mean_of_both_validation_sets(
    settings: Settings, tmp_path: Path
) -> None:
    assert settings.data is not None
    both = replace(settings, validation=settings.data)
    run(replace(both, optimization=replace(both.optimization, steps=1)), tmp_path)
    last = json.loads((tmp_path / METRICS).read_text().splitlines()[-1])
    of_each = [last["recall/shards/recall"], last["recall/others/recall"]]
    assert last["recall/recall"] == pytest.approx(sum(of_each) / 2)
    best = torch.load(tmp_path / BEST, weights_only=True)["progress"]["best"]
    assert best == last["recall/recall"]
    drawn = EventAccumulator(str(tmp_path)).Reload().Tags()["images"]
    assert {name.split("/")[0] for name in drawn} == {"shards", "others"}
