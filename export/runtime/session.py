"""A loaded bundle: frames and waveforms in, features between, heatmaps out.

The same three calls whatever runs beneath. Features stay where they were computed and are
opaque to the caller. Parity is measured through these calls, which are the ones that run live.
No torch here.

Axes: K heads, C channels, H W the feature grid, T audio tokens, S samples.
"""

import math
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from denseav.export.runtime.bundle import AUDIO_STEP

Features = Any  # lives on the session's device; only the session looks inside

AudioWay = Literal["window", "streaming"]  # each window anew, or each token once

_VARIANCE_EPS = 1e-7  # as in training


def graphs_used(audio: AudioWay) -> tuple[str, str, str]:
    """Name the graphs of a bundle that a session opens which encodes audio that way."""
    return "image", "audio" if audio == "window" else AUDIO_STEP, "heatmap"


class Threads(NamedTuple):
    """How many threads each pass may use on a CPU; both passes run at the same time."""

    image: int
    audio: int


def threads_of(graph: str, threads: int | Threads) -> int:
    """Return how many the graph of that name may use."""
    if isinstance(threads, int):
        return threads
    return threads.audio if graph in ("audio", AUDIO_STEP) else threads.image


class Interrupted(Exception):  # noqa: N818 - no error: it was asked for
    """A pass was given up because `interrupt` was called."""


class AudioStream(Protocol):
    """One audio signal, encoded a token at a time; its state stays on the session's device.

    Called by one thread. A step that raised has changed nothing, and can be repeated.
    """

    def step(self, samples_S: NDArray[np.float32], level: "Level") -> Features:
        """Take the next token and return features of which the newest tokens are new.

        Parameters
        ----------
        samples_S : float32, raw, `TOKEN_SPAN_SAMPLES` of them: those of exactly one token. Tokens
            follow one another without a gap, so the first 80 samples are those that the step
            before ended with; they count only after `reset`. Where audio is missing, either give
            silence in its place or `reset`. A sample that is no number is silence.
        level : what these samples are normalised by, now and for good. As the windowed pass does
            it: `Level.of(window_S, least_deviation)` of the window that ends where they do.

        Returns
        -------
        Features
            As `encode_audio` gives them for a window that ends where the samples do, for
            `heatmap`: token `manifest.audio.tokens - 1` is the newest. The newest
            `1 + manifest.audio_step.revisit` tokens were computed now; those before them are
            what they were when they were last computed. Tokens from before the first step after
            `reset` are zeros, and so is their heat: count the steps.
        """

    def reset(self) -> None:
        """Forget everything: the next step is the first."""


class HeatmapModel(Protocol):
    """What computes heatmaps: a session, or the network itself."""

    def encode_image(self, image_HW3: NDArray[np.uint8]) -> Features:
        """Encode one RGB picture that already has the manifest's size."""

    def encode_audio(self, wave_S: NDArray[np.float32], least_deviation: float = 0.0) -> Features:
        """Encode one window of 16 kHz sound, exactly the manifest's `window_samples`.

        It is normalised as `normalized` says; by its own deviation alone where the bundle's graph
        does it itself.
        """

    def heatmap(self, image: Features, audio: Features, token: int) -> NDArray[np.float32]:
        """Return the similarity slice `[K, H, W]` of the picture and audio token `token`."""

    def audio_stream(self) -> AudioStream:
        """Return a new stream, in the state before any audio.

        Raises
        ------
        BundleError
            When the session was not opened for streaming.
        """


class Session(HeatmapModel, Protocol):
    """What runs a bundle."""

    @property
    def backend(self) -> str:
        """What computes, for the screen and the log: `onnxruntime-cpu`, `onnxruntime-cuda`."""

    @property
    def precision(self) -> str:
        """`fp32`, `fp16`, `bf16` or `int8`: what the passes are computed in."""

    def dense(self, image: Features) -> NDArray[np.float32]:
        """Return a copy of a picture's features, `[K, C, H, W]`, for people to look at."""

    def interrupt(self) -> None:
        """Make the pass in progress and all later ones raise `Interrupted`, from any thread.

        A large model on a CPU computes for seconds, longer than a person waits after Ctrl-C. Where
        a pass takes milliseconds and cannot be given up, only the later ones raise.
        """


class Level(NamedTuple):
    """What samples are normalised by: `(samples - mean) / deviation`."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, wave_S: NDArray[np.float32], least_deviation: float = 0.0) -> "Level":
        """Return the level of a window, and at least `least_deviation` (0 is how training was).

        Samples that are no numbers count as silence.
        """
        heard_S = wave_S.astype(np.float64)
        mean = float(heard_S.mean())
        if not math.isfinite(mean):
            heard_S = np.nan_to_num(heard_S, copy=False, posinf=0.0, neginf=0.0)
            mean = float(heard_S.mean())
        heard_S -= mean
        # No BLAS: its threads spin on after a product, on the cores that encode pictures.
        variance = float(np.square(heard_S, out=heard_S).mean())
        return cls(mean, math.sqrt(variance + _VARIANCE_EPS)).at_least(least_deviation)

    @classmethod
    def of_sums(cls, total: float, squares: float, samples: int) -> "Level":
        """Return the level of samples, so many, by their sum and that of their squares."""
        mean = total / samples
        return cls(mean, math.sqrt(max(0.0, squares / samples - mean**2) + _VARIANCE_EPS))

    def at_least(self, deviation: float) -> "Level":
        """Return the same level, or that of so much more deviation."""
        return Level(self.mean, max(self.deviation, math.sqrt(deviation**2 + _VARIANCE_EPS)))

    def normalized(self, wave_S: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return samples at this level; one that is no number is 0."""
        normed_S = np.subtract(wave_S, self.mean, dtype=np.float64)
        normed_S /= self.deviation
        if not np.isfinite(normed_S).all():
            np.nan_to_num(normed_S, copy=False, posinf=0.0, neginf=0.0)
        return normed_S.astype(np.float32)


def normalized(wave_S: NDArray[np.float32], least_deviation: float = 0.0) -> NDArray[np.float32]:
    """Give a window zero mean and unit deviation, as in training.

    One that deviates less than `least_deviation` is divided by that instead, and stays so much
    quieter than what the network was trained to hear: 0 is how it was trained.
    """
    return Level.of(wave_S, least_deviation).normalized(wave_S)
