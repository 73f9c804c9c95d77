"""A bundle of real ONNX graphs of a few bytes, and the same with its parts replaced."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from denseav.export.runtime.bundle import file_sha256, window_samples, write_manifest
from tests.support.fake_session import TOKENS, fake_manifest

_F32, _U8, _I64 = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT64

Tensor = tuple[str, int, Sequence[int]]
IMAGE: Tensor = ("image", _U8, (16, 24, 3))
IMAGE_FEATURES: Tensor = ("image_features", _F32, (2, 1, 2, 3))
WAVE: Tensor = ("wave", _F32, (window_samples(TOKENS),))
AUDIO_FEATURES: Tensor = ("audio_features", _F32, (2, 1, TOKENS))
TOKEN: Tensor = ("token", _I64, (1,))
HEAT: Tensor = ("heat", _F32, (2, 2, 3))


def write_tiny_bundle(folder: Path) -> Path:
    """Write a bundle, as `fake_manifest` has it, and return its folder."""
    folder.mkdir(exist_ok=True)
    for name, model in tiny_graphs().items():
        onnx.save(model, folder / f"{name}.onnx")
    files = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
    parity = {"speech": {"cosine": 1.0}}
    write_manifest(folder, dataclasses.replace(fake_manifest(), parity=parity, files=files))
    return folder


def tiny_graphs() -> dict[str, onnx.ModelProto]:
    """Return graphs that mean something: of both heads, patches' means times a sample."""
    node = helper.make_node
    image = make_graph(
        [IMAGE],
        [IMAGE_FEATURES],
        [
            node("Cast", ["image"], ["pixels"], to=_F32),
            node("Reshape", ["pixels", "patches"], ["grid"]),
            node("ReduceMean", ["grid", "inner"], ["means"], keepdims=0),
            node("Add", ["means", "bias"], ["image_features"]),
        ],
        bias=np.zeros((2, 1, 1, 1), np.float32),
        patches=np.array([1, 1, 2, 8, 3, 8, 3]),
        inner=np.array([3, 5, 6]),
    )
    audio = make_graph(
        [WAVE],
        [AUDIO_FEATURES],
        [
            node("Slice", ["wave", "first", "end"], ["heard"]),
            node("Expand", ["heard", "shape"], ["audio_features"]),
        ],
        first=np.array([0]),
        end=np.array([TOKENS]),
        shape=np.array([2, 1, TOKENS]),
    )
    heatmap = make_graph(
        [IMAGE_FEATURES, AUDIO_FEATURES, TOKEN],
        [HEAT],
        [
            node("Gather", ["audio_features", "token"], ["one"], axis=2),
            node("Unsqueeze", ["one", "last"], ["one_each"]),
            node("Mul", ["image_features", "one_each"], ["product"]),
            node("ReduceSum", ["product", "channels"], ["heat"], keepdims=0),
        ],
        last=np.array([3]),
        channels=np.array([1]),
    )
    return {"image": image, "audio": audio, "heatmap": heatmap}


def make_graph(
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    nodes: Sequence[onnx.NodeProto],
    **constants: Any,
) -> onnx.ModelProto:
    """Return a model of these nodes."""
    made = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(*tensor) for tensor in inputs],
        [helper.make_tensor_value_info(*tensor) for tensor in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest's JSON in place."""
    path = folder / "manifest.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Put another file in a place and name its hash in the manifest, as a forger would."""
    (folder / name).write_bytes(content)
    edit_manifest(folder, lambda record: record["files"].update({name: file_sha256(folder / name)}))
