"""The audio pass: `AudioBlock`s in, features of the newest tokens and their indices out.

Blocks come in on the sources' threads, passes run on one thread of the caller's. Token k covers
the samples `[TOKEN_HOP_SAMPLES k, TOKEN_HOP_SAMPLES k + TOKEN_SPAN_SAMPLES)` at 16 kHz, counted
from the stream's start. Nothing here knows frames.

Axes: S samples.
"""

import math
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from denseav.export.runtime.bundle import TOKEN_HOP_SAMPLES, TOKEN_SPAN_SAMPLES, Manifest
from denseav.export.runtime.session import Features, Session
from denseav.stream.audio.level_normalizer import LevelNormalizer
from denseav.stream.audio.rolling_window import MARGIN_SAMPLES, RollingWindow
from denseav.stream.inference.hop_controller import HOP_TOKENS_MAX, TOKEN_S, HopController
from denseav.stream.types import AudioBlock

BEHIND_TOKENS_MAX = MARGIN_SAMPLES // TOKEN_HOP_SAMPLES // 2  # read back while more comes in
SILENT_DBFS = -120.0  # what digital silence is called, so that loudness stays a number


@dataclass(frozen=True, slots=True, eq=False)
class AudioTokens:
    """What one pass leaves.

    Attributes
    ----------
    features : the newest tokens', in `slots` places; opaque, on the session's device.
    stop : the index just after the newest token, which is in the last place.
    count : how many of the places, from the last one back, hold what was computed.
    wave_S : the audio that the newest token ends with, float32 at 16 kHz.
    """

    features: Features
    stop: int
    slots: int
    count: int
    wave_S: NDArray[np.float32]

    def __contains__(self, token: int) -> bool:
        return max(0, self.stop - self.count) <= token < self.stop

    def position(self, token: int) -> int:
        """Return where a token is in the features."""
        return token - (self.stop - self.slots)

    def rms_dbfs(self, token: int) -> float:
        """Return how loud a token's span was, at least -120."""
        end = len(self.wave_S) - (self.stop - 1 - token) * TOKEN_HOP_SAMPLES
        return loudness_dbfs(self.wave_S[max(0, end - TOKEN_SPAN_SAMPLES) : end])


class AudioPass(Protocol):
    """How audio is encoded as it comes: whole windows anew, or token after token."""

    @property
    def newest(self) -> AudioTokens | None:
        """What the last pass left; None before any."""

    @property
    def hop_s(self) -> float:
        """How far the last pass moved on; more than a token when the machine is slow."""

    @property
    def hop_share(self) -> float:
        """How much of that time the pass took: above 1 it does not keep up."""

    @property
    def hops_skipped(self) -> int:
        """How many tokens had no pass although the hop asked for one."""

    def push(self, block: AudioBlock) -> None:
        """Take some audio. Callable from any thread."""

    def run(self) -> bool:
        """Run one pass if a hop has completed since the last; return whether.

        Called by one thread only.
        """

    def time_of(self, sample: int) -> float:
        """Return when a sample was captured, in seconds on the blocks' own clock."""

    def sample_at(self, time_s: float) -> int:
        """Return which sample was captured at a time."""


class RollingAudio:
    """What both ways share: the rolling window, its level, and how the last pass went."""

    def __init__(self, manifest: Manifest) -> None:
        self.newest: AudioTokens | None = None
        self.hop_s = TOKEN_S
        self.hop_share = 0.0
        self.hops_skipped = 0
        self._slots = manifest.audio.tokens
        self._level = LevelNormalizer(manifest.audio.energy_floor_dbfs)
        self._rolling = RollingWindow(manifest.audio.window_samples)

    def push(self, block: AudioBlock) -> None:
        """As `AudioPass.push`."""
        self._rolling.push(block)

    def time_of(self, sample: int) -> float:
        """As `AudioPass.time_of`."""
        return self._rolling.time_of(sample)

    def sample_at(self, time_s: float) -> int:
        """As `AudioPass.sample_at`."""
        return self._rolling.sample_at(time_s)

    def _due(self, hop_tokens: int) -> int | None:
        """Return the index after the newest token, once so many new ones are complete."""
        after = None if self.newest is None else token_end(self.newest.stop + hop_tokens - 2)
        end = self._rolling.newest_end(after)
        return None if end is None else 1 + (end - TOKEN_SPAN_SAMPLES) // TOKEN_HOP_SAMPLES

    def _note(self, tokens: AudioTokens, took_s: float, asked: int) -> None:
        """Keep what a pass left; `asked` of its new tokens could have had one."""
        passed = 1 if self.newest is None else tokens.stop - self.newest.stop
        self.newest = tokens
        self.hop_s = passed * TOKEN_S
        self.hop_share = took_s / self.hop_s
        self.hops_skipped += max(0, passed - asked)


