"""A loaded bundle: frames and waveforms in, features between, heatmaps out.

The same three calls whatever runs beneath. Features stay where they were computed and are
opaque to the caller. Parity is measured through these calls, which are the ones that run live.
No torch here.

Axes: K heads, C channels, H W the feature grid, T audio tokens, S samples.
"""

import logging
import subprocess
import sys
from types import ModuleType
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from denseav.export.bundle import Bundle, BundleError, open_bundle
from denseav.export.sidecar import MismatchError, rebuild_arguments, require_engines

Device = Literal["auto", "cpu", "cuda", "trt"]
OnMismatch = Literal["error", "rebuild", "onnx"]
Features = Any  # lives on the session's device; only the session looks inside

log = logging.getLogger(__name__)


class Session(Protocol):
    """What runs a bundle."""

    @property
    def backend(self) -> str:
        """What computes, for the screen and the log: `onnxruntime-cpu`, `onnxruntime-cuda`."""

    @property
    def precision(self) -> str:
        """`fp32`, `fp16` or `int8`, as the manifest says."""

    def image(self, image_HW3: NDArray[np.uint8]) -> Features:
        """Encode one RGB picture that already has the manifest's size."""

    def audio(self, wave_S: NDArray[np.float32], least_deviation: float = 0.0) -> Features:
        """Encode one window of 16 kHz sound, exactly the manifest's `window_samples`.

        It is normalised as `normalized` says; by its own deviation alone where the bundle's graph
        does it itself.
        """

    def heatmap(self, image: Features, audio: Features, token: int) -> NDArray[np.float32]:
        """Return the similarity slice `[K, H, W]` of the picture and audio token `token`."""

    def dense(self, image: Features) -> NDArray[np.float32]:
        """Return a copy of a picture's features, `[K, C, H, W]`, for people to look at."""


def normalized(wave_S: NDArray[np.float32], least_deviation: float = 0.0) -> NDArray[np.float32]:
    """Give a window zero mean and unit deviation, as in training.

    One that deviates less than `least_deviation` is divided by that instead, and stays so much
    quieter than what the network was trained to hear: 0 is how it was trained.
    """
    centred_S = wave_S - wave_S.mean(dtype=np.float64)
    variance = max(float(np.mean(np.square(centred_S))), least_deviation**2)
    return np.asarray(centred_S / np.sqrt(variance + 1e-7), np.float32)


def open_session(
    bundle: Bundle,
    device: Device = "auto",
    threads: int = 1,
    on_mismatch: OnMismatch = "error",
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

    Raises
    ------
    BundleError
        When a graph cannot be opened, or the device asked for cannot be had.
    """
    # Imported here: the implementations import this module's types.
    from denseav.export.session_onnx import OnnxSession, cuda_is_here

    if device == "trt":
        return _open_trt(bundle, on_mismatch)
    if device == "auto" and not cuda_is_here():
        device = "cpu"
    if device == "auto":
        try:
            return OnnxSession(bundle, "cuda", threads)
        except BundleError as error:
            log.warning("running on the CPU: %s", error)
            device = "cpu"
    return OnnxSession(bundle, device, threads)


def trt_runtime() -> ModuleType:
    """Return the module `denseav.export.session_trt`, which imports TensorRT.

    Raises
    ------
    BundleError
        When TensorRT, its libraries or the CUDA bindings are missing or cannot be loaded.
    """
    try:
        from denseav.export import session_trt
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
    return session_trt


def _open_trt(bundle: Bundle, on_mismatch: OnMismatch) -> Session:
    from denseav.export.session_onnx import OnnxSession, cuda_is_here

    require_engines(bundle)
    if not cuda_is_here():
        raise BundleError("no NVIDIA GPU or driver was found; use --device cpu")
    runtime = trt_runtime()
    try:
        session: Session = runtime.TrtSession(bundle)
    except MismatchError as error:
        if on_mismatch == "error":
            raise
        if on_mismatch == "onnx":
            log.warning("running the ONNX graphs on CUDA: %s", error)
            return OnnxSession(bundle, "cuda")
        log.warning("rebuilding the engines, which takes minutes: %s", error)
        session = runtime.TrtSession(_rebuilt(bundle))
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
