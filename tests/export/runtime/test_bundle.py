"""The bundle: what opens, and what is refused with a remedy."""

import dataclasses
import json
from pathlib import Path

import pytest

from denseav.export.runtime.bundle import (
    AudioInput,
    BundleError,
    Head,
    ImageInput,
    Manifest,
    file_sha256,
    open_bundle,
    window_samples,
    write_manifest,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle whose graphs are any bytes: this module never opens them."""
    names = [f"{graph}.onnx" for graph in ("image", "audio", "heatmap")]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    manifest = Manifest(
        model="test",
        trained=False,
        source="a test",
        precision="fp32",
        opset=20,
        heads=(Head(name="speech", threshold=1.0, ceiling=2.0),),
        image=ImageInput(height=16, width=24, grid_height=2, grid_width=3),
        audio=AudioInput(window_samples=window_samples(3), tokens=3, energy_floor_dbfs=-60),
        parity={"speech": {"cosine": 1.0}},
        files={name: file_sha256(tmp_path / name) for name in names},
    )
    write_manifest(tmp_path, manifest)
    return tmp_path


def edit(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_was_written_is_read_back(folder: Path) -> None:
    bundle = open_bundle(folder)
    assert bundle.manifest.heads == (Head(name="speech", threshold=1.0, ceiling=2.0),)
    assert bundle.manifest.audio.window_samples == 2960 + 2 * 2880
    assert bundle.graph("audio").read_bytes() == b"audio.onnx"
    write_manifest(folder, bundle.manifest)
    assert open_bundle(folder) == bundle


def test_the_model_is_named_by_all_its_files(folder: Path) -> None:
    bundle = open_bundle(folder)
    files = dict(bundle.manifest.files) | {"audio.onnx": "0" * 64}
    other = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, files=files))
    assert len(bundle.sha256) == 64
    assert other.sha256 != bundle.sha256


def test_a_changed_graph_is_refused(folder: Path) -> None:
    (folder / "audio.onnx").write_bytes(b"something else")
    with pytest.raises(BundleError, match=r"audio\.onnx is not the file .* again"):
        open_bundle(folder)


def test_a_missing_graph_is_refused(folder: Path) -> None:
    (folder / "image.onnx").unlink()
    with pytest.raises(BundleError, match=r"image\.onnx is missing"):
        open_bundle(folder)


def test_a_newer_schema_asks_for_an_upgrade(folder: Path) -> None:
    edit(folder, schema=3)
    with pytest.raises(BundleError, match=r"schema 3, newer .* upgrade"):
        open_bundle(folder)


def test_fields_of_a_later_minor_version_are_ignored(folder: Path) -> None:
    edit(folder, colour="green")
    assert open_bundle(folder).manifest.model == "test"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "one"}', '{"schema": 1}', "\x00"])
def test_a_manifest_that_is_none_is_refused(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match="export"):
        open_bundle(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"heads": [{"name": "speech"}]},
        {"image": None},
        {"files": {"../../etc/passwd": "0" * 64}},
        {"files": {}},
        {"audio": {"window_samples": 16000, "tokens": 3, "energy_floor_dbfs": -60}},
    ],
)
def test_damaged_fields_are_refused(folder: Path, changes: dict[str, object]) -> None:
    edit(folder, **changes)
    with pytest.raises(BundleError, match="again"):
        open_bundle(folder)


def test_an_empty_folder_says_how_to_make_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="denseav-export CHECKPOINT --out DIR"):
        open_bundle(tmp_path)
