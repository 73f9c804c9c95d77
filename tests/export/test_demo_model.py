"""The shipped demo model, as it is in the package: what its card says of it, and what it finds."""

import ctypes.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from denseav.export.builder import probe_inputs
from denseav.export.builder.graphs import Graph, make_graphs
from denseav.export.runtime.bundle import (
    TOKEN_HOP_SAMPLES,
    TOKEN_SPAN_SAMPLES,
    demo_folder,
    open_bundle,
    window_samples,
)
from denseav.export.runtime.open_session import open_session
from denseav.export.runtime.session import Level, normalized
from denseav.models import load
from denseav.models.audio_encoder import SAMPLE_RATE_HZ
from denseav.models.audio_stream import AudioStream
from denseav.models.streaming_mask import StreamConfig
from denseav.train.eval.exported_model import open_model
from denseav.train.eval.world.evaluator import WorldEvaluator, make_evaluator, points
from denseav.train.eval.world.split import Split
from denseav.train.world.clips import Head

MAX_BYTES = 24 * 10**6
CLIPS = 24
LEAST_POINTED = 0.6
"""Far below what the card says, for few clips; far above chance, which is 0.04."""


def test_it_is_small_and_says_that_it_is_trained() -> None:
    files = [*demo_folder().iterdir()]
    assert sum(file.stat().st_size for file in files) <= MAX_BYTES
    manifest = json.loads((demo_folder() / "manifest.json").read_text())
    assert manifest["trained"] is True
    assert "negatives" in manifest["calibration"]


def test_its_card_is_of_this_very_bundle() -> None:
    manifest = json.loads((demo_folder() / "manifest.json").read_text())
    card = (demo_folder() / "CARD.md").read_text()
    for name, digest in manifest["files"].items():
        assert f"`{name}` {digest[:12]}" in card


@pytest.mark.parametrize("name", ["image", "audio"])
def test_its_weights_are_those_of_its_graphs_layer_by_layer(name: str) -> None:
    manifest = open_bundle(demo_folder()).manifest
    model = load("demo")
    assert model.config.trained
    assert model.config.heads == tuple(head.name for head in manifest.heads)
    model.prepare_export(manifest.image.height, manifest.image.width)
    module = make_graphs(model).named()[name]
    if name == "image":
        example = probe_inputs.frames(1, manifest.image.height, manifest.image.width)[0]
    else:
        example = normalized(probe_inputs.sounds(1, manifest.audio.window_samples)[0])
    of_graph = graph_layers(demo_folder() / f"{name}.onnx", module.inputs[0], example)
    of_weights = module_layers(module, example)
    assert len(of_graph) == len(of_weights) > 10
    for theirs, ours in zip(of_graph, of_weights, strict=True):
        assert np.abs(theirs.reshape(ours.shape) - ours).max() <= 1e-5 * max(1, np.abs(ours).max())


@torch.inference_mode()
def test_its_step_is_the_stream_of_its_weights() -> None:
    bundle = open_bundle(demo_folder())
    step = bundle.manifest.audio_step
    assert step is not None
    assert step.in_place
    model = load("demo")
    model.prepare_export(bundle.manifest.image.height, bundle.manifest.image.width)
    config = StreamConfig(context_tokens=step.context_tokens, revisit=step.revisit)
    encode = AudioStream(model, config)
    state = encode.start()
    stream = open_session(bundle, "cpu", audio="streaming").audio_stream()
    wave_S = probe_inputs.sounds(1, window_samples(30))[0]
    for first in range(0, TOKEN_HOP_SAMPLES * 30, TOKEN_HOP_SAMPLES):
        samples_S = wave_S[first : first + TOKEN_SPAN_SAMPLES]
        theirs_KCT = np.asarray(stream.step(samples_S, Level(0.0, 1.0)).numpy())
        ours_KCR, state = encode(torch.from_numpy(samples_S), state)
        difference_KCR = theirs_KCT[:, :, -config.active_tokens :] - ours_KCR.numpy()
        assert np.abs(difference_KCR).max() <= 1e-5 * max(1, float(ours_KCR.abs().max()))


def graph_layers(path: Path, entry: str, example: NDArray[Any]) -> list[NDArray[np.float32]]:
    """Every layer norm's output in the order of the graph, and the graph's own."""
    graph = onnx.load(path)
    norms = [node.output[0] for node in graph.graph.node if node.op_type == "LayerNormalization"]
    final = [output.name for output in graph.graph.output]
    graph.graph.output.extend(onnx.ValueInfoProto(name=norm) for norm in norms)
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(each) for each in session.run(norms + final, {entry: example})]


@torch.no_grad()
def module_layers(module: Graph, example: NDArray[Any]) -> list[NDArray[np.float32]]:
    """Every layer norm's output in the order of the call, and the module's own."""
    found: list[NDArray[np.float32]] = []

    def keep(_: nn.Module, __: object, output: Tensor) -> None:
        found.append(output.numpy())

    for layer in module.modules():
        if isinstance(layer, nn.LayerNorm):
            layer.register_forward_hook(keep)
    output = module(torch.from_numpy(example))
    return [*found, output.numpy()]


@pytest.fixture(scope="module")
def evaluator() -> WorldEvaluator:
    model = open_model("demo", "cpu").model
    assert model.window_samples <= 2 * SAMPLE_RATE_HZ
    return make_evaluator(
        model, Split(seed=11, size=model.frame_size, samples=model.window_samples)
    )


@pytest.mark.skipif(
    ctypes.util.find_library("espeak-ng") is None, reason="espeak-ng is not installed"
)
@pytest.mark.parametrize("head", ["sound", "speech"])
def test_it_points_at_what_it_hears(evaluator: WorldEvaluator, head: Head) -> None:
    hits = 0
    for number in range(CLIPS):
        case = evaluator.split.case(head, number)
        event = case.clip.events[0]
        volume_THW = evaluator.encode(case)[1][evaluator.own[head]]
        hits += points(evaluator.heatmap(volume_THW, event), case.truth(event.name))
    assert hits >= LEAST_POINTED * CLIPS
