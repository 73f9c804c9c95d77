"""A bundle's ONNX graphs as TensorRT engines, by TensorRT's own parser; no torch here.

A folder of graphs enters; `image.engine` and its like leave, each with the facts about it beside
(`denseav.export.runtime.engine_facts`). The networks are strongly typed: half precision is in the
graphs, and no setting here changes a type. TensorRT-RTX builds without a GPU, for every card it is
asked for; TensorRT builds on the card that will run the engine, and for no other.
"""

import dataclasses
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from denseav.export.runtime.bundle import Bundle, BundleError, Manifest, file_sha256
from denseav.export.runtime.devices import cuda_is_here
from denseav.export.runtime.engine_facts import (
    MismatchError,
    Sidecar,
    engine_path,
    fixed_shapes,
    sidecar_path,
    write_sidecar,
)
from denseav.export.runtime.nvidia.trt_library import RTX, TENSORRT, error_log, load_library
from denseav.export.runtime.open_session import open_session
from denseav.export.runtime.proof import ProofError
from denseav.export.runtime.session import Session

BUILDERS = ("rtx", "tensorrt", "torch-tensorrt")
RTX_CAPABILITIES = ("8.0", "8.6", "8.9", "12.0")
RTX_FURTHER = ("7.5", "12.1")

Compile = Callable[[str], bytes]
Step = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class EngineTarget:
    """What engines are built with and for: the library, and GPUs as a sidecar names them."""

    library: str
    version: str
    compute_capabilities: tuple[str, ...]
    gpu: str | None = None


def engine_target(builder: str | None, further: tuple[str, ...] = ()) -> EngineTarget:
    """Decide what engines are built with and for, before hours go into anything else.

    Parameters
    ----------
    builder : one of `BUILDERS`; None for TensorRT-RTX, or TensorRT where that alone is installed.
    further : compute capabilities beyond TensorRT-RTX's usual ones.

    Raises
    ------
    BundleError
        When the library is missing or cannot be loaded, or it builds on the GPU itself and
        there is none.
    """
    if builder is None:
        alone = importlib.util.find_spec(RTX) is None and importlib.util.find_spec(TENSORRT)
        builder = "tensorrt" if alone else "rtx"
    if builder == "rtx":
        return EngineTarget(
            library=RTX,
            version=load_library(RTX).__version__,
            compute_capabilities=(*RTX_CAPABILITIES, *further),
        )
    if not cuda_is_here():
        raise BundleError(
            f"--trt-builder {builder} builds on the GPU that will run the engines, and no NVIDIA "
            "GPU or driver was found; use --trt-builder rtx, or run this on a machine with one"
        )
    version = load_library(TENSORRT).__version__
    from denseav.export.runtime.nvidia.cuda import gpu_facts

    gpu, capability = gpu_facts()
    return EngineTarget(
        library=TENSORRT, version=version, compute_capabilities=(capability,), gpu=gpu
    )


def write_engines(
    target: EngineTarget, compile_graph: Compile, manifest: Manifest, folder: Path, step: Step
) -> Manifest:
    """Write an engine of each graph into `folder`, where its ONNX file already is.

    Parameters
    ----------
    compile_graph : returns the engine of the graph of that name.

    Returns
    -------
    manifest : the same with the new files in it.
    """
    files = dict(manifest.files)
    for name in Bundle(folder=folder, manifest=manifest).graphs:
        step(f"the {name} engine")
        engine = engine_path(folder, name)
        engine.write_bytes(compile_graph(name))
        sidecar = Sidecar(
            **dataclasses.asdict(target),
            precision=manifest.precision,
            shapes=fixed_shapes(name, manifest),
            source_sha256=files[f"{name}.onnx"],
        )
        write_sidecar(engine, sidecar)
        for path in (engine, sidecar_path(engine)):
            files[path.name] = file_sha256(path)
    return dataclasses.replace(manifest, files=files)


def compile_onnx(target: EngineTarget, path: Path) -> bytes:
    """Return the engine of the ONNX graph at `path`.

    Raises
    ------
    BundleError
        When TensorRT cannot read or build it, in TensorRT's words.
    """
    trt = load_library(target.library)
    log = error_log(trt)
    builder = trt.Builder(log)
    # TensorRT 11 has no other networks, and no flag for them.
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(path)):
        reasons = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise _unbuilt(path, reasons[0] if reasons else log.error)
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 has all its digits
    if target.library == RTX:
        config.num_compute_capabilities = len(target.compute_capabilities)
        for index, capability in enumerate(target.compute_capabilities):
            named = getattr(trt.ComputeCapability, "SM" + capability.replace(".", ""))
            config.set_compute_capability(named, index)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise _unbuilt(path, log.error)
    return bytes(engine)


def engines_here(bundle: Bundle) -> Session | None:
    """Return the engines opened on this machine's GPU; None where there is none that they fit.

    Raises
    ------
    BundleError
        When there is one, and they do not open or are wrong on it.
    """
    if not cuda_is_here():
        return None
    try:
        return open_session(bundle, "trt")
    except ProofError:
        raise
    except MismatchError:
        return None


def _unbuilt(path: Path, reason: str) -> BundleError:
    return BundleError(
        f"TensorRT could not build the {path.stem} engine ({reason.splitlines()[0]}); nothing was "
        "written; leave out --trt for the ONNX graphs alone"
    )
