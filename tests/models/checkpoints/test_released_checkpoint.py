import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from denseav.models import CheckpointError, load
from denseav.models.checkpoints.checkpoint import fill
from denseav.models.checkpoints.released_checkpoint import REQUIRED, adopt, head_names
from denseav.models.config import LoraConfig, ModelConfig
from denseav.models.lora import merge
from tests.golden import released as golden

VARIANTS: dict[str, dict[str, Any]] = {
    "default_1head": {"sim_agg_heads": 1},
    "two_head": {},
    "no_image_lora_full_finetune": {"image_lora": False, "finetune_image_model": True},
    "audio_lora": {"audio_lora": True},
    "loss_margin": {"loss_type": "margin"},
    "no_learned_audio_cls": {"learn_audio_cls": False},
    "aligner_audio_sa_3_3_pool": {"audio_aligner_type": "audio_sa_3_3_pool"},
    "aligner_audio_sa": {"audio_aligner_type": "audio_sa"},
    "simpool": {"sim_agg_type": "simpool"},
    "code_dim_512_2head": {"code_dim": 512},
}


def adopt_small(
    weights: dict[str, Tensor], source: str = "denseav_2head.ckpt", **changes: Any
) -> tuple[ModelConfig, dict[str, Tensor]]:
    hyperparameters = golden.hyperparameters() | changes
    return adopt(hyperparameters, weights, source=source, audio_layers=golden.SMALL_LAYERS)


def respelled(weights: dict[str, Tensor], *rules: tuple[str, str]) -> dict[str, Tensor]:
    changed = {}
    for key, tensor in weights.items():
        for old, new in rules:
            key = key.replace(old, new)
        changed[key] = tensor
    assert changed.keys() != weights.keys()
    return changed


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_key_variant_loads(variant: str) -> None:
    weights = golden.empty(golden.variants()[variant])
    config, ours = adopt_small(weights, **VARIANTS[variant])
    for network in (fill(config, ours), fill(*merge(config, ours))):
        assert all(parameter.device.type == "cpu" for parameter in network.parameters())


def test_hyper_parameters_come_from_the_file() -> None:
    def read(variant: str) -> ModelConfig:
        return adopt_small(golden.empty(golden.variants()[variant]), **VARIANTS[variant])[0]

    assert read("two_head").heads == ("speech", "sound")
    assert read("two_head").image.lora == LoraConfig(rank=8, alpha=32, dropout=0.1)
    assert len(read("default_1head").heads) == 1
    assert read("no_image_lora_full_finetune").image.lora is None
    assert read("audio_lora").audio.lora == LoraConfig()
    assert read("loss_margin").calibrator_bias
    assert not read("no_learned_audio_cls").audio.learned_cls
    assert read("aligner_audio_sa").audio.token_hop_samples == 320
    assert read("aligner_audio_sa_3_3_pool").audio.aligner == "project_pool"
    assert read("code_dim_512_2head").channels == 256
    assert all(read(variant).trained for variant in VARIANTS)


def test_the_shipped_full_size_configuration_is_the_released_one() -> None:
    weights = golden.empty(golden.shapes(small=False))
    config, _ = adopt(golden.hyperparameters(), weights, source="denseav")
    shipped = Path(__file__).parents[3] / "configs" / "models" / "denseav.json"
    assert ModelConfig.from_json(shipped.read_text()) == replace(config, trained=False)


def test_remaining_hyper_parameters_reach_the_configuration() -> None:
    config, _ = adopt_small(
        golden.empty(golden.shapes(small=True)),
        sim_use_cls=True,
        norm_vectors=True,
        audio_pool_width=2,
        image_pool_width=1,
        sim_agg_type="paired",
        head_agg="sum",
        nonneg_sim=True,
        mask_silence=False,
    )
    assert config.cls_similarity
    assert config.unit_vectors
    assert (config.audio.pool_width, config.image.pool_width) == (2, 1)
    assert config.aggregation.clips == "paired"
    assert config.aggregation.heads == "sum"
    assert config.aggregation.nonnegative
    assert not config.aggregation.mask_silence


def test_missing_and_unknown_training_hyper_parameters_are_tolerated() -> None:
    given = golden.hyperparameters()
    lean = {name: given[name] for name in REQUIRED} | {"invented_later": 3}
    weights = golden.empty(golden.shapes(small=True))
    bare, _ = adopt(lean, weights, source="x", audio_layers=golden.SMALL_LAYERS)
    full, _ = adopt(given, weights, source="x", audio_layers=golden.SMALL_LAYERS)
    assert bare == full


@pytest.mark.parametrize(
    "rules",
    [
        [("attn.qkv.weight", "attn.qkv.base_layer.weight"), ("qkv.bias", "qkv.base_layer.bias")],
        [
            ("conv.parametrizations.weight.original0", "conv.weight_g"),
            ("conv.parametrizations.weight.original1", "conv.weight_v"),
        ],
        [("image_model.base_model.model.model.", "image_model.model.")],
        [("audio_model.model.", "audio_model.base_model.model.model.")],
    ],
)
def test_other_spellings_are_the_same_weights(rules: list[tuple[str, str]]) -> None:
    weights = {
        key: torch.randn(1).reshape((1,) * len(shape)).expand(shape)
        for key, shape in golden.shapes(small=True).items()
    }
    _, plain = adopt_small(weights)
    _, changed = adopt_small(respelled(weights, *rules))
    assert plain.keys() == changed.keys()
    assert all(torch.equal(plain[key], changed[key]) for key in plain)


