"""TensorRT where it is not: facts checked before engines are opened, and what is said instead."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from onnx import helper

from denseav.export.runtime import open_session as opening
from denseav.export.runtime.bundle import (
    GRAPHS,
    Bundle,
    BundleError,
    file_sha256,
    open_bundle,
    write_manifest,
)
from denseav.export.runtime.engine_facts import (
    Machine,
    MismatchError,
    Sidecar,
    check_engines,
    engine_path,
    sidecar_path,
    write_sidecar,
)
from denseav.export.runtime.nvidia.trt_library import load_library
from denseav.export.runtime.open_session import open_session
from tests.support.export.fake_gpu import Gpu, fake_gpu
from tests.support.export.tiny_bundle import (
    IMAGE,
    IMAGE_FEATURES,
    make_graph,
    replace_file,
    write_tiny_bundle,
)
from tests.support.fake_session import fake_manifest

HERE = Machine(
    library="tensorrt", version="11.1.0.106", gpu="NVIDIA Fake 1", compute_capability="9.0"
)
SHAPES = {
    "image": {"image": [16, 24, 3]},
    "audio": {"wave": [8720]},
    "heatmap": {"heat": [2, 2, 3]},
}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle whose engines are any bytes, and whose facts fit `HERE`."""
    folder = write_tiny_bundle(tmp_path / "bundle")
    for graph in GRAPHS:
        onnx = folder / f"{graph}.onnx"
        engine = engine_path(folder, graph)
        engine.write_bytes(b"engine of " + graph.encode())
        sidecar = Sidecar(
            library=HERE.library,
            version=HERE.version,
            compute_capabilities=("8.9", HERE.compute_capability),
            gpu=HERE.gpu,
            precision="fp32",
            shapes=SHAPES[graph] | {"features": [2, 10]},
            source_sha256=file_sha256(onnx),
        )
        write_sidecar(engine, sidecar)
    return signed(folder)


def signed(folder: Path) -> Bundle:
    files = {p.name: file_sha256(p) for p in folder.iterdir() if p.name != "manifest.json"}
    write_manifest(folder, replace(fake_manifest(), files=files))
    return open_bundle(folder)


def edit(bundle: Bundle, graph: str, **changes: object) -> Bundle:
    path = sidecar_path(engine_path(bundle.folder, graph))
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return signed(bundle.folder)


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    with fake_gpu() as gpu:
        yield gpu


def test_facts_that_fit_are_accepted(bundle: Bundle) -> None:
    check_engines(bundle, HERE)


MISMATCHES = [
    ({"library": "tensorrt_rtx"}, "the library is tensorrt here, .* built for tensorrt_rtx"),
    ({"version": "10.9.0.34"}, r"its version is 11\.1\.0\.106 here, .* built for 10\.9\.0\.34"),
    ({"gpu": "NVIDIA Other"}, "the GPU is NVIDIA Fake 1 here, .* built for NVIDIA Other"),
    (
        {"compute_capabilities": ["8.6", "8.9"]},
        r"the GPU's compute capability is 9\.0 here, .* built for 8\.6, 8\.9",
    ),
    ({"precision": "fp16"}, "the precision is fp32 here, .* built for fp16"),
    (
        {"source_sha256": "0" * 64},
        "the sha256 of the ONNX graph is [0-9a-f]{64} here, .* built for 000",
    ),
    ({"shapes": {"wave": [2960]}}, r"the shape of wave is \[8720\] here, .* built for \[2960\]"),
    ({"shapes": {}}, r"the shape of wave is \[8720\] here, .* built for None"),
]


@pytest.mark.parametrize(("changes", "message"), MISMATCHES)
def test_a_mismatch_names_the_field_and_the_remedy(
    bundle: Bundle, gpu: Gpu, changes: dict[str, object], message: str
) -> None:
    bundle = edit(bundle, "audio", **changes)
    remedy = f"rebuild it with: denseav-export --rebuild-engines {bundle.folder}"
    with pytest.raises(MismatchError, match=rf"^audio\.engine does not fit: {message}") as caught:
        open_session(bundle, "trt")
    assert str(caught.value).endswith(remedy)
    assert gpu.opened == 0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"shapes": 3}', "\x00", '{"tensorrt": "11"}'])
