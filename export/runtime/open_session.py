"""A bundle enters, the session for the device asked for leaves: ONNX Runtime or TensorRT.

This file alone knows which implementations there are. No torch here.
"""

import logging
import subprocess
import sys
from types import ModuleType
from typing import Literal

from denseav.export.runtime import onnx_session
from denseav.export.runtime.bundle import (
    Bundle,
    BundleError,
    open_bundle,
    require_audio_step,
)
from denseav.export.runtime.engine_facts import MismatchError, rebuild_arguments, require_engines
from denseav.export.runtime.session import AudioWay, Session

Device = Literal["auto", "cpu", "cuda", "trt"]
OnMismatch = Literal["error", "rebuild", "onnx"]

log = logging.getLogger(__name__)


def open_session(
    bundle: Bundle,
    device: Device = "auto",
    threads: int = 1,
    on_mismatch: OnMismatch = "error",
    audio: AudioWay = "window",
) -> Session:
    """Load a bundle on the device asked for.

    `auto` takes a GPU where there is one; when that GPU cannot be used it says why and takes
    the CPU. A device asked for by name is that device or an error.

    Parameters
    ----------
    threads : how many threads one graph may use on a CPU.
    on_mismatch : what to do with engines that were built for something else than this machine
        and bundle: refuse them, rebuild them (`denseav-export`, minutes), or run the ONNX graphs
        on CUDA instead and say so.
    audio : whether the session encodes whole windows (`encode_audio`) or one token after another
        (`audio_stream`); only the graph for that is loaded.

    Raises
    ------
    BundleError
        When a graph cannot be opened, the device asked for cannot be had, or the bundle has no
        graph for streaming.
    """
    if audio == "streaming":
        require_audio_step(bundle)
    if device == "trt":
        return _open_trt(bundle, on_mismatch, audio)
    if device == "auto" and not onnx_session.cuda_is_here():
        device = "cpu"
    if device == "auto":
        try:
            return onnx_session.OnnxSession(bundle, "cuda", threads, audio)
        except BundleError as error:
            log.warning("running on the CPU: %s", error)
            device = "cpu"
    return onnx_session.OnnxSession(bundle, device, threads, audio)


def trt_runtime() -> ModuleType:
    """Return the module `denseav.export.runtime.trt_session`, which imports TensorRT.

    Raises
    ------
    BundleError
        When TensorRT, its libraries or the CUDA bindings are missing or cannot be loaded.
    """
    try:
        from denseav.export.runtime import trt_session
    except ModuleNotFoundError as error:
        raise BundleError(
            f"{error.name} is not installed; install it, in a clone of denseav, with: "
            "pip install '.[trt]'; or use --device cuda or cpu"
        ) from None
    except ImportError as error:
        raise BundleError(
            f"TensorRT's libraries cannot be loaded ({error}); install them, in a "
            "clone of denseav, with: pip install '.[trt]'; or use --device cuda or cpu"
        ) from None
    return trt_session


def _open_trt(bundle: Bundle, on_mismatch: OnMismatch, audio: AudioWay) -> Session:
    require_engines(bundle)
    if not onnx_session.cuda_is_here():
        raise BundleError("no NVIDIA GPU or driver was found; use --device cpu")
    runtime = trt_runtime()
    try:
        session: Session = runtime.TrtSession(bundle, audio)
    except MismatchError as error:
        if on_mismatch == "error":
            raise
        if on_mismatch == "onnx":
            log.warning("running the ONNX graphs on CUDA: %s", error)
            return onnx_session.OnnxSession(bundle, "cuda", audio=audio)
        log.warning("rebuilding the engines, which takes minutes: %s", error)
        session = runtime.TrtSession(_rebuilt(bundle), audio)
    return session


def _rebuilt(bundle: Bundle) -> Bundle:
    # In a process of its own: building needs torch, which nothing that runs live imports.
    main = "import sys; from denseav.export.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", main, *rebuild_arguments(bundle.folder)]
    if subprocess.run(command, check=False).returncode:
        raise BundleError(
            "the engines were not rebuilt, for the reason above; "
            "use --on-mismatch onnx, or --device cuda or cpu"
        )
    return open_bundle(bundle.folder)
