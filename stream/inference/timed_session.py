"""A session whose every pass is timed as a stage of the run."""

import numpy as np
from numpy.typing import NDArray

from denseav.export.runtime.session import AudioStream, Features, Level, Session
from denseav.stream.stats.stats import Stats


class TimedSession:
    """A `Session` around another.

    Parameters
    ----------
    session : what computes.
    stats : takes the stages `image`, `audio` and `similarity`.
    """

    def __init__(self, session: Session, stats: Stats) -> None:
        self.backend = session.backend
        self.precision = session.precision
        self._session = session
        self._stats = stats

    def encode_image(self, image_HW3: NDArray[np.uint8]) -> Features:
        """As `Session.encode_image`."""
        with self._stats.timed("image"):
            return self._session.encode_image(image_HW3)

    def encode_audio(self, wave_S: NDArray[np.float32], least_deviation: float = 0.0) -> Features:
        """As `Session.encode_audio`."""
        with self._stats.timed("audio"):
            return self._session.encode_audio(wave_S, least_deviation)

    def audio_stream(self) -> "TimedAudioStream":
        """As `Session.audio_stream`; its steps are the stage `audio`."""
        return TimedAudioStream(self._session.audio_stream(), self._stats)

    def heatmap(self, image: Features, audio: Features, token: int) -> NDArray[np.float32]:
        """As `Session.heatmap`."""
        with self._stats.timed("similarity"):
            return self._session.heatmap(image, audio, token)

    def dense(self, image: Features) -> NDArray[np.float32]:
        """As `Session.dense`."""
        with self._stats.timed("features"):
            return self._session.dense(image)

    def interrupt(self) -> None:
        """As `Session.interrupt`."""
        self._session.interrupt()


class TimedAudioStream:
    """An `AudioStream` around another."""

    def __init__(self, stream: AudioStream, stats: Stats) -> None:
        self._stream = stream
        self._stats = stats

    def step(self, samples_S: NDArray[np.float32], level: Level) -> Features:
        """As `AudioStream.step`."""
        with self._stats.timed("audio"):
            return self._stream.step(samples_S, level)

    def reset(self) -> None:
        """As `AudioStream.reset`."""
        self._stream.reset()
