"""Which weights learn in which stage, and where the encoders' first ones come from."""

import dataclasses
from pathlib import Path

import pytest
import torch
from transformers import HubertForCTC

from denseav.models import CheckpointError, DenseAV, ModelConfig, save
from denseav.train.loss.denseav_loss import Weights, denseav_terms
from denseav.train.trainer.backbones import new_network
from denseav.train.trainer.settings import Backbones, Optimization
from denseav.train.trainer.stages import Stage, group_of, grouped, set_learning, stages
from tests.support.train.parts import NETWORK, batch, learner, with_lora

ALIGNERS, EVERYTHING = stages(Optimization(aligner_steps=3, steps=8))
WITHOUT_STEM = stages(Optimization(learn_stem=False))[1]
NETWORKS = {"lora": with_lora(), "whole": NETWORK}


def moved_groups(config: ModelConfig, stage: Stage) -> dict[str, list[bool]]:
    """Return, of each group, whether each of its weights has a gradient that is not zero."""
    made = learner(config)
    set_learning(made, stage)
    terms = denseav_terms(made, batch(6), config.heads, Weights(), torch.Generator())
    Weights().total(terms).backward()
    found: dict[str, list[bool]] = {}
    for group, parameter in grouped(made):
        moved = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        found.setdefault(group, []).append(moved)
    return found


def test_stages_follow_each_other() -> None:
    assert (ALIGNERS.end, EVERYTHING.end) == (3, 8)
    assert [stage.end for stage in stages(Optimization(aligner_steps=9, steps=8))] == [8, 8]
    assert EVERYTHING.learning - WITHOUT_STEM.learning == {"stem"}
    of_sound = stages(Optimization(), sound_alone=True)[1].learning
    assert EVERYTHING.learning - of_sound == {"aligners", "image"}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    "stage", [ALIGNERS, EVERYTHING, WITHOUT_STEM], ids=["aligners", "everything", "no_stem"]
)
def test_gradient_goes_exactly_where_it_should(network: str, stage: Stage) -> None:
    moved = moved_groups(NETWORKS[network], stage)
    assert moved.keys() == {"aligners", "audio_aligner", "stem", "audio", "image", "frozen"}
    for group, weights in moved.items():
        if group in stage.learning:
            # All but attention keys' biases, which no softmax sees.
            assert sum(weights) >= 0.9 * len(weights), group
        else:
            assert not any(weights), group


def test_groups_by_name() -> None:
    lora = with_lora()
    made = learner(lora)
    groups = {name: group_of(name, lora) for name, _ in made.named_parameters()}
    by_group = {
        group: {n for n, g in groups.items() if g == group} for group in set(groups.values())
    }
    assert by_group["image"] == {name for name in groups if "lora_" in name}
    assert len(by_group["image"]) == 6
    assert "model.calibrator.log_scale" in by_group["aligners"]
    assert "model.audio_cls" in by_group["audio_aligner"]
    hubert = {name for name in groups if name.startswith("model.audio_encoder.")}
    unused = {"model.audio_encoder.hubert.masked_spec_embed"}
    assert by_group["stem"] == {name for name in hubert if ".conv_layers." in name}
    assert by_group["audio"] == hubert - unused - by_group["stem"]
    for name in by_group["frozen"]:
        assert "image_encoder" in name or "cls_projection" in name or name in unused


def test_a_calibrators_bias_never_learns() -> None:
    biased = dataclasses.replace(NETWORK, calibrator_bias=True)
    assert group_of("model.calibrator.bias", biased) == "frozen"
    assert moved_groups(biased, EVERYTHING)["frozen"].count(True) == 0


def test_what_stops_learning_has_no_gradient_left() -> None:
    made = learner()
    set_learning(made, EVERYTHING)
    for parameter in made.parameters():
        parameter.grad = torch.ones_like(parameter)
    set_learning(made, ALIGNERS)
    for group, parameter in grouped(made):
        assert (parameter.grad is not None) == (group in ALIGNERS.learning)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Backbones:
    """Both backbones of the tiny network, as transformers writes them."""
    folder = tmp_path_factory.mktemp("backbones")
    model = learner().model
    model.image_encoder.vit.save_pretrained(folder / "dino")
    model.audio_encoder.hubert.save_pretrained(folder / "hubert")
    return Backbones(image=str(folder / "dino"), audio=str(folder / "hubert"))


