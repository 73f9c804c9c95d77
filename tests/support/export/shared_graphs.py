"""Graphs that several tests export, each converted to ONNX once for all workers of a test run.

A graph, its example and its path enter, as in the builder; the ONNX files lie at the path. What
has been converted before is linked there: the conversion takes seconds and is the same for the
same modules, settings and weights. Which graphs a bundle has is left to the builder.
"""

import hashlib
import io
import pickle
import shutil
import types
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from denseav.export.builder import build as building
from denseav.export.builder.graphs import Graph

_convert = building._export


class SharedGraphs:
    """Converted graphs by what they are made of, in a folder that all workers have."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def export(self, graph: Graph, example: tuple[Tensor, ...], path: Path) -> None:
        """Do as the builder's own, once for each graph."""
        made = self.folder / _digest((graph, example, path.name, building._ONE_FILE_BYTES))
        with FileLock(f"{made}.lock"):
            if not made.exists():
                with TemporaryDirectory(dir=self.folder) as begun:
                    _convert(graph, example, Path(begun) / path.name)
                    Path(begun).rename(made)
        for file in made.iterdir():
            shutil.copyfile(file, path.with_name(file.name))


class _Description(pickle.Pickler):
    """Everything a module is made of, in the same bytes for the same things."""

    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, Tensor):
            content = thing.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            return bytes, (content,), {"of": (str(thing.dtype), tuple(thing.shape))}
        if isinstance(thing, types.FunctionType):  # of hooks, which are written nowhere by name
            return str, (thing.__qualname__,)
        if isinstance(thing, torch.nn.Module):
            return str, (type(thing).__qualname__,), _ordered(vars(thing))
        return NotImplemented


def _ordered(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return a module's attributes without what differs from one making to the next."""
    found = {}
    for name, value in sorted(attributes.items()):
        if name.endswith("_hooks"):  # by numbers that count up
            value = [*value.values()]
        if name != "_is_hf_initialized":  # a loaded module's are not
            found[name] = sorted(value) if isinstance(value, set) else value
    return found


def _digest(parts: object) -> str:
    described = io.BytesIO()
    _Description(described).dump(parts)
    return hashlib.sha256(described.getvalue()).hexdigest()[:24]
