"""A start from clusters: which head a clip begins in, until when, and whatever stops the run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from denseav.models import CheckpointError, DenseAV
from denseav.train.clusters.cluster_start import FILE, By, ClusterGate, ClusterStart, open_gate
from denseav.train.data.toy import ToyLoader
from denseav.train.errors import SettingsError
from denseav.train.loss.mix_and_separate import Separation
from denseav.train.trainer import loaders
from denseav.train.trainer.checkpointer import LAST
from denseav.train.trainer.loaders import open_bank, open_loader
from denseav.train.trainer.loop import train
from tests.support.train.parts import NETWORK
from tests.support.train.runs import SMALL, losses, make, quiet

GATE, END = 3, 5
START = ClusterStart(gate_steps=GATE, bank_clips=64, components=4)
APART = replace(
    SMALL,
    network=replace(NETWORK, heads=("first", "second")),
    cluster_start=START,
    optimization=replace(SMALL.optimization, aligner_steps=1, steps=END),
    rhythm=replace(SMALL.rhythm, validate=100),
)
CPU = torch.device("cpu")


def gate(
    out: Path, by: By = "encoder", heads: int = 2, said: list[str] | None = None, **told: Any
) -> Any:
    assert APART.made is not None
    loader = ToyLoader(APART.made, rank=0, world_size=1, seed=0, mixtures=False)
    torch.manual_seed(7)
    network = DenseAV(APART.network)
    report = (said if said is not None else []).append
    settings = replace(START, by=by, **told)
    return open_gate(settings, network, heads, loader.endless, out, 0, CPU, report)


def heads(made: ClusterGate, step: int, wave_BS: torch.Tensor) -> torch.Tensor:
    assigned = made.assigned(step, wave_BS)
    assert assigned is not None
    return assigned.head_B


def waves() -> torch.Tensor:
    assert APART.made is not None
    made = replace(APART.made, batch_size=8)
    loader = ToyLoader(made, rank=0, world_size=1, seed=4, mixtures=False)
    return torch.cat([next(loader.endless()).wave_BS for _ in range(4)])


@pytest.mark.parametrize(
    ("by", "pictures"),
    [
        ("encoder", False),
        ("encoder", True),
        ("random_encoder", False),
        ("loudness", False),
        ("coin", False),
    ],
)
def test_a_clip_has_its_head_whatever_batch_it_is_in(
    tmp_path: Path, by: By, pictures: bool
) -> None:
    said: list[str] = []
    made: ClusterGate = gate(tmp_path, by, said=said, pictures=pictures)
    wave_BS = waves()
    together = heads(made, 0, wave_BS)
    assert together.dtype == torch.int64
    assert set(together.tolist()) == {0, 1}
    again: ClusterGate = gate(tmp_path, by, said=said, pictures=pictures)  # from the folder
    alone = [heads(again, GATE - 1, wave_S[None]) for wave_S in wave_BS]
    assert torch.equal(torch.cat(alone), together)
    assert len(said) == 1
    by_what = "their audio and what pictures tell of it" if pictures else "their audio"
    assert said[0].startswith(f"clusters of 64 clips by {by_what}: ")


def test_the_gate_opens_and_stays_open(tmp_path: Path) -> None:
    made: ClusterGate = gate(tmp_path)
    wave_BS = waves()[:2]
    assert made.assigned(GATE - 1, wave_BS) is not None
    assert made.assigned(GATE, wave_BS) is None
    assert made.assigned(0, wave_BS) is None


def test_clusters_of_another_run_are_refused(tmp_path: Path) -> None:
    gate(tmp_path, heads=3)
    with pytest.raises(CheckpointError, match="3 clusters for 2 heads"):
        gate(tmp_path)
    (tmp_path / FILE).write_bytes(b"no clusters")
    with pytest.raises(CheckpointError, match="damaged"):
        gate(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make(tmp_path_factory.mktemp("apart") / "whole")
    train(APART, folder, quiet())
    return folder


def test_a_run_goes_on_to_the_digit_before_and_behind_the_gate(whole: Path, tmp_path: Path) -> None:
    for steps in (GATE - 1, GATE + 1, END):
        optimization = replace(APART.optimization, steps=steps)
        train(replace(APART, optimization=optimization), tmp_path, quiet())
    assert losses(tmp_path) == losses(whole)
    states = [torch.load(folder / LAST, weights_only=True) for folder in (whole, tmp_path)]
    for name, weight in states[0]["learner"].items():
        assert torch.equal(weight, states[1]["learner"][name]), name


def test_only_the_gated_steps_differ_from_the_papers_objective(whole: Path, tmp_path: Path) -> None:
    runs = {
        "none": replace(APART, cluster_start=None),
        "zero": replace(APART, cluster_start=replace(START, gate_steps=0)),
    }
    for name, settings in runs.items():
        settings = replace(settings, optimization=replace(APART.optimization, steps=2))
        train(settings, make(tmp_path / name), quiet())
    assert losses(tmp_path / "none") == losses(tmp_path / "zero")
    assert not (tmp_path / "zero" / FILE).exists()
    assert losses(whole)[1] != losses(tmp_path / "none")[1]


def test_many_processes_have_the_bank_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SMALL.made is not None
    alone = open_bank(APART).endless()
    monkeypatch.setattr(loaders, "rank", lambda: 1)
    monkeypatch.setattr(loaders, "world_size", lambda: 2)
    half = replace(APART, made=replace(SMALL.made, batch_size=SMALL.made.batch_size // 2))
    together, own = open_bank(half).endless(), open_loader(half).endless()
    for _ in range(3):
        wave_BS = next(alone).wave_BS
        assert torch.equal(next(together).wave_BS, wave_BS)
        assert len(next(own)) == len(wave_BS) // 2


def test_what_does_not_go_with_it_is_said() -> None:
    with pytest.raises(SettingsError, match=r"--network.heads '\[first, second\]'"):
        replace(APART, network=NETWORK)
    with pytest.raises(SettingsError, match="set pictures to false"):
        replace(START, by="coin", pictures=True)
    with pytest.raises(SettingsError, match="at most 12, not 13"):
        replace(START, components=13, pictures=True)
    with pytest.raises(SettingsError, match="leave separation"):
        replace(APART, separation=Separation())
    assert SMALL.made is not None
    with pytest.raises(SettingsError, match="batch_size to 2 or more"):
        replace(
            APART,
            cluster_start=replace(START, mixtures=True),
            made=replace(SMALL.made, batch_size=1),
        )
    with pytest.raises(SettingsError, match=r"or loss\.wrong_head to 0"):
        replace(APART, loss=replace(APART.loss, wrong_head=0.1))
    with pytest.raises(SettingsError, match="--pooling dense"):
        replace(APART, pooling="average")
    with pytest.raises(SettingsError, match="gate_steps"):
        ClusterStart(gate_steps=-1)
    with pytest.raises(SettingsError, match="mixtures to false"):
        ClusterStart(gate_steps=0, mixtures=True)
    with pytest.raises(SettingsError, match="bank_clips"):
        ClusterStart(bank_clips=2)
