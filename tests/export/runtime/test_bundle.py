"""The bundle: what opens, and what is refused with a remedy."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.external_data_helper import set_external_data

from denseav.export.runtime.bundle import BundleError, Head, open_bundle, write_manifest
from denseav.export.runtime.open_session import open_session
from tests.support.export.tiny_bundle import (
    AUDIO_FEATURES,
    HEAT,
    IMAGE,
    IMAGE_FEATURES,
    TOKEN,
    WAVE,
    Tensor,
    edit_manifest,
    make_graph,
    replace_file,
    tiny_graphs,
    write_tiny_bundle,
)

Record = dict[str, Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "whole")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "bundle"))


def test_what_was_written_is_read_back(folder: Path) -> None:
    bundle = open_bundle(folder)
    assert bundle.manifest.heads[1] == Head(name="sound", threshold=0.0, ceiling=1.0)
    assert bundle.manifest.audio.window_samples == 2960 + 2 * 2880
    write_manifest(folder, bundle.manifest)
    assert open_bundle(folder) == bundle


def test_its_graphs_run(folder: Path) -> None:
    session = open_session(open_bundle(folder), "cpu")
    image = session.encode_image(np.full((16, 24, 3), 4, np.uint8))
    audio = session.encode_audio(np.arange(8720, dtype=np.float32))
    np.testing.assert_allclose(session.heatmap(image, audio, 2), np.full((2, 2, 3), 8.0))


def test_the_model_is_named_by_all_its_files(folder: Path) -> None:
    bundle = open_bundle(folder)
    files = dict(bundle.manifest.files) | {"audio.onnx": "0" * 64}
    other = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, files=files))
    assert len(bundle.sha256) == 64
    assert other.sha256 != bundle.sha256


def test_a_newer_schema_asks_for_an_upgrade(folder: Path) -> None:
    edit_manifest(folder, lambda record: record.update(schema=3, heads="as a later one has it"))
    with pytest.raises(BundleError, match=r"schema 3, newer .* upgrade"):
        open_bundle(folder)


def test_fields_of_a_later_minor_version_are_ignored(folder: Path) -> None:
    edit_manifest(folder, lambda record: record.update(colour="green"))
    assert open_bundle(folder).manifest.model == "fake"


def test_an_empty_folder_says_how_to_make_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="denseav-export CHECKPOINT --out DIR"):
        open_bundle(tmp_path)


def test_weights_beside_a_graph_are_hashed_like_any_file(folder: Path) -> None:
    reads_weights(folder, "weights.bin")
    with pytest.raises(BundleError, match=r"image\.onnx reads weights\.bin, which the manifest"):
        open_bundle(folder)
    replace_file(folder, "weights.bin", (folder / "weights.bin").read_bytes())
    session = open_session(open_bundle(folder), "cpu")
    image = session.encode_image(np.full((16, 24, 3), 4, np.uint8))
    np.testing.assert_allclose(session.dense(image), np.full((2, 1, 2, 3), 4.0))
    (folder / "weights.bin").write_bytes(b"another")
    with pytest.raises(BundleError, match=r"weights\.bin is not the file"):
        open_bundle(folder)


def manifest(**changes: object) -> Callable[[Path], None]:
    return lambda folder: edit_manifest(folder, lambda record: record.update(changes))


def within(part: str, **changes: object) -> Callable[[Path], None]:
    return lambda folder: edit_manifest(folder, lambda record: record[part].update(changes))


def lacking(*names: str) -> Callable[[Path], None]:
    def change(record: Record) -> None:
        for name in names:
            del record[name]

    return lambda folder: edit_manifest(folder, change)


def heads(*scales: tuple[object, object, object]) -> Callable[[Path], None]:
    named = [{"name": n, "threshold": low, "ceiling": high} for n, low, high in scales]
    return manifest(heads=named, parity={})


def text(content: str | bytes) -> Callable[[Path], None]:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / "manifest.json").write_bytes(data) and None


def forged(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: replace_file(folder, f"{name}.onnx", content)


def other_graph(name: str, inputs: list[Tensor], outputs: list[Tensor]) -> Callable[[Path], None]:
    """Have a graph that says it takes and gives these, and gives zeros."""
    nodes = [
        helper.make_node("Constant", [], [output], value=numpy_helper.from_array(np.zeros(shape)))
        for output, _, shape in outputs
    ]
    return forged(name, make_graph(inputs, outputs, nodes).SerializeToString())


def reads_weights(folder: Path, location: str) -> None:
    """Move the image graph's bias into a file beside it."""
    model = tiny_graphs()["image"]
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "bias")
    content = numpy_helper.to_array(bias).tobytes()
    set_external_data(bias, location, offset=0, length=len(content))
    bias.ClearField("raw_data")
    if "/" not in location:
        (folder / location).write_bytes(content)
    replace_file(folder, "image.onnx", model.SerializeToString())


