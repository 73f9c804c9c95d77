"""How weights move: groups and their rates, fused steps, and the average beside them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from denseav.models import CheckpointError, load
from denseav.train.errors import SettingsError
from denseav.train.loss.learner import Learner
from denseav.train.trainer import loop
from denseav.train.trainer.checkpointer import LAST, MODEL
from denseav.train.trainer.loop import train
from denseav.train.trainer.optimizer import new_optimizer, set_rates
from denseav.train.trainer.settings import Averaging, GroupRates, Settings
from denseav.train.trainer.stages import grouped
from denseav.train.trainer.validation import Encoded, encode_clips
from denseav.train.trainer.weight_average import WeightAverage
from tests.support.train.parts import learner, with_lora
from tests.support.train.runs import SMALL, losses, make, quiet


def changed(**optimization: object) -> Settings:
    return replace(SMALL, optimization=replace(SMALL.optimization, **optimization))  # type: ignore[arg-type]


AVERAGED = changed(average=Averaging(decay=0.6))


def test_each_weight_that_ever_learns_is_in_its_group_once() -> None:
    made = learner(with_lora())
    optimizer = new_optimizer(SMALL, made)
    found = {
        id(parameter): group["name"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert found == {id(p): group for group, p in grouped(made) if group != "frozen"}


def test_groups_have_their_part_of_the_rate() -> None:
    optimizer = new_optimizer(SMALL, learner())
    rates = GroupRates(aligners=2.0, audio=0.5, image=0.0)
    optimization = replace(SMALL.optimization, rates=rates)
    assert set_rates(optimizer, optimization, 2) == pytest.approx(1e-3)
    assert {group["name"]: group["lr"] for group in optimizer.param_groups} == pytest.approx(
        {"aligners": 2e-3, "audio_aligner": 2e-3, "audio": 5e-4, "stem": 5e-4, "image": 0.0}
    )
    with pytest.raises(SettingsError, match="below 0"):
        GroupRates(image=-1.0)


def test_a_group_without_a_rate_stays_as_it_is(tmp_path: Path) -> None:
    train(changed(rates=GroupRates(image=0.0)), make(tmp_path / "still"), quiet())
    train(changed(steps=1), make(tmp_path / "first"), quiet())
    still, first = (
        torch.load(tmp_path / name / LAST, weights_only=True)["learner"]
        for name in ("still", "first")
    )
    for name in still:
        if name.startswith("model.image_encoder."):
            assert torch.equal(still[name], first[name]), name
    assert not torch.equal(still["model.audio_cls"], first["model.audio_cls"])


def test_muon_moves_the_matrices_of_encoders_and_adam_all_else() -> None:
    made, alone = learner(), learner()
    settings = changed(muon=True, fused=False)
    both = new_optimizer(settings, made)
    learning = [(group, p) for group, p in grouped(alone) if group != "frozen"]
    matrices = [p for group, p in learning if group in ("image", "audio") and p.ndim == 2]
    rest = [p for _, p in learning if not any(p is matrix for matrix in matrices)]
    assert len(matrices) > 10
    assert len(rest) > 10
    oracles = (
        torch.optim.Muon(matrices, weight_decay=0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.Adam(rest, eps=settings.optimization.epsilon),
    )
    for step in range(3):
        rate = set_rates(both, settings.optimization, step)
        for oracle in oracles:
            oracle.param_groups[0]["lr"] = rate
        for seed, network in ((step, made), (step, alone)):
            generator = torch.Generator().manual_seed(seed)
            for p in network.parameters():
                p.grad = torch.randn(p.shape, generator=generator)
        for optimizer in (both, *oracles):
            optimizer.step()
    for one, other in zip(made.parameters(), alone.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_resumed_run_with_muon_is_the_uninterrupted_one(tmp_path: Path) -> None:
    whole, first = changed(muon=True), changed(muon=True, steps=5)
    train(whole, make(tmp_path / "whole"), quiet())
    for settings in (first, whole):
        train(settings, make(tmp_path / "resumed"), quiet())
    assert losses(tmp_path / "resumed") == losses(tmp_path / "whole")
    with pytest.raises(CheckpointError, match="other groups of weights"):
        train(SMALL, tmp_path / "whole", quiet())
    with pytest.raises(SettingsError, match=r"optimization\.muon"):
        replace(whole, machine=replace(whole.machine, strategy="fsdp"))


def test_a_fused_step_is_the_plain_one(tmp_path: Path) -> None:
    train(SMALL, make(tmp_path / "fused"), quiet())
    train(changed(fused=False), make(tmp_path / "plain"), quiet())
    plain = losses(tmp_path / "plain")
    assert losses(tmp_path / "fused") == pytest.approx(plain, rel=1e-4)
    scaled = replace(SMALL, machine=replace(SMALL.machine, precision="16-mixed"))
    assert new_optimizer(SMALL, learner()).defaults["fused"]
    assert not new_optimizer(scaled, learner()).defaults["fused"]


def test_the_average_is_the_weights_weighted_by_age() -> None:
    made = learner()
    average = WeightAverage(made, Averaging(decay=0.6))
    name, weight = next(iter(average._learning.items()))
    values = [weight.detach().clone()]
    expected = values[0].double()
    for number in range(1, 30):
        with torch.no_grad():
            weight.add_(torch.randn_like(weight))
        average.update()
        decay = min(0.6, number / (number + 9))
        expected = decay * expected + (1 - decay) * weight.detach().double()
    last = weight.detach().clone()
    with average.applied():
        torch.testing.assert_close(weight.detach().double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(weight, last), name


def test_the_average_is_what_is_measured_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []

    def encode(of: Learner, *others: Any) -> Encoded:
        measured.append(of.model.audio_cls.detach().clone())
        return encode_clips(of, *others)

    monkeypatch.setattr(loop, "encode_clips", encode)
    monkeypatch.setattr(loop, "recalls", lambda _: {"recall": 1.0 + len(measured)})
    train(AVERAGED, make(tmp_path / "average"), quiet())
    apart = changed(average=Averaging(decay=0.6, evaluate=False))
    train(apart, make(tmp_path / "apart"), quiet())
    train(SMALL, make(tmp_path / "without"), quiet())
    states = {
        name: torch.load(tmp_path / name / LAST, weights_only=True)
        for name in ("average", "apart", "without")
    }
    average = states["average"]["average"]["weights"]["model.audio_cls"]
    weights = states["without"]["learner"]["model.audio_cls"]
    assert not torch.equal(average, weights)
    for name, expected in (("average", average), ("apart", weights), ("without", weights)):
        assert torch.equal(load(tmp_path / name / MODEL).state_dict()["audio_cls"], expected)
        assert torch.equal(states[name]["learner"]["model.audio_cls"], weights)
    assert [torch.equal(found, average) for found in measured[1::2]] == [True, False, False]
    assert "average" not in states["without"]
    assert torch.equal(states["apart"]["average"]["weights"]["model.audio_cls"], average)


def test_a_resumed_average_is_the_uninterrupted_one(tmp_path: Path) -> None:
    train(AVERAGED, make(tmp_path / "whole"), quiet())
    for steps in (5, 8):
        optimization = replace(AVERAGED.optimization, steps=steps)
        train(replace(AVERAGED, optimization=optimization), make(tmp_path / "resumed"), quiet())
    whole, resumed = (
        torch.load(tmp_path / name / LAST, weights_only=True)["average"]
        for name in ("whole", "resumed")
    )
    assert whole["updates"] == resumed["updates"] == 8
    for name, weight in whole["weights"].items():
        assert torch.equal(weight, resumed["weights"][name]), name


def test_settings_that_change_between_runs_count(tmp_path: Path) -> None:
    train(changed(steps=4), make(tmp_path), quiet())
    train(changed(epsilon=1e-3, average=Averaging(decay=0.6)), tmp_path, quiet())
    state = torch.load(tmp_path / LAST, weights_only=True)
    assert {group["eps"] for group in state["optimizer"]["param_groups"]} == {1e-3}
    assert state["average"]["updates"] == 4
    del state["optimizer"]["param_groups"][0]
    torch.save(state, tmp_path / LAST)
    with pytest.raises(CheckpointError, match="other groups of weights"):
        train(SMALL, tmp_path, quiet())
