"""LoRA: low-rank weights beside an encoder's query, key and value, kept apart or merged.

Hu et al., "LoRA" (2021). Merging works on the weights themselves, before there is a network;
`peft` is imported only where LoRA stays apart.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from denseav.models.config import LoraConfig, ModelConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TARGETS = ("q_proj", "k_proj", "v_proj")

IMAGE_ENCODER = "image_encoder."
AUDIO_ENCODER = "audio_encoder."
BASE = ".base_layer"
DOWN = ".lora_A.default.weight"
UP = ".lora_B.default.weight"

Shapes = dict[str, tuple[int, ...]]


def inject(encoder: "PreTrainedModel", config: LoraConfig) -> None:
    """Put LoRA weights beside `encoder`'s projections, in place, and freeze all its others.

    The new weights change nothing until they are trained or loaded.
    """
    import peft

    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(TARGETS),
    )
    peft.inject_adapter_in_model(settings, encoder)


def adapted_shapes(shapes: Shapes, encoder: str, config: LoraConfig) -> Shapes:
    """Return `shapes` as they are once `encoder` (the start of its keys) has LoRA."""
    adapted: Shapes = {}
    for key, shape in shapes.items():
        layer, _, kind = key.rpartition(".")
        if not key.startswith(encoder) or not layer.endswith(TARGETS):
            adapted[key] = shape
            continue
        adapted[f"{layer}{BASE}.{kind}"] = shape
        if kind == "weight":
            adapted[layer + DOWN] = (config.rank, shape[1])
            adapted[layer + UP] = (shape[0], config.rank)
    return adapted


def merge(
    config: ModelConfig, weights: Mapping[str, Tensor]
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Return configuration and weights with LoRA, if any, added to the weights beside it."""
    merged = dict(weights)
    if config.image.lora is not None:
        merged = _merged(merged, IMAGE_ENCODER, config.image.lora)
    if config.audio.lora is not None:
        merged = _merged(merged, AUDIO_ENCODER, config.audio.lora)
    return config.without_lora(), merged


def _merged(weights: dict[str, Tensor], encoder: str, config: LoraConfig) -> dict[str, Tensor]:
    scale = config.alpha / config.rank
    plain = dict(weights)
    for key in weights:
        if key.startswith(encoder) and key.endswith(DOWN):
            layer = key.removesuffix(DOWN)
            product = plain.pop(layer + UP) @ plain.pop(key)
            plain[f"{layer}.weight"] = plain.pop(f"{layer}{BASE}.weight") + scale * product
            plain[f"{layer}.bias"] = plain.pop(f"{layer}{BASE}.bias")
    return plain
