"""Encoders that are prepared before any couple: they hear, and see by what they heard."""

import ctypes.util
import dataclasses
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from denseav.models import CheckpointError, ModelConfig
from denseav.models.config import AudioConfig, ImageConfig
from denseav.train.errors import PreemptedError, SettingsError
from denseav.train.trainer.backbones import new_network
from denseav.train.trainer.pretrain_audio import Spectrogram, pretrain_audio, waves
from denseav.train.trainer.pretrain_image import Pair, Told, cluster, pretrain_image
from denseav.train.trainer.settings import Backbones, Pretraining, Settings
from denseav.train.world.classes import CLASSES
from denseav.train.world.clips import HEADS, Head, place_event
from denseav.train.world.loader import WorldSettings

pytestmark = pytest.mark.skipif(
    ctypes.util.find_library("espeak-ng") is None, reason="espeak-ng is not installed"
)
NETWORK = ModelConfig(
    name="tiny",
    code_dim=32,
    image=ImageConfig(size=64, patch=8, hidden=32, layers=1, heads=2, attention_width=5),
    audio=AudioConfig(
        stem_channels=16,
        hidden=32,
        layers=1,
        heads=2,
        position_kernel=8,
        position_groups=4,
        aligner_heads=4,
        dropout=0.0,
        layer_drop=0.0,
        time_mask=0.0,
    ),
)
PLAN = Pretraining(
    steps=80,
    batch_size=4,
    learning_rate=4e-3,
    warmup_steps=5,
    image_steps=12,
    image_batch_size=4,
    clusters=12,
    clustered=6,
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    folder = tmp_path_factory.mktemp("pretrained")
    losses: list[float] = []
    audio = folder / "audio"
    pretrain_audio(NETWORK, PLAN, 0, audio, lambda _, loss: losses.append(loss), muon=False)
    return folder, losses


def test_an_encoder_that_learns_to_hear_errs_less(prepared: tuple[Path, list[float]]) -> None:
    losses = prepared[1]
    assert len(losses) == PLAN.steps
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:3])


def test_pretrained_encoders_are_backbones(prepared: tuple[Path, list[float]]) -> None:
    folder = prepared[0]
    steps: list[int] = []
    audio, image = folder / "audio", folder / "image"

    def count(step: int, _: float) -> None:
        steps.append(step)

    pretrain_image(NETWORK, PLAN, audio, 0, image, count, print, muon=False, labelled=True)
    assert steps == list(range(1, PLAN.image_steps + 1))
    begun = Backbones(image=str(folder / "image"), audio=str(folder / "audio"))
    one, other = new_network(NETWORK, begun, 1), new_network(NETWORK, begun, 2)
    for name, weight in one.state_dict().items():
        encoder = name.startswith(("image_encoder.", "audio_encoder."))
        if encoder or weight.ndim > 1:
            assert torch.equal(weight, other.state_dict()[name]) == encoder, name


def test_an_encoder_that_was_stopped_becomes_what_it_would_have(tmp_path: Path) -> None:
    plan = replace(PLAN, steps=4, image_steps=4, clusters=4, clustered=2)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"

    def pretrain(folder: Path, report: Callable[[int, float], None]) -> None:
        folder.mkdir(exist_ok=True)
        audio, image = folder / "audio", folder / "image"
        if not audio.exists():
            pretrain_audio(NETWORK, plan, 0, audio, report, muon=True)
        pretrain_image(NETWORK, plan, audio, 0, image, report, print, muon=True, labelled=False)

    def stop(step: int, _: float) -> None:
        if step == 2:
            raise PreemptedError("told to stop")

    pretrain(whole, lambda _, loss: None)
    steps: list[int] = []
    for report in (stop, stop, lambda step, _: steps.append(step)):
        with suppress(PreemptedError):
            pretrain(stopped, report)
    assert steps == [3, 4]
    assert sorted(path.name for path in stopped.iterdir()) == ["audio", "image"]
    for encoder in ("audio", "image"):
        one, other = (load_file(run / encoder / "model.safetensors") for run in (whole, stopped))
        assert all(torch.equal(one[name], other[name]) for name in one), encoder


def test_what_was_stopped_with_another_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "audio.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match=r"audio\.ckpt is damaged or of another"):
        pretrain_audio(NETWORK, PLAN, 0, tmp_path / "audio", lambda _, loss: None, muon=False)


def test_clusters_know_more_of_a_sound_than_chance(prepared: tuple[Path, list[float]]) -> None:
    plan = replace(PLAN, clustered=12)
    pairs = cluster(plan, prepared[0] / "audio", np.random.default_rng(3), kinds=1)
    assert [pair.name for pair in pairs] == [*CLASSES] * plan.clustered
    label_N = np.array([pair.cluster for pair in pairs])

    def agreement(label_N: NDArray[np.int64]) -> float:
        """Return how often two sounds of one class are in one cluster."""
        label_RC = label_N.reshape(plan.clustered, len(CLASSES))
        pairs_of_one = np.triu_indices(plan.clustered, 1)
        return float((label_RC[:, None] == label_RC[None])[pairs_of_one].mean())

    random = np.random.default_rng(0)
    chance = [agreement(random.permutation(label_N)) for _ in range(200)]
    # Other seeds give 9 to 39 deviations more than chance.
    assert agreement(label_N) > np.mean(chance) + 5 * np.std(chance)


def test_kinds_of_whose_clusters_pictures_say_little_are_left_out() -> None:
    pairs = [Pair("bell", kind, cluster) for kind in range(3) for cluster in range(4)]
    told = Told(pairs, 3)
    assert told.kept() == [0, 1, 2]  # nothing is known yet
    entropy = float(np.log(4))
    kind_B = torch.tensor([0, 0, 1, 2])
    told.add(kind_B, torch.tensor([entropy - 0.5, entropy - 0.3, entropy + 0.1, entropy - 0.3]))
    assert told.nats() == pytest.approx([0.4, 0, 0.3], abs=1e-6)
    assert told.kept() == [0, 2]
    again = Told(pairs, 3)
    again.load_state_dict(told.state_dict())
    assert again.kept() == [0, 2]


@pytest.mark.parametrize(("kinds", "spoken"), [(1, 0.0), (2, 0.5)])
def test_what_is_not_told_is_not_used(
    prepared: tuple[Path, list[float]], monkeypatch: pytest.MonkeyPatch, kinds: int, spoken: float
) -> None:
    heads: list[str] = []

    def listen(random: Any, library: Any, head: Head, name: str, samples: int) -> Any:
        heads.append(head)
        return place_event(random, library, head, name, samples)

    monkeypatch.setattr("denseav.train.trainer.pretrain_image.place_event", listen)
    pairs = cluster(PLAN, prepared[0] / "audio", np.random.default_rng(3), kinds)
    assert sorted(pair.name for pair in pairs) == sorted([*CLASSES] * PLAN.clustered)
    for kind in range(kinds):
        found = {pair.cluster for pair in pairs if pair.kind == kind}
        assert found == set(range(len(found)))
        assert 1 < len(found) <= PLAN.clusters
    assert len(heads) == PLAN.clustered * len(CLASSES)
    assert heads.count("speech") / len(heads) == pytest.approx(spoken, abs=0.15)
    if kinds > 1:
        heads.clear()
        few = replace(PLAN, clustered=1)
        cluster(few, prepared[0] / "audio", np.random.default_rng(3), 3, HEADS)
        assert set(heads) == set(HEADS)


def test_a_spectrogram_has_a_frame_for_each_frame_of_the_encoder() -> None:
    wave_BS = waves(PLAN, HEADS, np.random.default_rng(0))
    assert wave_BS.shape == (PLAN.batch_size, PLAN.samples)
    spectrogram_BFL = Spectrogram()(wave_BS)
    frames = new_network(NETWORK, Backbones(image="", audio=""), 0).audio_encoder(wave_BS).shape[-1]
    assert spectrogram_BFL.shape[-1] == frames
    assert torch.allclose(spectrogram_BFL.mean((1, 2)), torch.zeros(PLAN.batch_size), atol=1e-4)


def test_pretraining_belongs_to_the_world_and_to_random_encoders() -> None:
    world = Settings(
        network=NETWORK,
        backbones=Backbones(image="", audio=""),
        world=WorldSettings(),
        pretraining=PLAN,
    )
    with pytest.raises(SettingsError, match="pretraining goes with the world"):
        dataclasses.replace(world, backbones=Backbones())
    with pytest.raises(SettingsError, match="pretraining goes with the world"):
        dataclasses.replace(world, initial="runs/demo/model")
    with pytest.raises(SettingsError, match="at least 1"):
        Pretraining(clusters=0)
    with pytest.raises(SettingsError, match="hidden_share"):
        Pretraining(hidden_share=1.0)
