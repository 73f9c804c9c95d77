"""ONNX files, as far as they say what goes in and out and which other files they read.

A path enters, a `GraphFile` leaves. The format's fields are named here only where needed; whether
a graph computes anything is ONNX Runtime's affair. Weights are skipped; no other file is opened.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from denseav.export.outside_files import read_bounded

BYTES_MAX = 2**31 - 1  # protobuf's own limit
_DTYPES = {1: "float32", 2: "uint8", 6: "int32", 7: "int64", 10: "float16", 16: "bfloat16"}
_FIELDS: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "Model": {"graph": (7, "Graph"), "training": (20, "Training*"), "function": (25, "Function*")},
    "Training": {"initialization": (1, "Graph"), "algorithm": (2, "Graph")},
    "Function": {"node": (7, "Node*"), "attribute": (11, "Attribute*")},
    "Graph": {
        "node": (1, "Node*"),
        "initializer": (5, "Tensor*"),
        "input": (11, "Value*"),
        "output": (12, "Value*"),
        "sparse": (15, "Sparse*"),
    },
    "Node": {"attribute": (5, "Attribute*")},
    "Attribute": {
        "tensor": (5, "Tensor"),
        "graph": (6, "Graph"),
        "tensors": (10, "Tensor*"),
        "graphs": (11, "Graph*"),
        "sparse": (22, "Sparse"),
        "sparses": (23, "Sparse*"),
    },
    "Sparse": {"values": (1, "Tensor"), "indices": (2, "Tensor")},
    "Tensor": {"external": (13, "Entry*")},
    "Entry": {"key": (1, "string"), "value": (2, "string")},
    "Value": {"name": (1, "string"), "type": (2, "Type")},
    "Type": {"tensor": (1, "TensorType")},
    "TensorType": {"dtype": (1, "int32"), "shape": (2, "Shape")},
    "Shape": {"dim": (1, "Dim*")},
    "Dim": {"size": (1, "int64")},
}

Layout = tuple[str, tuple[int, ...]]
"""A tensor's dtype and shape; a size that a graph leaves open is 0."""


@dataclass(frozen=True)
class GraphFile:
    """What a graph takes and gives, in its order by name, and the files its weights are in."""

    inputs: Mapping[str, Layout]
    outputs: Mapping[str, Layout]
    weights: frozenset[str]


def read_graph(path: Path) -> GraphFile:
    """Return what an ONNX file says of itself.

    Raises
    ------
    OSError
        When there is no such file.
    ValueError
        When it is no ONNX graph.
    """
    model: Any = _model_class()()
    try:
        model.ParseFromString(read_bounded(path, BYTES_MAX))
    except DecodeError:
        raise ValueError("it is no ONNX graph") from None
    places = {str(entry.value) for entry in _parts(model, "Entry") if str(entry.key) == "location"}
    return GraphFile(_layouts(model.graph.input), _layouts(model.graph.output), frozenset(places))


def _layouts(values: Any) -> dict[str, Layout]:
    return {
        value.name: (
            _DTYPES.get(value.type.tensor.dtype, f"type {value.type.tensor.dtype}"),
            tuple(dim.size for dim in value.type.tensor.shape.dim),
        )
        for value in values
    }


def _parts(message: Message, kind: str) -> Iterator[Any]:
    """Yield all messages of a kind within one."""
    if message.DESCRIPTOR.name == kind:
        yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else (value,):
                yield from _parts(part, kind)


@cache
def _model_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="denseav/graph.proto", package="denseav")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            field = message.field.add(name=field_name, number=number)
            field.label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
            kind = kind.removesuffix("*")
            field.type = getattr(field, f"TYPE_{kind.upper()}", field.TYPE_MESSAGE)
            if kind in _FIELDS:
                field.type_name = f".denseav.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("denseav.Model"))