@pytest.mark.parametrize("network", NETWORKS)
def test_backbones_are_adopted_from_a_folder(saved: Backbones, network: str) -> None:
    model = new_network(NETWORKS[network], saved, seed=3).eval()
    plain = new_network(NETWORKS[network], Backbones(image="", audio=""), seed=3).eval()
    source = learner().model.eval()
    image, wave = torch.randn(1, 3, 16, 16), torch.randn(1, 6000)
    assert isinstance(model, DenseAV)
    assert torch.equal(model.image_encoder(image)[0], source.image_encoder(image)[0])
    assert torch.equal(model.audio_encoder(wave), source.audio_encoder(wave))
    assert not torch.equal(plain.audio_encoder(wave), source.audio_encoder(wave))
    assert torch.equal(model.image_aligner.projection.weight, plain.image_aligner.projection.weight)


def test_a_backbone_with_a_head_on_top_is_adopted(tmp_path: Path) -> None:
    hubert = learner().model.audio_encoder.hubert
    recogniser = HubertForCTC(hubert.config)
    recogniser.hubert.load_state_dict(hubert.state_dict())
    recogniser.save_pretrained(tmp_path)
    model = new_network(NETWORK, Backbones(image="", audio=str(tmp_path)), seed=0)
    for name, value in model.audio_encoder.hubert.state_dict().items():
        assert torch.equal(value, hubert.state_dict()[name]), name


def test_other_backbones_are_refused(saved: Backbones, tmp_path: Path) -> None:
    wider = dataclasses.replace(NETWORK, audio=dataclasses.replace(NETWORK.audio, layers=3))
    with pytest.raises(CheckpointError, match=r"another architecture .*layers\.1"):
        new_network(wider, saved, seed=0)
    larger = dataclasses.replace(NETWORK, image=dataclasses.replace(NETWORK.image, hidden=16))
    with pytest.raises(CheckpointError, match=r"another architecture .*size mismatch"):
        new_network(larger, saved, seed=0)
    with pytest.raises(CheckpointError, match="cannot be loaded as a backbone"):
        new_network(NETWORK, Backbones(image=str(tmp_path / "none"), audio=""), seed=0)
    with pytest.raises(CheckpointError, match=r"(?s)^[^\n]*$"):
        new_network(NETWORK, Backbones(image=saved.audio, audio=""), seed=0)


@pytest.mark.parametrize("wanted", NETWORKS)
@pytest.mark.parametrize("trained", NETWORKS)
def test_a_trained_network_is_gone_on_with(tmp_path: Path, trained: str, wanted: str) -> None:
    before = learner(NETWORKS[trained]).model.eval()
    with torch.no_grad():
        for parameter in before.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    save(before, tmp_path)
    nothing = Backbones(image="", audio="")
    model = new_network(NETWORKS[wanted], nothing, seed=3, initial=str(tmp_path)).eval()
    image, wave = torch.randn(1, 3, 16, 16), torch.randn(1, 6000)
    for one, other in zip(model(image, wave), before(image, wave), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert torch.equal(model.calibrator.scale, before.calibrator.scale)
    assert any("lora_" in key for key in model.state_dict()) == (wanted == "lora")


def test_another_trained_network_is_refused(tmp_path: Path) -> None:
    save(learner().model, tmp_path)
    wider = dataclasses.replace(NETWORK, code_dim=2 * NETWORK.code_dim)
    with pytest.raises(CheckpointError, match=r"another architecture .*size mismatch"):
        new_network(wider, Backbones(image="", audio=""), seed=0, initial=str(tmp_path))
    with pytest.raises(CheckpointError, match=r"(?s)^[^\n]*$"):
        new_network(NETWORK, Backbones(), seed=0, initial=str(tmp_path / "none"))
