"""Eight-bit weights for CPUs: matrix products of an ONNX graph in integers, scales found live.

A float32 graph enters, the same graph with its constant matrices in int8 leaves, in its place and
with its weights in itself. Activations are quantised on the way, with a scale for each tensor as
it comes ("dynamic"). Small matrices stay as they are: they take no time, and those at a network's
end cost the most accuracy.
"""

import logging
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

LEAST_SHARE = 1 / 4


def quantize_products(path: Path, least_share: float = LEAST_SHARE) -> None:
    """Rewrite the graph at `path`: matrices in int8, one scale for each column.

    Those stay as they are that have less than this share of the largest one's elements.
    """
    model = onnx.load(path)
    # The shapes noted for weights would contradict those that are transposed on the way.
    del model.graph.value_info[:]
    sizes = _product_sizes(model)
    small = least_share * max(sizes.values())
    logging.disable(logging.WARNING)  # advice on how to make graphs, which is not for people
    try:
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=[name for name, size in sizes.items() if size < small],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
    finally:
        logging.disable(logging.NOTSET)
    path.with_name(f"{path.name}.data").unlink(missing_ok=True)


def _product_sizes(model: onnx.ModelProto) -> dict[str, int]:
    """Return how large the constant matrix of each product is."""
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    return {
        node.name: weights[name][0] * weights[name][1]
        for node in model.graph.node
        if node.op_type == "MatMul"
        for name in node.input
        if len(weights.get(name, ())) == 2
    }
