"""The graphs as TensorRT engines, built by torch-tensorrt on the GPU that will run them.

The same modules that become ONNX enter; `image.engine` and its like leave, each with the facts
about it beside (`denseav.export.runtime.engine_facts`). TensorRT 11 is strongly typed: half
precision is in the modules, and no setting here changes a type.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from denseav.export.builder.graphs import Graph
from denseav.export.runtime.bundle import BundleError, Manifest, file_sha256
from denseav.export.runtime.engine_facts import Sidecar, engine_path, sidecar_path, write_sidecar
from denseav.export.runtime.onnx_session import cuda_is_here
from denseav.export.runtime.open_session import trt_runtime

SETTINGS: dict[str, Any] = {
    "disable_tf32": True,  # float32 has all its digits
    "use_fp32_acc": True,  # products of halves are summed in float32, as ONNX Runtime does it
    "min_block_size": 1,
    "require_full_compilation": True,
}


def require_tools() -> None:
    """See that engines can be built here, before hours go into anything else.

    Raises
    ------
    BundleError
        When there is no GPU, or TensorRT or torch-tensorrt is missing or cannot be loaded.
    """
    if not cuda_is_here():
        raise BundleError(
            "engines are built on the GPU that will run them, and no NVIDIA GPU or driver was "
            "found; leave out --trt, or run this on a machine with one"
        )
    trt_runtime()
    try:
        import torch_tensorrt  # noqa: F401
    except ModuleNotFoundError as error:
        raise BundleError(
            f"{error.name} is not installed; install it, in a clone of denseav, with: "
            "pip install '.[trt]'"
        ) from None
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise BundleError(
            f"torch-tensorrt cannot be loaded ({reason}); install one that goes with this "
            "PyTorch, in a clone of denseav, with: pip install '.[trt]'"
        ) from None


def write_engines(
    graphs: dict[str, Graph],
    examples: dict[str, tuple[Tensor, ...]],
    manifest: Manifest,
    folder: Path,
    step: Callable[[str], None],
) -> Manifest:
    """Build an engine of each graph into `folder`, where its ONNX file already is.

    Returns the manifest with the new files in it.

    Raises
    ------
    BundleError
        When TensorRT cannot build one.
    """
    machine = trt_runtime().this_machine()
    files = dict(manifest.files)
    for name, graph in graphs.items():
        step(f"the {name} engine")
        example = contiguous(examples[name])
        engine = engine_path(folder, name)
        engine.write_bytes(_build(name, graph, example))
        sidecar = Sidecar(
            **dataclasses.asdict(machine),
            precision=manifest.precision,
            shapes=_shapes(graph, example),
            source_sha256=files[f"{name}.onnx"],
        )
        write_sidecar(engine, sidecar)
        for path in (engine, sidecar_path(engine)):
            files[path.name] = file_sha256(path)
    return dataclasses.replace(manifest, files=files)


def contiguous(example: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the same values laid out in order, as TensorRT's inputs are."""
    return tuple(tensor.contiguous() for tensor in example)


def _build(name: str, graph: Graph, example: tuple[Tensor, ...]) -> bytes:
    import torch_tensorrt

    with torch.no_grad():
        program = torch.export.export(graph, example)
    try:
        engine: bytes = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
            program,
            arg_inputs=example,
            arg_input_binding_names=graph.inputs,
            output_binding_names=graph.outputs[0],
            **SETTINGS,
        )
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise BundleError(
            f"TensorRT could not build the {name} engine ({reason}); nothing was written; "
            "leave out --trt for the ONNX graphs alone"
        ) from None
    return engine


@torch.no_grad()
def _shapes(graph: Graph, example: tuple[Tensor, ...]) -> dict[str, list[int]]:
    tensors = dict(zip(graph.inputs, example, strict=True)) | {graph.outputs[0]: graph(*example)}
    return {name: list(tensor.shape) for name, tensor in tensors.items()}
