"""What a TensorRT engine was built for, in a JSON file beside it: read before the engine is.

An engine runs only with the TensorRT and on the kind of GPU that it was built with, and
TensorRT offers no way to ask before loading it. So each engine carries these facts, and one that
does not fit is refused with the field and the remedy. Neither torch nor TensorRT here.
"""

import dataclasses
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from denseav.export.runtime.bundle import GRAPHS, Bundle, BundleError, Manifest

_FIELDS = {
    "tensorrt": "TensorRT",
    "gpu": "the GPU",
    "compute_capability": "the GPU's compute capability",
    "precision": "the precision",
    "source_sha256": "the sha256 of the ONNX graph",
}


class MismatchError(BundleError):
    """An engine was built for something else than what is here, or nothing says for what."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What runs engines here: TensorRT's version, and the GPU with its compute capability."""

    tensorrt: str
    gpu: str
    compute_capability: str


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """What one engine was built with and from.

    `shapes` has each input and output by its name; `source_sha256` is of the same graph as ONNX.
    """

    tensorrt: str
    gpu: str
    compute_capability: str
    precision: str
    shapes: Mapping[str, list[int]]
    source_sha256: str


def engine_path(folder: Path, graph: str) -> Path:
    """Return where a bundle's folder keeps the engine of `image`, `audio` or `heatmap`."""
    return folder / f"{graph}.engine"


def sidecar_path(engine: Path) -> Path:
    """Return where the facts about an engine are."""
    return engine.with_name(engine.name + ".json")


def rebuild_arguments(folder: Path) -> list[str]:
    """Return what `denseav-export` is to be told to build a bundle's engines anew."""
    return ["--rebuild-engines", str(folder)]


def rebuild_command(folder: Path) -> str:
    """Return the command that builds a bundle's engines anew."""
    return shlex.join(["denseav-export", *rebuild_arguments(folder)])


def write_sidecar(engine: Path, sidecar: Sidecar) -> None:
    """Write the facts beside `engine`."""
    text = json.dumps(dataclasses.asdict(sidecar), indent=2)
    sidecar_path(engine).write_text(text + "\n")


def check_engines(bundle: Bundle, machine: Machine) -> None:
    """Compare every engine's facts with this machine and bundle; no engine is opened.

    Raises
    ------
    MismatchError
        When an engine was built for another TensorRT, GPU, precision, shape or graph, or the
        facts about it are missing or damaged.
    BundleError
        When the bundle holds no engines.
    """
    require_engines(bundle)
    for graph in GRAPHS:
        engine = engine_path(bundle.folder, graph)
        sidecar = _read(engine, bundle)
        expected = Sidecar(
            **dataclasses.asdict(machine),
            precision=bundle.manifest.precision,
            shapes=_shapes(graph, bundle.manifest),
            source_sha256=bundle.manifest.files[bundle.graph(graph).name],
        )
        if difference := _difference(sidecar, expected):
            raise MismatchError(
                f"{engine.name} does not fit: {difference}; "
                f"rebuild it with: {rebuild_command(bundle.folder)}"
            )


def require_engines(bundle: Bundle) -> None:
    """Raise `BundleError` with the remedy when the bundle holds no engines."""
    if any(engine_path(bundle.folder, graph).name not in bundle.manifest.files for graph in GRAPHS):
        raise BundleError(
            "this bundle holds no TensorRT engines; export it with --trt fp16, "
            "or use --device cuda or cpu"
        )


def _read(engine: Path, bundle: Bundle) -> Sidecar:
    path = sidecar_path(engine)
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        fields = {field.name: record[field.name] for field in dataclasses.fields(Sidecar)}
        return Sidecar(**fields | {"shapes": dict(fields["shapes"])})
    except FileNotFoundError:
        reason = "is missing"
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"cannot be read ({error!r})"
    remedy = f"rebuild it with: {rebuild_command(bundle.folder)}"
    raise MismatchError(f"{path} {reason}, so {engine.name} is not opened; {remedy}") from None


def _shapes(graph: str, manifest: Manifest) -> dict[str, list[int]]:
    """Return the shapes that the manifest fixes; those of features are the graphs' own affair."""
    image = manifest.image
    return {
        "image": {"image": [image.height, image.width, 3]},
        "audio": {"wave": [manifest.audio.window_samples]},
        "heatmap": {"heat": [len(manifest.heads), image.grid_height, image.grid_width]},
    }[graph]


def _difference(sidecar: Sidecar, expected: Sidecar) -> str | None:
    for field, name in _FIELDS.items():
        built, here = getattr(sidecar, field), getattr(expected, field)
        if built != here:
            return f"{name} is {here} here, and it was built for {built}"
    for tensor, here in expected.shapes.items():
        built = sidecar.shapes.get(tensor)
        if built != here:
            return f"the shape of {tensor} is {here} here, and it was built for {built}"
    return None
