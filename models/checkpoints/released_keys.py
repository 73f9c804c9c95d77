"""The authors' key names: one rule from each key of ours, and the spellings they came in.

A key of ours leads to the released tensor that holds it and to how to take it out. So what a
released file must hold is known from our network, and nothing is guessed from the file.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from denseav.models.config import AudioAlignerKind
from denseav.models.lora import DOWN, Shapes

_SPELLINGS = (
    (re.compile(r"^(image_model|audio_model)\.(?:base_model\.model\.)?model\."), r"\1."),
    (re.compile(r"\.base_layer\."), "."),
    (
        re.compile(r"pos_conv_embed\.conv\.weight_g$"),
        "pos_conv_embed.conv.parametrizations.weight.original0",
    ),
    (
        re.compile(r"pos_conv_embed\.conv\.weight_v$"),
        "pos_conv_embed.conv.parametrizations.weight.original1",
    ),
)
_VIT = (
    ("image_encoder.vit.", "image_model."),
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("layers.", "blocks."),
    ("image_model.layernorm.", "image_model.norm."),
)
_BLOCK = (
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
    ("attention.o_proj", "attn.proj"),
)
_IMAGE_ALIGNER = (
    ("image_aligner.projection.", "image_aligner.layer."),
    ("cls_projection.", "cls_layer."),
)
_AUDIO_ALIGNERS: Mapping[AudioAlignerKind, tuple[tuple[str, str], ...]] = {
    "pool": (
        ("norm.norm.", "1.norm."),
        ("pools.0.conv.", "2.layer."),
        ("cls_projection.", "2.cls_layer."),
        ("pools.1.conv.", "3.layer."),
        ("mixer.block.", "4.block."),
    ),
    "project_pool": (
        ("norm.norm.", "0.norm.norm."),
        ("projection.", "0.layer."),
        ("cls_projection.", "0.cls_layer."),
        ("pools.0.norm.", "2.norm."),
        ("pools.0.conv.", "2.layer."),
        ("pools.1.norm.", "3.norm."),
        ("pools.1.conv.", "3.layer."),
        ("mixer.block.", "4.block."),
    ),
    "project": (
        ("norm.norm.", "0.norm.norm."),
        ("projection.", "0.layer."),
        ("cls_projection.", "0.cls_layer."),
        ("mixer.block.", "2.block."),
    ),
}
_THIRDS: Mapping[str, Literal[0, 1, 2]] = {"q": 0, "k": 1, "v": 2}
_QKV = re.compile(r"attention\.([qkv])_proj")


@dataclass(frozen=True)
class Place:
    """Where a weight of ours lies: a released key, whole or as one `third` of its rows.

    `flat` says that ours is a 1-D convolution where theirs is 2-D with a height of one;
    `shared` that several of ours begin equal to it.
    """

    key: str
    third: Literal[0, 1, 2] | None = None
    flat: bool = False
    shared: bool = False

    def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the released tensor, given the shape of ours."""
        if self.third is not None:
            return (3 * ours[0], *ours[1:])
        return (*ours[:2], 1, *ours[2:]) if self.flat else ours

    def take(self, released: Tensor) -> Tensor:
        """Return our weight out of the released tensor; no two of ours share memory."""
        if self.third is not None:
            return released.chunk(3)[self.third].clone()
        if self.shared:
            return released.clone()
        return released.squeeze(2) if self.flat else released


def canonical(key: str) -> str:
    """Return the one spelling under which a released key is known here."""
    for spelling, plain in _SPELLINGS:
        key = spelling.sub(plain, key)
    return key


def to_released(shapes: Shapes, aligner: AudioAlignerKind) -> Shapes:
    """Return the released keys, canonical, and their shapes, for our keys and shapes."""
    places = {key: _place(key, shape, aligner) for key, shape in shapes.items()}
    return {place.key: place.shape(shapes[key]) for key, place in places.items()}


def from_released(
    released: Mapping[str, Tensor], shapes: Shapes, aligner: AudioAlignerKind
) -> dict[str, Tensor]:
    """Return the weights under our keys, out of released ones under canonical keys.

    A LoRA on the fused query-key-value layer becomes three that begin with equal down
    projections, which is exactly the same function.
    """
    places = {key: _place(key, shape, aligner) for key, shape in shapes.items()}
    return {key: place.take(released[place.key]) for key, place in places.items()}


def _place(key: str, shape: tuple[int, ...], aligner: AudioAlignerKind) -> Place:
    plain = key.replace(".base_layer.", ".")
    side = plain.partition(".")[0]
    if side == "image_encoder":
        return _block_place(_renamed(plain, _VIT))
    if side == "audio_encoder":
        return Place(plain.replace("audio_encoder.hubert.", "audio_model."))
    if side == "image_aligner":
        return Place(_renamed(plain, _IMAGE_ALIGNER))
    if side == "audio_aligner":
        return _audio_aligner_place(plain.partition(".")[2], shape, aligner)
    return Place(
        plain.replace("calibrator.log_scale", "sim_cal.w").replace("calibrator.bias", "sim_cal.b")
    )


def _audio_aligner_place(rest: str, shape: tuple[int, ...], aligner: AudioAlignerKind) -> Place:
    for ours, theirs in _AUDIO_ALIGNERS[aligner]:
        if rest.startswith(ours):
            key = "audio_aligner.mod_list." + theirs + rest.removeprefix(ours)
            return _block_place(key) if ".block." in key else Place(key, flat=len(shape) == 3)
    raise AssertionError(f"no released name for {rest}")


def _block_place(key: str) -> Place:
    key = _renamed(key, _BLOCK)
    found = _QKV.search(key)
    if found is None:
        return Place(key)
    fused = _QKV.sub("attn.qkv", key)
    if fused.endswith(DOWN):
        return Place(fused, shared=True)
    return Place(fused, third=_THIRDS[found[1]])


def _renamed(key: str, rules: tuple[tuple[str, str], ...]) -> str:
    for ours, theirs in rules:
        key = key.replace(ours, theirs)
    return key
