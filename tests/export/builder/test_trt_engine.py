"""`denseav-export --trt` and `--rebuild-engines`: engines built for real, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from denseav.export import cli
from denseav.export.builder.atomic_folder import rewritten
from denseav.export.runtime.bundle import AUDIO_STEP, GRAPHS, BundleError, demo_folder, open_bundle
from denseav.export.runtime.devices import cuda_is_here
from denseav.export.runtime.engine_facts import (
    Machine,
    MismatchError,
    check_engines,
    engine_path,
    sidecar_path,
)
from denseav.export.runtime.nvidia.trt_library import RTX, load_library
from denseav.export.runtime.open_session import open_session
from denseav.models import save
from tests.support.export.tiny_exports import ARGUMENTS
from tests.support.tiny_model import tiny


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's graphs with engines that TensorRT-RTX built from them, without a GPU."""
    folder = tmp_path_factory.mktemp("engines") / "bundle"
    shutil.copytree(demo_folder(), folder)
    assert cli.main(["--rebuild-engines", str(folder), "--trt-for", "12.1"]) == 0
    return folder


def test_engines_are_built_from_onnx_graphs_alone_and_the_rest_is_kept(engines: Path) -> None:
    before, after = open_bundle(demo_folder()).manifest, open_bundle(engines).manifest
    assert replace(after, files={}) == replace(before, files={})
    graphs = (*GRAPHS, AUDIO_STEP)
    built = {f"{graph}.{end}" for graph in graphs for end in ("engine", "engine.json")}
    assert set(after.files) == set(before.files) | built
    assert (engines / "CARD.md").read_bytes() == (demo_folder() / "CARD.md").read_bytes()
    trt = load_library(RTX)
    for graph in graphs:
        data = engine_path(engines, graph).read_bytes()
        assert len(data) > 100_000
        facts = json.loads(sidecar_path(engine_path(engines, graph)).read_text())
        assert facts["library"] == RTX
        assert facts["version"] == trt.__version__
        assert facts["compute_capabilities"] == ["8.0", "8.6", "8.9", "12.0", "12.1"]
        assert facts["source_sha256"] == after.files[f"{graph}.onnx"]


@pytest.mark.parametrize(
    ("capability", "fits"), [("8.9", True), ("12.1", True), ("9.0", False), ("7.5", False)]
)
def test_real_engines_are_for_the_cards_they_were_built_for(
    engines: Path, capability: str, fits: bool
) -> None:
    version = load_library(RTX).__version__
    machine = Machine(library=RTX, version=version, gpu="any", compute_capability=capability)
    if fits:
        for audio in ("window", "streaming"):
            check_engines(open_bundle(engines), machine, audio)
    else:
        with pytest.raises(MismatchError, match=rf"is {capability} here, and it was built for 8.0"):
            check_engines(open_bundle(engines), machine)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (1, "another version of TensorRT-RTX built it"),
        (2 + 16, "it was not built for this GPU, the GPU has too little memory"),
        (4, "the NVIDIA driver is older than the library; update the driver"),
    ],
)
def test_what_the_library_finds_before_opening_is_said_in_words(
    engines: Path, found: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from denseav.export.runtime.nvidia.trt_session import TrtEngine

    trt = load_library(RTX)

    class Runtime:
        def __init__(self, _log: object) -> None:
            """Open nothing: what is asked comes before."""

        def get_engine_validity(self, data: bytes) -> tuple[object, int]:
            assert data == engine_path(engines, "image").read_bytes()
            return trt.EngineValidity.INVALID, found

    monkeypatch.setattr(trt, "Runtime", Runtime)
    with pytest.raises(MismatchError, match=rf"image\.engine does not fit: {reason}.*; rebuild"):
        TrtEngine(trt, open_bundle(engines), "image", object())


def test_a_checkpoint_becomes_half_precision_engines_on_a_machine_without_a_gpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tiny(), tmp_path / "checkpoint")
    out = tmp_path / "bundle"
    arguments = [str(tmp_path / "checkpoint"), "--out", str(out), *ARGUMENTS, "--trt", "fp16"]
    assert cli.main(arguments) == 0
    bundle = open_bundle(out)
    assert bundle.manifest.precision == "fp16"
    assert engine_path(out, "image").name in bundle.manifest.files
    assert bundle.manifest.engine_parity == {} or cuda_is_here()
    assert "--device trt" in " ".join(capsys.readouterr().err.split())
    if not cuda_is_here():
        with pytest.raises(BundleError, match="no NVIDIA GPU or driver was found"):
            open_session(bundle, "trt")


def test_what_the_library_refuses_is_said_in_its_words_and_nothing_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(demo_folder(), folder)
    before = sorted(path.name for path in folder.iterdir())
    assert cli.main(["--rebuild-engines", str(folder), "--trt-for", "7.5"]) == 4
    said = capsys.readouterr().err.replace("\n", " ")
    assert "could not build the image engine" in said
    assert "SM75" in said
    assert sorted(path.name for path in folder.iterdir()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("builder", ["tensorrt", "torch-tensorrt"])
def test_builders_that_need_the_gpu_say_so_and_write_nothing(
    tmp_path: Path,
    builder: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("denseav.export.builder.trt_engine.cuda_is_here", lambda: False)
    out = str(tmp_path / "bundle")
    arguments = ["any-checkpoint", "--trt", "fp16", "--trt-builder", builder, "--out", out]
    assert cli.main(arguments) == 4
    said = capsys.readouterr().err
    assert "no NVIDIA GPU or driver was found; use --trt-builder rtx" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["x", "--trt", "bf16"],
        ["x", "--trt", "fp16", "--precision", "fp16"],
        ["x", "--rebuild-engines", "y"],
        ["x", "--trt", "fp16", "--trt-for", "9.0"],
        ["x", "--trt", "fp16", "--trt-builder", "tensorrt", "--trt-for", "12.1"],
        ["--rebuild-engines", "y", "--trt", "fp16"],
        ["--rebuild-engines", "y", "--trt-builder", "torch-tensorrt"],
    ],
)
def test_impossible_asks_are_usage_errors(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2


def test_a_dry_run_says_that_engines_would_be_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(Path(__file__).parents[3] / "configs" / "models" / "demo.json")
    assert cli.main([source, "--trt", "fp16", "--dry-run", "--out", str(tmp_path / "b")]) == 0
    assert "; fp16, frames of" in (said := capsys.readouterr().err)
    assert "with TensorRT engines; into" in said


def test_rebuilding_what_is_no_bundle_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--rebuild-engines", str(tmp_path)]) == 4
    assert "holds no manifest.json" in capsys.readouterr().err


def interrupted(folder: Path) -> None:
    (folder / "new.txt").write_text("half")
    raise KeyboardInterrupt


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    out.mkdir()
    (out / "old.txt").write_text("old")
    with pytest.raises(KeyboardInterrupt), rewritten(out) as folder:
        interrupted(folder)
    assert [path.name for path in out.iterdir()] == ["old.txt"]
    with rewritten(out) as folder:
        (folder / "new.txt").write_text("new")
    assert [path.name for path in out.iterdir()] == ["new.txt"]
    with pytest.raises(BundleError, match="cannot be written"), rewritten(out) as folder:
        shutil.rmtree(folder)
    assert [path.name for path in out.iterdir()] == ["new.txt"]
    assert list(tmp_path.iterdir()) == [out]
