"""A loaded bundle: frames and waveforms in, features between, heatmaps out.

The same three calls whatever runs beneath: ONNX Runtime on a CPU or an NVIDIA GPU. Features
stay where they were computed and are opaque to the caller. Parity is measured through these
calls, which are the ones that run live. No torch here.

Axes: K heads, C channels, H W the feature grid, T audio tokens, S samples.
"""

from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Features = Any  # lives on the session's device; only the session looks inside


class Session(Protocol):
    """What runs a bundle.

    Attributes
    ----------
    backend : what computes, for the screen and the log: `onnxruntime-cpu`, `onnxruntime-cuda`.
    precision : `fp32`, `fp16` or `int8`, as the manifest says.
    """

    backend: str
    precision: str

    def image(self, image_HW3: NDArray[np.uint8]) -> Features:
        """Encode one RGB picture that already has the manifest's size."""

    def audio(self, wave_S: NDArray[np.float32]) -> Features:
        """Encode one window of 16 kHz sound, exactly the manifest's `window_samples`."""

    def heatmap(self, image: Features, audio: Features, token: int) -> NDArray[np.float32]:
        """Return the similarity slice `[K, H, W]` of the picture and audio token `token`."""
