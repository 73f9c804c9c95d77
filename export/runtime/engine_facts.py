"""What a TensorRT engine was built for, in a JSON file beside it: read before the engine is.

An engine runs only with the library it was built with, and on the GPUs it was built for. So each
engine carries these facts, and one that does not fit is refused with the field and the remedy.
Neither torch nor TensorRT here.
"""

import dataclasses
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from denseav.export.outside_files import read_json
from denseav.export.runtime.bundle import (
    AUDIO_STEP,
    MANIFEST_MAX_BYTES,
    TOKEN_SPAN_SAMPLES,
    Bundle,
    BundleError,
    Manifest,
)
from denseav.export.runtime.session import AudioWay, graphs_used

_FIELDS = {
    "library": "the library",
    "version": "its version",
    "precision": "the precision",
    "source_sha256": "the sha256 of the ONNX graph",
}


class MismatchError(BundleError):
    """What is in the bundle does not fit this machine, or does not compute what it should."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What runs engines here: a TensorRT library, and the GPU with its compute capability."""

    library: str
    version: str
    gpu: str
    compute_capability: str


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """What one engine was built with, for and from.

    `library` is the module's name. `compute_capabilities` are those of the GPUs that it is for,
    as in `("8.6", "8.9")`; `gpu` is the only one by name, None where any of these will do.
    `shapes` has the inputs and outputs that the manifest fixes; `source_sha256` is of the same
    graph as ONNX.
    """

    library: str
    version: str
    compute_capabilities: tuple[str, ...]
    gpu: str | None
    precision: str
    shapes: Mapping[str, list[int]]
    source_sha256: str


def engine_path(folder: Path, graph: str) -> Path:
    """Return where a bundle's folder keeps the engine of a graph."""
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


def engine_library(bundle: Bundle, audio: AudioWay = "window") -> str:
    """Return the name of the library that the bundle's engines were built with.

    Raises
    ------
    BundleError
        When the bundle holds no engines (`MismatchError` when nothing says what they are).
    """
    require_engines(bundle, audio)
    return _read(engine_path(bundle.folder, "image"), bundle).library


def check_engines(bundle: Bundle, machine: Machine, audio: AudioWay = "window") -> None:
    """Compare the facts of each engine that is used so with machine and bundle; none is opened.

    Raises
    ------
    MismatchError
        When an engine was built for another library, GPU, precision, shape or graph, or the
        facts about it are missing or damaged.
    BundleError
        When the bundle holds no engines.
    """
    require_engines(bundle, audio)
    for graph in graphs_used(audio):
        engine = engine_path(bundle.folder, graph)
        sidecar = _read(engine, bundle)
        if difference := _difference(sidecar, machine, graph, bundle):
            raise MismatchError(
                f"{engine.name} does not fit: {difference}; "
                f"rebuild it with: {rebuild_command(bundle.folder)}"
            )


def require_engines(bundle: Bundle, audio: AudioWay = "window") -> None:
    """Raise `BundleError` with the remedy when the bundle holds no engines to be used so."""
    files = bundle.manifest.files
    missing = [g for g in graphs_used(audio) if engine_path(bundle.folder, g).name not in files]
    if missing:
        raise BundleError(
            f"this bundle holds no TensorRT engines ({', '.join(missing)}); add them with: "
            f"{rebuild_command(bundle.folder)}; or use --device cuda or cpu"
        )


def fixed_shapes(graph: str, manifest: Manifest) -> dict[str, list[int]]:
    """Return the shapes that the manifest fixes; those of features are the graphs' own affair."""
    image, step = manifest.image, manifest.audio_step
    states = {} if step is None else {name: [*s.shape] for name, s in step.states.items()}
    return {
        "image": {"image": [image.height, image.width, 3]},
        "audio": {"wave": [manifest.audio.window_samples]},
        AUDIO_STEP: {"wave": [TOKEN_SPAN_SAMPLES], **states},
        "heatmap": {"heat": [len(manifest.heads), image.grid_height, image.grid_width]},
    }[graph]


def _read(engine: Path, bundle: Bundle) -> Sidecar:
    path = sidecar_path(engine)
    try:
        sidecar = read_json(path, Sidecar, MANIFEST_MAX_BYTES)
        if path.name in bundle.manifest.files:
            return sidecar
        reason = "is not one of the bundle's files"
    except FileNotFoundError:
        reason = "is missing"
    except (OSError, ValueError) as error:
        reason = f"cannot be read ({error})"
    remedy = f"rebuild it with: {rebuild_command(bundle.folder)}"
    raise MismatchError(f"{path} {reason}, so {engine.name} is not opened; {remedy}") from None


def _difference(sidecar: Sidecar, machine: Machine, graph: str, bundle: Bundle) -> str | None:
    manifest = bundle.manifest
    expected = {
        "library": machine.library,
        "version": machine.version,
        "precision": manifest.precision,
        "source_sha256": manifest.files[bundle.graph(graph).name],
    }
    for field, here in expected.items():
        built = getattr(sidecar, field)
        if built != here:
            return f"{_FIELDS[field]} is {here} here, and it was built for {built}"
    if sidecar.gpu not in (None, machine.gpu):
        return f"the GPU is {machine.gpu} here, and it was built for {sidecar.gpu}"
    if machine.compute_capability not in sidecar.compute_capabilities:
        return (
            f"the GPU's compute capability is {machine.compute_capability} here, and it was "
            f"built for {', '.join(sidecar.compute_capabilities)}"
        )
    for tensor, shape in fixed_shapes(graph, manifest).items():
        built_shape = sidecar.shapes.get(tensor)
        if built_shape != shape:
            return f"the shape of {tensor} is {shape} here, and it was built for {built_shape}"
    return None