def in_a_node(folder: Path) -> None:
    """Hide external data in an attribute of a node within the branch of another."""
    tensor = numpy_helper.from_array(np.ones(3, np.float32), "hidden")
    set_external_data(tensor, "secret.bin", offset=0, length=12)
    tensor.ClearField("raw_data")
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["out"], value=tensor)],
        "branch",
        [],
        [helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [3])],
    )
    model = tiny_graphs()["heatmap"]
    model.graph.node.append(
        helper.make_node("If", ["yes"], ["unused"], then_branch=inner, else_branch=inner)
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    replace_file(folder, "heatmap.onnx", model.SerializeToString())


def pipe(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return make


STATE = {"shape": [4], "dtype": "float32"}
STEP = {"context_tokens": 4, "revisit": 1, "states": {"filled": STATE}}
NARROW: Tensor = ("image_features", onnx.TensorProto.FLOAT, (2, 2, 2, 3))
DAMAGED: dict[str, Callable[[Path], Any]] = {
    "no JSON": text(""),
    "a list": text("[]"),
    "an empty record": text("{}"),
    "a schema that is a word": text('{"schema": "one"}'),
    "a schema and no more": text('{"schema": 1}'),
    "bytes": text(b"\x00\xff\xfe"),
    "not UTF-8": text(b'{"schema": 2, "model": "caf\xe9"}'),
    "nested without end": text("[" * 100_000),
    "an endless object": text('{"schema": ' * 100_000),
    "a manifest of a gigabyte": lambda folder: os.truncate(folder / "manifest.json", 10**9),
    "a manifest that is a pipe": pipe("manifest.json"),
    "a graph that is a pipe": pipe("image.onnx"),
    "a graph that is missing": lambda folder: (folder / "image.onnx").unlink(),
    "a graph that is another": lambda folder: (folder / "audio.onnx").write_bytes(b"another"),
    "no model's name": lacking("model"),
    "no heads": manifest(heads=[], parity={}),
    "a head without a scale": manifest(heads=[{"name": "speech"}]),
    "heads that are words": manifest(heads=["speech"]),
    "equal heads": heads(("speech", 1, 2), ("speech", 1, 2)),
    "a head without a name": heads(("", 1, 2)),
    "a head with an endless name": heads(("a" * 300, 1, 2)),
    "a ceiling below its threshold": heads(("speech", 2, 1)),
    "a ceiling at its threshold": heads(("speech", 1, 1)),
    "a threshold that is NaN": heads(("speech", float("nan"), 1)),
    "an infinite ceiling": heads(("speech", 1, float("inf"))),
    "a threshold beyond numbers": lambda folder: text(
        (folder / "manifest.json").read_text().replace("0.0", "1e999", 1)
    )(folder),
    "a threshold that is a word": heads(("speech", "1", 2)),
    "a threshold that is nothing": heads(("speech", None, 2)),
    "one head where graphs have two": heads(("speech", 1, 2)),
    "parity of another head": manifest(parity={"music": {"cosine": 1.0}}),
    "no image": manifest(image=None),
    "a huge image": within("image", height=160_000, width=240_000),
    "a negative image": within("image", height=-16, width=-24),
    "an image that is no grid": within("image", grid_height=3),
    "patches that are no squares": within("image", width=48),
    "another grid than the graphs'": within("image", grid_height=4, grid_width=6),
    "a window of other tokens": within("audio", window_samples=16_000),
    "another window than the graphs'": within("audio", window_samples=5840, tokens=2),
    "no tokens": within("audio", window_samples=80, tokens=0),
    "an energy floor that is NaN": within("audio", energy_floor_dbfs=float("nan")),
    "a precision that is none": manifest(precision="fp128"),
    "no files": manifest(files={}),
    "a file elsewhere": within("files", **{"../../etc/passwd": "0" * 64}),
    "a file elsewhere on Windows": within("files", **{"..\\secret": "0" * 64}),
    "a hash that is none": within("files", **{"image.onnx": "0"}),
    "a state of a terabyte": manifest(
        audio_step=STEP | {"states": {"a": {"shape": [2**20, 2**20], "dtype": "float32"}}}
    ),
    "a state of no dtype": manifest(
        audio_step=STEP | {"states": {"a": {"shape": [1], "dtype": "object"}}}
    ),
    "a state of size 0": manifest(
        audio_step=STEP | {"states": {"a": {"shape": [0], "dtype": "float32"}}}
    ),
    "a state in place that there is not": manifest(audio_step=STEP | {"in_place": ["keys_0"]}),
    "a step without a graph": manifest(audio_step=STEP),
    "a step longer than a window": manifest(audio_step=STEP | {"revisit": 3}),
    "a graph that is none": forged("image", b"\x08\x0a garbage"),
    "an empty graph": forged("image", b""),
    "a graph cut short": lambda folder: forged("image", (folder / "image.onnx").read_bytes()[:-40])(
        folder
    ),
    "an image of floats": other_graph(
        "image", [("image", onnx.TensorProto.FLOAT, (16, 24, 3))], [IMAGE_FEATURES]
    ),
    "an image of another name": other_graph("image", [("frame", *IMAGE[1:])], [IMAGE_FEATURES]),
    "an image graph of more channels": other_graph("image", [IMAGE], [NARROW]),
    "an image graph of no size": other_graph(
        "image", [("image", onnx.TensorProto.UINT8, ())], [IMAGE_FEATURES]
    ),
    "an audio graph of another window": other_graph(
        "audio", [("wave", onnx.TensorProto.FLOAT, (100,))], [AUDIO_FEATURES]
    ),
    "an audio graph of one token": other_graph(
        "audio", [WAVE], [("audio_features", onnx.TensorProto.FLOAT, (2, 1, 1))]
    ),
    "a heatmap without a token": other_graph("heatmap", [IMAGE_FEATURES, AUDIO_FEATURES], [HEAT]),
    "a heatmap of another grid": other_graph(
        "heatmap",
        [IMAGE_FEATURES, AUDIO_FEATURES, TOKEN],
        [("heat", onnx.TensorProto.FLOAT, (2, 4, 6))],
    ),
    "a heatmap that gives nothing": other_graph(
        "heatmap", [IMAGE_FEATURES, AUDIO_FEATURES, TOKEN], []
    ),
    "weights elsewhere": lambda folder: reads_weights(folder, "/etc/passwd"),
    "weights above": lambda folder: reads_weights(folder, "../weights.bin"),
    "weights hidden in a node": in_a_node,
    "an operator that there is not": forged(
        "audio",
        make_graph(
            [WAVE], [AUDIO_FEATURES], [helper.make_node("Secret", ["wave"], ["audio_features"])]
        ).SerializeToString(),
    ),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_or_contradictory_bundle_is_refused_in_a_line(
    folder: Path, damage: Callable[[Path], object]
) -> None:
    damage(folder)
    with pytest.raises(BundleError) as refused:
        open_session(open_bundle(folder), "cpu")
    assert refused.value.exit_code == 4
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 1000
    assert "again" in str(refused.value) or "denseav-export" in str(refused.value)


def test_every_field_of_a_manifest_is_checked(folder: Path) -> None:
    """Whatever else stands in a field: refused, or as harmless as the field allows."""
    whole = json.loads((folder / "manifest.json").read_text())
    free = {"calibration", "source", "trained", "model", "opset", "naming"}
    for name in whole.keys() - free:
        for wrong in (-1, "x", [[]], {"x": {"y": []}}, True, 2**70):
            (folder / "manifest.json").write_text(json.dumps(whole | {name: wrong}))
            with pytest.raises(BundleError):
                open_bundle(folder)