def test_damaged_facts_are_no_facts(bundle: Bundle, gpu: Gpu, text: str) -> None:
    sidecar_path(engine_path(bundle.folder, "heatmap")).write_text(text)
    with pytest.raises(MismatchError, match=r"heatmap\.engine is not opened; rebuild"):
        open_session(signed(bundle.folder), "trt")
    assert gpu.opened == 0


def test_missing_facts_are_no_facts(bundle: Bundle, gpu: Gpu) -> None:
    sidecar_path(engine_path(bundle.folder, "image")).unlink()
    with pytest.raises(MismatchError, match=r"image\.engine\.json is missing"):
        open_session(signed(bundle.folder), "trt")
    assert gpu.opened == 0


def test_a_bundle_without_engines_says_how_to_get_them(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("denseav.export.runtime.open_session.cuda_is_here", lambda: True)
    engine_path(bundle.folder, "audio").unlink()
    with pytest.raises(
        BundleError, match=r"no TensorRT engines \(audio\); add them with: denseav-export --rebuild"
    ):
        open_session(signed(bundle.folder), "trt")


def test_onnx_is_run_instead_only_when_asked_and_said(
    bundle: Bundle, gpu: Gpu, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = edit(bundle, "image", gpu="NVIDIA Other")
    monkeypatch.setattr(opening, "OnnxSession", lambda bundle, **_: (bundle, "cpu"))
    assert open_session(bundle, "trt", on_mismatch="onnx") == (bundle, "cpu")
    assert "running the ONNX graphs instead: image.engine does not fit: the GPU" in caplog.text
    assert "on cpu; passed over: cuda (" in caplog.text


def test_rebuilding_runs_the_exporter_and_opens_what_it_made(
    bundle: Bundle, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = edit(bundle, "image", gpu="NVIDIA Other")

    def rebuild(command: list[str], check: bool) -> object:
        assert command[0] == sys.executable
        assert command[-2:] == ["--rebuild-engines", str(stale.folder)]
        edit(stale, "image", gpu=HERE.gpu)
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(opening.subprocess, "run", rebuild)
    with pytest.raises(BundleError, match="magic tag does not match"):  # opened, at last
        open_session(stale, "trt", on_mismatch="rebuild")
    assert gpu.opened == 1


def test_a_rebuild_that_fails_is_said_and_nothing_is_opened(
    bundle: Bundle, gpu: Gpu, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = [helper.make_node("Secret", ["image"], ["image_features"])]
    unbuildable = make_graph([IMAGE], [IMAGE_FEATURES], secret).SerializeToString()
    replace_file(bundle.folder, "image.onnx", unbuildable)
    stale = open_bundle(bundle.folder)
    before = {path.name: path.read_bytes() for path in stale.folder.iterdir()}
    with pytest.raises(BundleError, match="not rebuilt, for the reason above; use --on-mismatch"):
        open_session(stale, "trt", on_mismatch="rebuild")
    assert gpu.opened == 0
    assert "denseav-export: error:" in capfd.readouterr().err
    assert {path.name: path.read_bytes() for path in stale.folder.iterdir()} == before


def test_no_gpu_is_said_before_tensorrt_is_asked_for(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("denseav.export.runtime.open_session.cuda_is_here", lambda: False)
    with pytest.raises(BundleError, match="no NVIDIA GPU or driver"):
        open_session(bundle, "trt")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tensorrt", r"tensorrt is not installed; install NVIDIA's TensorRT 10 or 11"),
        ("cuda.bindings", r"CUDA bindings cannot be loaded .*\.\[trt-runtime\]"),
    ],
)
def test_a_missing_module_is_one_line_with_the_remedy(
    bundle: Bundle, name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_gpu():
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(BundleError, match=message):
            open_session(bundle, "trt")
        monkeypatch.undo()


def test_libraries_that_do_not_load_are_one_line_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt.abi3.so").write_bytes(b"no library" * 100)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BundleError, match=r"libraries cannot be loaded \(.*tensorrt\.abi3\.so"):
        load_library("tensorrt")


def test_a_library_that_nobody_knows_is_not_imported(bundle: Bundle, gpu: Gpu) -> None:
    edit(bundle, "image", library="antigravity")
    with pytest.raises(BundleError, match="'antigravity' is no TensorRT library"):
        open_session(signed(bundle.folder), "trt")
    assert "antigravity" not in sys.modules
