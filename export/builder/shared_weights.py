"""Weights that two graphs have in common, kept in one file.

Two ONNX graphs enter, the weights of each in a file beside it. The one that borrows leaves with
what the other has too read from the other's file, and the rest, little, in the graph itself.
"""

import hashlib
from pathlib import Path

import onnx
from onnx import TensorProto
from onnx.external_data_helper import ExternalDataInfo, set_external_data, uses_external_data


def borrow_weights(graph: Path, lender: Path) -> None:
    """Rewrite `graph` to read its weights from the file beside `lender` where they are there.

    A graph that holds its weights itself stays as it is.
    """
    model, lending = (onnx.load(path, load_external_data=False) for path in (graph, lender))
    own, lent = _beside(model), _beside(lending)
    if not own or not lent:
        return
    places = {_digest(_content(tensor, graph)): ExternalDataInfo(tensor) for tensor in lent}
    files = {graph.with_name(ExternalDataInfo(tensor).location) for tensor in own}
    for tensor in own:
        tensor.raw_data = _content(tensor, graph)
        place = places.get(_digest(tensor.raw_data))
        if place is None:
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]
        else:
            set_external_data(tensor, place.location, place.offset, place.length)
            tensor.ClearField("raw_data")
    onnx.save(model, graph)
    for file in files:
        file.unlink()


def _beside(model: onnx.ModelProto) -> list[TensorProto]:
    return [tensor for tensor in model.graph.initializer if uses_external_data(tensor)]


def _content(tensor: TensorProto, graph: Path) -> bytes:
    place = ExternalDataInfo(tensor)
    with graph.with_name(place.location).open("rb") as file:
        file.seek(place.offset or 0)
        return file.read(place.length)


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