def test_a_fused_lora_becomes_three_that_share_their_beginning() -> None:
    weights = golden.empty(golden.shapes(small=True))
    block = "image_model.base_model.model.model.blocks.3.attn.qkv"
    up, down = torch.randn(1152, 8), torch.randn(8, 384)
    weights |= {f"{block}.lora_B.default.weight": up, f"{block}.lora_A.default.weight": down}
    _, ours = adopt_small(weights)
    attention = "image_encoder.vit.layers.3.attention"
    for part, name in enumerate(("q_proj", "k_proj", "v_proj")):
        assert torch.equal(ours[f"{attention}.{name}.lora_A.default.weight"], down)
        rows = up[384 * part : 384 * (part + 1)]
        assert torch.equal(ours[f"{attention}.{name}.lora_B.default.weight"], rows)
    pointers = {ours[f"{attention}.{n}_proj.lora_A.default.weight"].data_ptr() for n in "qkv"}
    assert len(pointers) == 3


def test_the_hugging_face_form_loads_whole(tmp_path: Path) -> None:
    folder = tmp_path / "DenseAV-language"
    folder.mkdir()
    record = golden.hyperparameters() | {"sim_agg_heads": 1}
    (folder / "config.json").write_text(json.dumps(record))
    write_zero_safetensors(folder / "model.safetensors", golden.shapes(small=False))
    model = load(folder, lora="separate")
    assert model.config.heads == ("speech",)
    assert model.config.image.lora == LoraConfig()
    assert model.image_encoder.vit.layers[11].attention.q_proj.r == {"default": 8}


def write_zero_safetensors(path: Path, shapes: golden.Shapes) -> None:
    """Write a sparse file of zeros: 1.4 GB that take no room on disk."""
    header, end = {}, 0
    for key, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


@pytest.mark.parametrize(
    ("heads", "name", "expected"),
    [
        (2, "denseav_2head", ("speech", "sound")),
        (1, "denseav_language", ("speech",)),
        (1, "DenseAV-sound", ("sound",)),
        (1, "hubert_1h_asf_cls_full_image_train_small_lr", ("sound",)),
        (1, "places_base", ("speech",)),
        (1, "last", ("sound",)),
        (3, "many", ("head0", "head1", "head2")),
    ],
)
def test_head_names(heads: int, name: str, expected: tuple[str, ...]) -> None:
    assert head_names(heads, name) == expected


def test_keys_that_do_not_fit_are_listed_as_the_file_spells_them() -> None:
    weights = golden.empty(golden.shapes(small=True))
    del weights["audio_aligner.mod_list.3.layer.bias"]
    weights["image_model.base_model.model.model.blocks.0.attn.qkv.weight"] = torch.zeros(9, 384)
    weights["image_model.base_model.model.model.blocks.12.norm1.weight"] = torch.zeros(384)
    weights["audio_aligner.mod_list.2.layer.weight"] = torch.zeros(384, 1024, 3)
    with pytest.raises(CheckpointError) as caught:
        adopt_small(weights)
    message = str(caught.value)
    assert "1 missing: audio_aligner.mod_list.3.layer.bias" in message
    assert "1 unknown: image_model.base_model.model.model.blocks.12.norm1.weight" in message
    assert "2 misshapen: " in message
    assert "model.model.blocks.0.attn.qkv.weight is 9x384, not 1152x384" in message
    assert "mod_list.2.layer.weight is 384x1024x3, not 384x1024x1x3" in message


def test_hyper_parameters_and_keys_must_agree() -> None:
    weights = golden.empty(golden.shapes(small=True))
    with pytest.raises(CheckpointError, match=r"24 unknown: .*lora_A"):
        adopt_small(weights, image_lora=False)
    with pytest.raises(CheckpointError, match=r"missing: sim_cal\.b"):
        adopt_small(weights, loss_type="bce")
    with pytest.raises(CheckpointError, match="1 unknown: audio_cls"):
        adopt_small(weights, learn_audio_cls=False)
    with pytest.raises(CheckpointError, match="misshapen"):
        adopt_small(weights, code_dim=512)


def test_the_same_weight_in_two_spellings_is_refused() -> None:
    weights = golden.empty(golden.shapes(small=True))
    old = "audio_model.model.encoder.pos_conv_embed.conv.weight_g"
    weights[old] = torch.zeros(1, 1, 128)
    with pytest.raises(CheckpointError, match=f"1 unknown: {old}"):
        adopt_small(weights)


def test_simpool_weights_are_unknown_to_other_aggregations() -> None:
    with pytest.raises(CheckpointError, match=r"4 unknown: sim_agg\.pool"):
        adopt_small(golden.empty(golden.variants()["simpool"]))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"image_model_type": "clip"}, "image_model_type 'clip'; denseav has dino8"),
        ({"audio_aligner_type": "audio_prog"}, "audio_aligner_type 'audio_prog'"),
        ({"code_dim": "384"}, "code_dim must be whole numbers"),
        ({"audio_pool_width": None}, "audio_pool_width must be whole numbers"),
        ({"code_dim": 385}, "code_dim 385 does not divide among 2 heads"),
        ({"head_agg": "median"}, "heads must be one of"),
        ({"image_lora_rank": 0}, "rank must be at least 1"),
    ],
)
def test_a_network_we_do_not_have_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CheckpointError, match=complaint) as caught:
        adopt_small({}, **changes)
    assert "denseav_2head.ckpt" in str(caught.value)
