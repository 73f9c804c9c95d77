"""A loaded bundle: frames and waveforms in, features between, heatmaps out.

The same three calls whatever runs beneath. Features stay where they were computed and are
opaque to the caller. Parity is measured through these calls, which are the ones that run live.
No torch here.

Axes: K heads, C channels, H W the feature grid, T audio tokens, S samples.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Features = Any  # lives on the session's device; only the session looks inside


class Interrupted(Exception):  # noqa: N818 - no error: it was asked for
    """A pass was given up because `interrupt` was called."""


class Session(Protocol):
    """What runs a bundle."""

    @property
    def backend(self) -> str:
        """What computes, for the screen and the log: `onnxruntime-cpu`, `onnxruntime-cuda`."""

    @property
    def precision(self) -> str:
        """`fp32`, `fp16` or `int8`, as the manifest says."""

    def encode_image(self, image_HW3: NDArray[np.uint8]) -> Features:
        """Encode one RGB picture that already has the manifest's size."""

    def encode_audio(self, wave_S: NDArray[np.float32], least_deviation: float = 0.0) -> Features:
        """Encode one window of 16 kHz sound, exactly the manifest's `window_samples`.

        It is normalised as `normalized` says; by its own deviation alone where the bundle's graph
        does it itself.
        """

    def heatmap(self, image: Features, audio: Features, token: int) -> NDArray[np.float32]:
        """Return the similarity slice `[K, H, W]` of the picture and audio token `token`."""

    def dense(self, image: Features) -> NDArray[np.float32]:
        """Return a copy of a picture's features, `[K, C, H, W]`, for people to look at."""

    def interrupt(self) -> None:
        """Make the pass in progress and all later ones raise `Interrupted`, from any thread.

        A large model on a CPU computes for seconds, longer than a person waits after Ctrl-C. Where
        a pass takes milliseconds and cannot be given up, only the later ones raise.
        """


def normalized(wave_S: NDArray[np.float32], least_deviation: float = 0.0) -> NDArray[np.float32]:
    """Give a window zero mean and unit deviation, as in training.

    One that deviates less than `least_deviation` is divided by that instead, and stays so much
    quieter than what the network was trained to hear: 0 is how it was trained.
    """
    centred_S = wave_S - wave_S.mean(dtype=np.float64)
    variance = max(float(np.mean(np.square(centred_S))), least_deviation**2)
    return np.asarray(centred_S / np.sqrt(variance + 1e-7), np.float32)
