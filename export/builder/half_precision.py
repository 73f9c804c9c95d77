"""Half precision in the graph itself: half weights and activations, float32 where it matters.

A model in float32 enters, a copy that computes in half leaves. LayerNorm and softmax stay in
float32 (their sums overflow and lose digits in half), and so does the similarity, which
`HeatmapGraph` does by itself. TensorRT 11 builds strongly typed networks and ONNX Runtime runs
what the graph says, so the same file means the same numbers in both.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from denseav.models import DenseAV

_ATTENTION = "denseav_float32_softmax"


def spell_out_attention(model: DenseAV) -> None:
    """Let `model` compute attention in plain operations, with the softmax in float32.

    Fused attention exports with a check for NaN and a choice in every layer.
    """
    AttentionInterface.register(_ATTENTION, _attend)
    model.set_attention(_ATTENTION)


def half(model: DenseAV) -> DenseAV:
    """Return a copy of `model` in float16 whose LayerNorms compute in float32."""
    model = copy.deepcopy(model).half()
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.float()
            module.register_forward_pre_hook(_to_float32)
            module.register_forward_hook(_to_float16)
    return model


def _to_float32(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(value.float() for value in inputs)


def _to_float16(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.half()


def _attend(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    **_: object,
) -> tuple[Tensor, Tensor]:
    """Attend over `[B, heads, N, C]` with the softmax in float32; the mask is added to it."""
    scores = torch.matmul(query * scaling, key.transpose(2, 3)).float()
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = functional.softmax(scores, dim=-1).to(query.dtype)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights
