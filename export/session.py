"""A loaded bundle: frames and waveforms in, features between, heatmaps out.

The same three calls whatever runs beneath. Features stay where they were computed and are
opaque to the caller. Parity is measured through these calls, which are the ones that run live.
No torch here.

Axes: K heads, C channels, H W the feature grid, T audio tokens, S samples.
"""

import logging
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from denseav.export.bundle import Bundle, BundleError

Device = Literal["auto", "cpu", "cuda", "trt"]
Features = Any  # lives on the session's device; only the session looks inside

log = logging.getLogger(__name__)


class Session(Protocol):
    """What runs a bundle."""

    @property
    def backend(self) -> str:
        """What computes, for the screen and the log: `onnxruntime-cpu`, `onnxruntime-cuda`."""

    @property
    def precision(self) -> str:
        """`fp32` or `fp16`, as the manifest says."""

    def image(self, image_HW3: NDArray[np.uint8]) -> Features:
        """Encode one RGB picture that already has the manifest's size."""

    def audio(self, wave_S: NDArray[np.float32]) -> Features:
        """Encode one window of 16 kHz sound, exactly the manifest's `window_samples`."""

    def heatmap(self, image: Features, audio: Features, token: int) -> NDArray[np.float32]:
        """Return the similarity slice `[K, H, W]` of the picture and audio token `token`."""


def open_session(bundle: Bundle, device: Device = "auto", threads: int = 1) -> Session:
    """Load a bundle on the device asked for.

    `auto` takes a GPU where there is one; when that GPU cannot be used it says why and takes
    the CPU. A device asked for by name is that device or an error.

    Parameters
    ----------
    threads : how many threads one graph may use on a CPU.

    Raises
    ------
    BundleError
        When a graph cannot be opened, or the device asked for cannot be had.
    """
    # Imported here: the implementations import this module's types.
    from denseav.export.session_onnx import OnnxSession, cuda_is_here

    if device == "trt":
        raise BundleError("this bundle holds no TensorRT engines; use --device cuda or cpu")
    if device == "auto" and not cuda_is_here():
        device = "cpu"
    if device == "auto":
        try:
            return OnnxSession(bundle, "cuda", threads)
        except BundleError as error:
            log.warning("running on the CPU: %s", error)
            device = "cpu"
    return OnnxSession(bundle, device, threads)