class WindowedAudio(RollingAudio):
    """Encodes the window that ends with the newest token, whole and anew: an `AudioPass`.

    Parameters
    ----------
    session : a loaded bundle.
    manifest : that bundle's manifest.
    hop_controller : chooses the hop on a machine that is too slow; None runs at every token.
    hop_limit : tokens that a chosen hop is at most; None for as many as the controller likes.
    microphone : whose audio it is, of several.
    """

    def __init__(
        self,
        session: Session,
        manifest: Manifest,
        hop_controller: HopController | None = None,
        hop_limit: int | None = None,
        microphone: int = 0,
    ) -> None:
        super().__init__(manifest)
        self._microphone = microphone
        self._session = session
        self._controller = hop_controller
        self._hop_limit = HOP_TOKENS_MAX if hop_limit is None else max(1, hop_limit)

    def run(self) -> bool:
        """As `AudioPass.run`."""
        chosen = 1 if self._controller is None else self._controller.hop_tokens
        hop_tokens = min(chosen, self._hop_limit)
        stop = self._due(hop_tokens)
        if stop is None:
            return False
        begun_s = monotonic()
        end = token_end(stop - 1)
        wave_S = self._rolling.window(end)
        features = self._session.encode_audio(wave_S, self._level.least_deviation(wave_S, end))
        took_s = monotonic() - begun_s
        if self._controller is not None:
            self._controller.note_audio_pass(took_s, self._microphone)
        tokens = AudioTokens(features, stop, slots=self._slots, count=self._slots, wave_S=wave_S)
        self._note(tokens, took_s, asked=hop_tokens)
        return True


class StreamingAudio(RollingAudio):
    """Encodes token after token, on what it remembers of those before: an `AudioPass`.

    Audio that is missing is silence, as in the windowed pass. What is further behind than the
    rolling window can be read back (a machine or a process that paused) is passed over, and the
    stream begins anew.

    Parameters
    ----------
    session : a bundle that was loaded for streaming.
    manifest : that bundle's manifest.
    """

    def __init__(self, session: Session, manifest: Manifest) -> None:
        super().__init__(manifest)
        self._stream = session.audio_stream()
        self._steps = 0  # since the stream began

    def run(self) -> bool:
        """As `AudioPass.run`: one step for each new token."""
        stop = self._due(1)
        if stop is None:
            return False
        begun_s = monotonic()
        first = stop - 1 if self.newest is None else self.newest.stop
        if stop - first > BEHIND_TOKENS_MAX:
            first = stop - 1
            self._stream.reset()
            self._steps = 0
        # All of it is read before any is encoded: the window rolls on meanwhile.
        steps, wave_S = [], np.zeros(0, np.float32)
        for token in range(first, stop):
            end = token_end(token)
            wave_S = self._rolling.window(end)
            level = self._level.level(wave_S, end)
            steps.append((wave_S[-TOKEN_SPAN_SAMPLES:].copy(), level))
        features: Features = None
        for samples_S, level in steps:
            features = self._stream.step(samples_S, level)
        self._steps += len(steps)
        count = min(self._slots, self._steps)
        tokens = AudioTokens(features, stop, slots=self._slots, count=count, wave_S=wave_S)
        self._note(tokens, monotonic() - begun_s, asked=stop - first)
        return True


def token_end(token: int) -> int:
    """Return the sample just after a token."""
    return token * TOKEN_HOP_SAMPLES + TOKEN_SPAN_SAMPLES


def loudness_dbfs(wave_S: NDArray[np.float32]) -> float:
    """Return the root mean square in decibels of full scale, at least -120."""
    rms = float(np.sqrt(np.mean(np.square(wave_S), dtype=np.float64)))
    return max(SILENT_DBFS, 20 * math.log10(max(rms, 1e-12)))
