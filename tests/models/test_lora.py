import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from denseav.models import DenseAV, load, save
from denseav.models.checkpoints.checkpoint import fill
from denseav.models.checkpoints.keys import expected_shapes
from denseav.models.config import LoraConfig
from denseav.models.lora import merge
from tests.support.tiny_model import CONFIG, inputs, tiny

LORA = LoraConfig(rank=2, alpha=6, dropout=0.1)


def adapted() -> DenseAV:
    return tiny(
        image=replace(CONFIG.image, lora=LORA), audio=replace(CONFIG.audio, lora=LORA)
    ).eval()


def test_merged_weights_give_the_same_output() -> None:
    apart = adapted()
    config, weights = merge(apart.config, apart.state_dict())
    merged = fill(config, weights).eval()
    assert config == apart.config.without_lora()
    assert not [key for key in weights if "lora" in key or "base_layer" in key]
    for ours, theirs in zip(merged(*inputs()), apart(*inputs()), strict=True):
        torch.testing.assert_close(ours, theirs)
    plain = {key.replace(".base_layer", ""): t for key, t in apart.state_dict().items()}
    without = fill(config, {key: t for key, t in plain.items() if "lora" not in key}).eval()
    for ours, theirs in zip(without(*inputs()), apart(*inputs()), strict=True):
        assert (ours - theirs).abs().max() > 1e-2


def test_merging_leaves_the_given_weights_alone() -> None:
    apart = adapted()
    before = {key: tensor.clone() for key, tensor in apart.state_dict().items()}
    merge(apart.config, apart.state_dict())
    after = apart.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_new_adapters_change_nothing() -> None:
    torch.manual_seed(0)
    apart = DenseAV(replace(CONFIG, image=replace(CONFIG.image, lora=LORA))).eval()
    _, weights = merge(apart.config, apart.state_dict())
    plain = fill(CONFIG, weights).eval()
    image = inputs()[0]
    assert torch.equal(apart.encode_image(image), plain.encode_image(image))


def test_expected_shapes_are_those_of_the_network_with_adapters() -> None:
    apart = adapted()
    shapes = {key: tuple(tensor.shape) for key, tensor in apart.state_dict().items()}
    assert expected_shapes(apart.config) == shapes


def test_only_adapters_of_an_adapted_encoder_learn() -> None:
    apart = adapted().train()
    learning = {name for name, p in apart.named_parameters() if p.requires_grad}
    encoders = {name for name in learning if "encoder" in name.partition(".")[0]}
    assert len(encoders) == 2 * 3 * (2 + 2)
    assert all("lora_" in name for name in encoders)
    assert "image_aligner.projection.weight" in learning


def test_adapters_drop_out_in_training_only() -> None:
    apart, image = adapted(), inputs()[0]
    assert torch.equal(apart.encode_image(image), apart.encode_image(image))
    apart.train()
    assert not torch.equal(apart.encode_image(image), apart.encode_image(image))


def test_peft_is_imported_only_to_keep_adapters_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(adapted(), tmp_path)
    monkeypatch.setitem(sys.modules, "peft", None)  # to import it is an error
    load(tmp_path)
    with pytest.raises(ImportError, match="peft"):
        load(tmp_path, lora="separate")
