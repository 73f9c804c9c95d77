"""The released two-head model with random weights, and the arrays recorded from it.

The weights are drawn in the order of `denseav_2head_keys.json`, so that order matters.
"""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HERE = Path(__file__).parent
SMALL_LAYERS = 2
LAYERS = "audio_model.model.encoder.layers."

Shapes = dict[str, tuple[int, ...]]


@cache
def arrays() -> dict[str, NDArray[Any]]:
    """Return all recorded arrays by name."""
    with np.load(HERE / "model.npz") as file:
        return dict(file)


def hyperparameters() -> dict[str, Any]:
    """Return the released two-head checkpoint's hyper-parameters."""
    return json.loads((HERE / "denseav_2head_keys.json").read_text())["hyper_parameters"]


def shapes(*, small: bool) -> Shapes:
    """Return the released keys and shapes; `small` keeps 2 of HuBERT's 24 layers."""
    keys = json.loads((HERE / "denseav_2head_keys.json").read_text())["keys"]
    full = {entry["key"]: tuple(entry["shape"]) for entry in keys}
    return {key: shape for key, shape in full.items() if not (small and _deep(key))}


def variants() -> dict[str, Shapes]:
    """Return the small model's keys and shapes as other configurations have them."""
    changes = json.loads((HERE / "denseav_key_variants.json").read_text())
    base = shapes(small=True)
    found = {}
    for name, change in changes.items():
        kept = {key: shape for key, shape in base.items() if key not in change["missing"]}
        found[name] = kept | {key: tuple(shape) for key, shape in change["only_here"].items()}
    return found


def weights() -> dict[str, Tensor]:
    """Return the small model's weights, the ones behind the recorded arrays."""
    generator = torch.Generator().manual_seed(1234)
    return {key: _draw(key, shape, generator) for key, shape in shapes(small=True).items()}


def empty(shapes: Shapes) -> dict[str, Tensor]:
    """Return tensors of these shapes that hold one number each, in memory and on disk."""
    return {key: torch.full((1,) * len(shape), 0.5).expand(shape) for key, shape in shapes.items()}


def _draw(key: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if key == "sim_cal.w":
        return torch.full(shape, math.log(1.25))
    if "pos_conv_embed" in key and key.endswith("original0"):
        return 1 + 0.3 * torch.rand(shape, generator=generator)
    mean, deviation = _moments(key, shape)
    return mean + deviation * torch.randn(shape, generator=generator)


def _moments(key: str, shape: tuple[int, ...]) -> tuple[float, float]:
    fixed = {
        "lora_B": 0.02,
        "audio_cls": 1.0,
        "original1": 0.02,
        "cls_token": 0.3,
        "pos_embed": 0.3,
        "masked_spec": 0.5,
    }
    for part, deviation in fixed.items():
        if part in key:
            return 0.0, deviation
    if "norm" in key and key.endswith("weight"):
        return 1.0, 0.1
    if key.endswith("bias"):
        return 0.0, 0.05
    return 0.0, math.prod(shape[1:]) ** -0.5


def _deep(key: str) -> bool:
    return key.startswith(LAYERS) and int(key.removeprefix(LAYERS).split(".")[0]) >= SMALL_LAYERS
