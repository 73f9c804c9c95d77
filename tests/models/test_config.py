import json
from dataclasses import replace
from pathlib import Path

import pytest

from denseav.models import CheckpointError, ModelConfig
from denseav.models.config import Aggregation, AudioConfig, ImageConfig, LoraConfig

CONFIGS = Path(__file__).parents[2] / "configs" / "models"


def edited(**changes: object) -> str:
    record = json.loads(ModelConfig(name="x").to_json())
    record["model"] |= changes
    return json.dumps(record)


@pytest.mark.parametrize("name", ["denseav", "demo"])
def test_shipped_configurations_survive_the_round_trip(name: str) -> None:
    text = (CONFIGS / f"{name}.json").read_text()
    config = ModelConfig.from_json(text)
    assert config.name == name
    assert config.heads == ("speech", "sound")
    assert not config.trained
    assert config.to_json() == text


def test_every_field_survives_the_round_trip() -> None:
    config = ModelConfig(
        name="odd",
        trained=True,
        heads=("sound",),
        code_dim=30,
        cls_similarity=True,
        unit_vectors=True,
        calibrator_bias=True,
        image=ImageConfig(size=64, patch=16, hidden=48, layers=1, heads=4, lora=LoraConfig(rank=2)),
        audio=AudioConfig(aligner="project", layer_drop=0.25, lora=LoraConfig(dropout=0.0)),
        aggregation=Aggregation(clips="paired", heads="sum", nonnegative=True, mask_silence=False),
    )
    assert ModelConfig.from_json(config.to_json()) == config


def test_missing_fields_have_their_defaults() -> None:
    text = '{"format": "denseav-model", "schema": 1, "model": {"name": "x", "image": {"size": 64}}}'
    config = ModelConfig.from_json(text)
    assert config == ModelConfig(name="x", image=ImageConfig(size=64))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not JSON"),
        ("[]", "not a denseav configuration"),
        ('{"model_type": "bert"}', "not a denseav configuration"),
        ('{"format": "denseav-model", "schema": 2, "model": {}}', "upgrade denseav"),
        ('{"format": "denseav-model", "model": {}}', "schema None"),
        ('{"format": "denseav-model", "schema": 1}', "model must be an object"),
        ('{"format": "denseav-model", "schema": 1, "model": {}}', "needs a name"),
        (edited(colour="red", depth=3), "unknown fields: colour, depth"),
        (edited(code_dim="384"), "model.code_dim must be int, not '384'"),
        (edited(trained=1), "model.trained must be bool"),
        (edited(heads="speech"), "model.heads must be a list of names"),
        (edited(image={"lora": {"rank": 0}}), "rank must be at least 1, not 0"),
        (edited(image=None), "model.image must be an object"),
        (edited(audio={"aligner": "audio_sa"}), "aligner must be one of pool"),
        (edited(audio={"dropout": 1}), "dropout must be in"),
    ],
)
def test_a_bad_configuration_says_what_is_wrong(text: str, complaint: str) -> None:
    with pytest.raises(CheckpointError, match=complaint) as caught:
        ModelConfig.from_json(text)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"heads": ()}, "heads must be different names"),
        ({"heads": ("sound", "sound")}, "heads must be different names"),
        ({"code_dim": 385}, "code_dim 385 does not divide among 2 heads"),
        ({"code_dim": 0}, "code_dim must be at least 1"),
    ],
)
def test_a_configuration_that_cannot_be_built_is_refused(
    changes: dict[str, object], complaint: str
) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        replace(ModelConfig(name="x"), **changes)  # type: ignore[arg-type]


def test_cls_similarity_needs_an_audio_cls() -> None:
    with pytest.raises(CheckpointError, match="learned_cls"):
        ModelConfig(name="x", cls_similarity=True, audio=AudioConfig(learned_cls=False))


def test_sizes_must_divide() -> None:
    with pytest.raises(CheckpointError, match="size 100 is no multiple of patch 8"):
        ImageConfig(size=100)
    with pytest.raises(CheckpointError, match="hidden 1000 is no multiple of heads 16"):
        AudioConfig(hidden=1000)


@pytest.mark.parametrize("width", [4, -3])
def test_local_attention_has_a_middle(width: int) -> None:
    with pytest.raises(CheckpointError, match=f"odd, or 0 for no limit, not {width}"):
        ImageConfig(attention_width=width)


def test_derived_sizes() -> None:
    config = ModelConfig(name="x")
    assert config.channels == 192
    assert replace(config, cls_similarity=True).channels == 384
    assert config.frame_size == (224, 296)
    assert config.audio.token_hop_samples == 2880
    assert config.audio.token_span_samples == 2960
    assert AudioConfig(aligner="project").token_hop_samples == 320
    assert AudioConfig(aligner="project").token_span_samples == 400


def test_without_lora_is_the_same_network_plain() -> None:
    config = ModelConfig(
        name="x", image=ImageConfig(lora=LoraConfig()), audio=AudioConfig(lora=LoraConfig())
    )
    assert config.without_lora() == ModelConfig(name="x")
