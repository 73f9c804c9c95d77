"""The audio pass: `AudioBlock`s in, features of the newest tokens and their indices out.

Blocks come in on the sources' threads, passes run on one thread of the caller's. Token k covers
the samples `[TOKEN_HOP_SAMPLES k, TOKEN_HOP_SAMPLES k + TOKEN_SPAN_SAMPLES)` at 16 kHz, counted
from the stream's start. Nothing here knows frames.

Axes: S samples.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from denseav.export.runtime.bundle import TOKEN_HOP_SAMPLES, TOKEN_SPAN_SAMPLES, Manifest
from denseav.export.runtime.session import Features, Session
from denseav.stream.audio.level_normalizer import LevelNormalizer
from denseav.stream.audio.rolling_window import RollingWindow
from denseav.stream.inference.hop_controller import TOKEN_S, HopController
from denseav.stream.types import AudioBlock

SILENT_DBFS = -120.0  # what digital silence is called, so that loudness stays a number


@dataclass(frozen=True, slots=True, eq=False)
class AudioTokens:
    """What one pass leaves.

    Attributes
    ----------
    features : of `count` tokens, the newest last; opaque, on the session's device.
    stop : the index just after the newest token.
    count : how many tokens the features hold; those before the stream's start say nothing.
    wave_S : the audio that the newest token ends with, float32 at 16 kHz.
    """

    features: Features
    stop: int
    count: int
    wave_S: NDArray[np.float32]

    def __contains__(self, token: int) -> bool:
        return max(0, self.stop - self.count) <= token < self.stop

    def position(self, token: int) -> int:
        """Return where a token is in the features."""
        return token - (self.stop - self.count)

    def rms_dbfs(self, token: int) -> float:
        """Return how loud a token's span was, at least -120."""
        end = len(self.wave_S) - (self.stop - 1 - token) * TOKEN_HOP_SAMPLES
        return loudness_dbfs(self.wave_S[max(0, end - TOKEN_SPAN_SAMPLES) : end])


class AudioPass(Protocol):
    """How audio is encoded as it comes: whole windows anew, or as a stream."""

    @property
    def newest(self) -> AudioTokens | None:
        """What the last pass left; None before any."""

    @property
    def hop_s(self) -> float:
        """How far the last pass moved on; more than a token when the machine is slow."""

    @property
    def hops_skipped(self) -> int:
        """How many tokens had no pass of their own although the hop asked for one."""

    def push(self, block: AudioBlock) -> None:
        """Take some audio. Callable from any thread."""

    def run(self, timeout_s: float = 0.0) -> bool:
        """Run one pass if a hop has completed since the last, waiting for it so long.

        Returns whether one was run. Called by one thread only.
        """

    def time_of(self, sample: int) -> float:
        """Return when a sample was captured, in seconds on the blocks' own clock."""

    def sample_at(self, time_s: float) -> int:
        """Return which sample was captured at a time."""


class WindowedAudio:
    """Encodes the window that ends with the newest token, whole and anew each time: an `AudioPass`.

    Parameters
    ----------
    session : a loaded bundle.
    manifest : that bundle's manifest.
    hop_controller : chooses the hop on a machine that is too slow; None runs at every token.
    hop_limit : tokens that a chosen hop is at most, so that none is passed over unseen.
    """

    def __init__(
        self,
        session: Session,
        manifest: Manifest,
        hop_controller: HopController | None = None,
        hop_limit: int | None = None,
    ) -> None:
        self._encode: Callable[..., Features] = session.encode_audio
        self._count = manifest.audio.tokens
        self._controller = hop_controller
        self._hop_limit = max(1, hop_limit or self._count)
        self._level = LevelNormalizer(manifest.audio.energy_floor_dbfs)
        self._rolling = RollingWindow(manifest.audio.window_samples)
        self._newest: AudioTokens | None = None
        self._hops_skipped = 0
        self._hop_s = TOKEN_S
        self.push = self._rolling.push
        self.time_of = self._rolling.time_of
        self.sample_at = self._rolling.sample_at

    @property
    def newest(self) -> AudioTokens | None:
        """As `AudioPass.newest`."""
        return self._newest

    @property
    def hop_s(self) -> float:
        """As `AudioPass.hop_s`."""
        return self._hop_s

    @property
    def hops_skipped(self) -> int:
        """As `AudioPass.hops_skipped`."""
        return self._hops_skipped

    def run(self, timeout_s: float = 0.0) -> bool:
        """As `AudioPass.run`."""
        hop = self._hop_tokens
        last = None if self._newest is None else self._newest.stop
        end = self._rolling.wait(None if last is None else token_end(last + hop - 2), timeout_s)
        if end is None:
            return False
        begun_s = monotonic()
        wave_S = self._rolling.window(end)
        features = self._encode(wave_S, self._level.least_deviation(wave_S, end))
        stop = 1 + (end - TOKEN_SPAN_SAMPLES) // TOKEN_HOP_SAMPLES
        self._newest = AudioTokens(features, stop, self._count, wave_S)
        if self._controller is not None:
            self._controller.note_audio_pass(monotonic() - begun_s)
        passed = 1 if last is None else stop - last
        self._hops_skipped += max(0, passed - hop)
        self._hop_s = passed * TOKEN_S
        return True

    @property
    def _hop_tokens(self) -> int:
        chosen = 1 if self._controller is None else self._controller.hop_tokens
        return min(chosen, self._hop_limit)


def token_end(token: int) -> int:
    """Return the sample just after a token."""
    return token * TOKEN_HOP_SAMPLES + TOKEN_SPAN_SAMPLES


def loudness_dbfs(wave_S: NDArray[np.float32]) -> float:
    """Return the root mean square in decibels of full scale, at least -120."""
    rms = float(np.sqrt(np.mean(np.square(wave_S), dtype=np.float64)))
    return max(SILENT_DBFS, 20 * math.log10(max(rms, 1e-12)))
