"""`denseav-export --trt` and `--rebuild-engines`: what is refused, and what stays as it was."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from denseav.export import cli
from denseav.export.builder.atomic_folder import rewritten
from denseav.export.builder.build import Plan, remake_plan, require_same_model
from denseav.export.builder.graphs import make_graphs
from denseav.export.runtime.bundle import BundleError, Head, Manifest
from tests.support.fake_session import fake_manifest
from tests.support.tiny_model import tiny


def test_without_a_gpu_nothing_is_built_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("denseav.export.builder.trt_engine.cuda_is_here", lambda: False)
    assert cli.main(["any-checkpoint", "--trt", "fp16", "--out", str(tmp_path / "bundle")]) == 4
    assert "no NVIDIA GPU or driver was found; leave out --trt" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["x", "--trt", "bf16"],
        ["x", "--trt", "fp16", "--precision", "fp16"],
        ["x", "--rebuild-engines", "y"],
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


def test_a_bundle_is_remade_as_it_was() -> None:
    plan = Plan(source="tests", precision="fp32", frame_size=(16, 24), tokens=3, engines=True)
    assert remake_plan(fake_manifest()) == plan
    with pytest.raises(BundleError, match="no TensorRT engines in int8"):
        remake_plan(replace(fake_manifest(), precision="int8"))


@pytest.mark.parametrize(("name", "ceiling"), [("speech", 1.1), ("noise", 1.0)])
def test_a_source_that_became_another_model_is_noticed(name: str, ceiling: float) -> None:
    old = fake_manifest()
    require_same_model(old, other(old, "speech", 1.0001))
    with pytest.raises(BundleError, match=r"no longer the model .* nothing was changed"):
        require_same_model(old, other(old, name, ceiling))


def other(manifest: Manifest, name: str, ceiling: float) -> Manifest:
    head = Head(name=name, threshold=0.0, ceiling=ceiling)
    return replace(manifest, heads=(head, *manifest.heads[1:]))


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


def test_bytes_of_a_picture_are_cast_before_anything_else() -> None:
    model = tiny()
    model.prepare_export(32, 48)
    image_HW3 = torch.zeros(32, 48, 3, dtype=torch.uint8)
    with torch.no_grad():
        program = torch.export.export(make_graphs(model).image_graph, (image_HW3,))
    (name,) = program.graph_signature.user_inputs
    nodes = program.run_decompositions().graph.nodes
    (picture,) = (node for node in nodes if node.name == name)
    users = {str(user.target) for user in picture.users}
    # TensorRT takes uint8 into a cast and into no other layer; what asserts is no layer.
    assert users - {"aten._assert_tensor_metadata.default"} == {"aten._to_copy.default"}
