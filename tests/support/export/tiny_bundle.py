"""A bundle of real ONNX graphs of a few bytes, and the same with its parts replaced."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from denseav.export.runtime.bundle import (
    MANIFEST,
    Bundle,
    file_sha256,
    open_bundle,
    window_samples,
    write_manifest,
)
from denseav.export.runtime.onnx_session import OnnxSession
from denseav.export.runtime.proof import Probes, reproduce, write_probes
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


def write_probed_bundle(folder: Path) -> Bundle:
    """Write a tiny bundle with a probe that it reproduces."""
    bundle = open_bundle(write_tiny_bundle(folder))
    rng = np.random.default_rng(0)
    probes = Probes(
        pictures_Phw3=rng.integers(0, 256, (1, 4, 6, 3), np.uint8),
        sounds_PS=rng.integers(-20_000, 20_000, (1, 800)).astype(np.int16),
        tokens=np.array([0, TOKENS - 1]),
    )
    samples = bundle.manifest.audio.window_samples
    heat_NKHW, _ = reproduce(OnnxSession(bundle), probes, height=16, width=24, samples=samples)
    write_probes(folder, dataclasses.replace(probes, heat_NKHW=heat_NKHW))
    return signed(bundle)


def signed(bundle: Bundle, **changes: Any) -> Bundle:
    """Say in the manifest what is in the folder, as whoever exported the bundle wrongly would."""
    paths = sorted(path for path in bundle.folder.iterdir() if path.name != MANIFEST)
    files = {path.name: file_sha256(path) for path in paths}
    write_manifest(bundle.folder, dataclasses.replace(bundle.manifest, files=files, **changes))
    return open_bundle(bundle.folder)


def with_changed_weight(bundle: Bundle) -> Bundle:
    """Change one weight of the image graph."""
    graph = tiny_graphs()["image"]
    (bias,) = (tensor for tensor in graph.graph.initializer if tensor.name == "bias")
    weights = numpy_helper.to_array(bias).copy()
    weights[0] += 1
    bias.CopyFrom(numpy_helper.from_array(weights, bias.name))
    onnx.save(graph, bundle.graph("image"))
    return signed(bundle)


def with_overflow(bundle: Bundle) -> Bundle:
    """Give features in half precision, pictures' a thousand times too large for it."""
    graphs, half = tiny_graphs(), TensorProto.FLOAT16
    for name, scale in (("image", 1e3), ("audio", 1e-3)):
        graph, features = graphs[name].graph, f"{name}_features"
        graph.node[-1].output[0] = "exact"
        graph.initializer.append(numpy_helper.from_array(np.float32(scale), "scale"))
        graph.node.append(helper.make_node("Mul", ["exact", "scale"], ["scaled"]))
        graph.node.append(helper.make_node("Cast", ["scaled"], [features], to=half))
        graph.output[0].type.tensor_type.elem_type = half
        taken = graphs["heatmap"].graph
        for place in (place for place in taken.input if place.name == features):
            place.type.tensor_type.elem_type = half
        for node in taken.node:
            node.input[:] = [f"{i}_exact" if i == features else i for i in node.input]
        taken.node.insert(0, helper.make_node("Cast", [features], [f"{features}_exact"], to=_F32))
    for name, graph in graphs.items():
        onnx.save(graph, bundle.graph(name))
    return signed(bundle, precision="fp16")


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
