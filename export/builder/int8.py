"""Eight-bit weights for CPUs: matrix products of an ONNX graph in integers, scales found live.

A float32 graph enters, the same graph with its constant matrices in int8 leaves, in its place.
Activations are quantised on the way, with a scale for each tensor as it comes ("dynamic").
"""

from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic


def quantize_products(path: Path) -> None:
    """Rewrite the graph at `path`: matrices in int8, one scale for each column."""
    model = onnx.load(path)
    # The shapes noted for weights would contradict those that are transposed on the way.
    del model.graph.value_info[:]
    quantize_dynamic(
        model,
        path,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        weight_type=QuantType.QInt8,
    )
