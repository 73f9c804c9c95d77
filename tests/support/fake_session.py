"""A session without a network: heat that says which picture and sound it came from."""

import time

import numpy as np
from numpy.typing import NDArray

from denseav.export.runtime.bundle import (
    TOKEN_HOP_SAMPLES,
    TOKEN_SPAN_SAMPLES,
    AudioInput,
    Head,
    ImageInput,
    Manifest,
    window_samples,
)
from denseav.export.runtime.session import Interrupted, Level

TOKENS = 3


def fake_manifest(energy_floor_dbfs: float = -60.0, tokens: int = TOKENS) -> Manifest:
    """A manifest of two heads over a 2x3 grid, and windows of a few tokens."""
    return Manifest(
        model="fake",
        trained=True,
        source="tests",
        precision="fp32",
        opset=20,
        heads=(
            Head(name="speech", threshold=0.0, ceiling=1.0),
            Head(name="sound", threshold=0.0, ceiling=1.0),
        ),
        image=ImageInput(height=16, width=24, grid_height=2, grid_width=3),
        audio=AudioInput(
            window_samples=window_samples(tokens),
            tokens=tokens,
            energy_floor_dbfs=energy_floor_dbfs,
        ),
        parity={},
        files={},
    )


class FakeSession:
    """Heat is the picture's mean in head 0, a token's last sample in head 1; as slow as told."""

    backend = "fake"
    precision = "fp32"

    def __init__(self, image_s: float = 0.0, audio_s: float = 0.0) -> None:
        self.image_s = image_s
        self.audio_s = audio_s
        self.windows: list[NDArray[np.float32]] = []
        self.deviations: list[float] = []
        self.images = 0
        self.streams: list[FakeAudioStream] = []
        self.failure: Exception | None = None

    def encode_image(self, image_HW3: NDArray[np.uint8]) -> float:
        if self.failure is not None:
            raise self.failure
        time.sleep(self.image_s)
        self.images += 1
        return float(image_HW3.mean()) / 255

    def encode_audio(
        self, wave_S: NDArray[np.float32], least_deviation: float = 0.0
    ) -> NDArray[np.float32]:
        time.sleep(self.audio_s)
        self.windows.append(wave_S)
        self.deviations.append(least_deviation)
        tokens = 1 + (len(wave_S) - TOKEN_SPAN_SAMPLES) // TOKEN_HOP_SAMPLES
        last_T = np.arange(tokens) * TOKEN_HOP_SAMPLES + TOKEN_SPAN_SAMPLES - 1
        return wave_S[last_T]

    def audio_stream(self) -> "FakeAudioStream":
        return FakeAudioStream(self)

    def heatmap(self, image: float, audio: NDArray[np.float32], token: int) -> NDArray[np.float32]:
        assert 0 <= token < len(audio)
        values_K = np.array([image, audio[token]], dtype=np.float32)
        return np.broadcast_to(values_K[:, None, None], (2, 2, 3)).copy()

    def dense(self, image: float) -> NDArray[np.float32]:
        return image + np.arange(2 * 4 * 2 * 3, dtype=np.float32).reshape(2, 4, 2, 3) % 5

    def interrupt(self) -> None:
        self.failure = Interrupted()


class FakeAudioStream:
    """Features of `places` tokens, as the session's `encode_audio` gives them; 0 before any."""

    places = TOKENS

    def __init__(self, session: FakeSession) -> None:
        self.resets = 0
        self.levels: list[Level] = []
        self._session = session
        session.streams.append(self)
        self._features_T = np.zeros(self.places, np.float32)

    def step(self, samples_S: NDArray[np.float32], level: Level) -> NDArray[np.float32]:
        assert samples_S.shape == (TOKEN_SPAN_SAMPLES,)
        time.sleep(self._session.audio_s)
        self.levels.append(level)
        self._features_T = np.append(self._features_T[1:], samples_S[-1])
        return self._features_T

    def reset(self) -> None:
        self.resets += 1
        self._features_T = np.zeros(self.places, np.float32)
