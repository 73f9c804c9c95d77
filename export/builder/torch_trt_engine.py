"""Engines by torch-tensorrt, from the modules themselves, on the GPU that will run them.

A module that becomes a graph of the bundle enters with an example of its inputs; the bytes of an
engine for TensorRT 11 leave. It is strongly typed: half precision is in the modules, and no
setting here changes a type.
"""

from typing import Any

import torch
from torch import Tensor

from denseav.export.builder.graphs import Graph
from denseav.export.runtime.bundle import BundleError

SETTINGS: dict[str, Any] = {
    "disable_tf32": True,  # float32 has all its digits
    "use_fp32_acc": True,  # products of halves are summed in float32, as ONNX Runtime does it
    "min_block_size": 1,
    "require_full_compilation": True,
}


def require_torch_tensorrt() -> None:
    """See that torch-tensorrt can be loaded.

    Raises
    ------
    BundleError
        When it is missing or cannot be loaded.
    """
    try:
        import torch_tensorrt  # noqa: F401
    except ModuleNotFoundError as error:
        raise BundleError(
            f"{error.name} is not installed; install it, in a clone of denseav, with: "
            "pip install '.[torch-tensorrt]'"
        ) from None
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise BundleError(
            f"torch-tensorrt cannot be loaded ({reason}); install one that goes with this "
            "PyTorch, in a clone of denseav, with: pip install '.[torch-tensorrt]'"
        ) from None


def contiguous(example: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the same values laid out in order, as TensorRT's inputs are."""
    return tuple(tensor.contiguous() for tensor in example)


def convert(name: str, graph: Graph, example: tuple[Tensor, ...]) -> bytes:
    """Return the engine of one module.

    Raises
    ------
    BundleError
        When TensorRT cannot build it.
    """
    import torch_tensorrt

    example = contiguous(example)
    with torch.no_grad():
        program = torch.export.export(graph, example)
    try:
        engine: bytes = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
            program,
            arg_inputs=example,
            arg_input_binding_names=graph.inputs,
            # Named as what is returned: one tensor, or a tuple of them.
            output_binding_names=graph.outputs if len(graph.outputs) > 1 else graph.outputs[0],
            **SETTINGS,
        )
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise BundleError(
            f"TensorRT could not build the {name} engine ({reason}); nothing was written; "
            "leave out --trt for the ONNX graphs alone"
        ) from None
    return engine
