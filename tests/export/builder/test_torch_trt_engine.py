"""torch-tensorrt as a builder: what it is given, and what is said when it cannot be had."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from denseav.export.builder.graphs import HeatmapGraph, make_graphs
from denseav.export.builder.torch_trt_engine import convert, require_torch_tensorrt
from denseav.export.runtime.bundle import BundleError
from tests.support.export.fake_gpu import Gpu, fake_gpu
from tests.support.tiny_model import tiny


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    with fake_gpu() as gpu:
        yield gpu


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


def test_an_engine_that_cannot_be_built_is_one_line(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise RuntimeError("no converter for aten.frob\nlong story")

    name = "convert_exported_program_to_serialized_trt_engine"
    monkeypatch.setattr(sys.modules["torch_tensorrt"].dynamo, name, fail)
    features = torch.zeros(2, 3, 4, 6), torch.zeros(2, 3, 5), torch.tensor([0])
    with pytest.raises(BundleError, match=r"the heatmap engine \(no converter for aten.frob\);"):
        convert("heatmap", HeatmapGraph().eval(), features)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ModuleNotFoundError("No module", name="torch_tensorrt"),
            "torch_tensorrt is not installed",
        ),
        (
            OSError("libtorchtrt.so: undefined symbol\nmore"),
            r"loaded \(libtorchtrt.so: undef.*l\);",
        ),
    ],
)
def test_torch_tensorrt_that_cannot_be_had_is_one_line(
    gpu: Gpu, tmp_path: Path, error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = f", name={error.name!r}" if isinstance(error, ImportError) else ""
    code = f"raise {type(error).__name__}({error.args[0]!r}{named})"
    (tmp_path / "torch_tensorrt.py").write_text(code)
    monkeypatch.delitem(sys.modules, "torch_tensorrt")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BundleError, match=message):
        require_torch_tensorrt()
