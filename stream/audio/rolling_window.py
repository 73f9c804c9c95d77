"""Rolling audio: blocks as devices give them in, windows of 16 kHz sound on the token grid out.

A sample's index counts at 16 kHz from the stream's start. Token k covers the samples
`[TOKEN_HOP_SAMPLES k, TOKEN_HOP_SAMPLES k + TOKEN_SPAN_SAMPLES)`; a window ends where a token
does, so that the same sound always falls on the same tokens. Nothing here knows the model.
"""

import bisect
import threading

import numpy as np
from numpy.typing import NDArray

from denseav.export.runtime.bundle import SAMPLE_RATE_HZ, TOKEN_HOP_SAMPLES, TOKEN_SPAN_SAMPLES
from denseav.stream.audio.resampler import Resampler
from denseav.stream.audio.ring_buffer import RingBuffer
from denseav.stream.types import AudioBlock

MARGIN_SAMPLES = 4 * SAMPLE_RATE_HZ  # how long a window can still be read after it was announced
CLOCK_TOLERANCE_S = 0.0005  # a smaller disagreement of a block's time is not worth remembering


class RollingWindow:
    """The last `window_samples` of sound, ready at every token. All methods are thread-safe.

    Gaps in the blocks' `first_sample` become exactly as much silence, so time never shifts.
    """

    def __init__(self, window_samples: int) -> None:
        self._window_samples = window_samples
        self._ring = RingBuffer(window_samples + MARGIN_SAMPLES)
        self._resampler: Resampler | None = None
        self._next_sample = 0  # at the block's own rate
        self._overlap = 0  # samples a new resampler will give that the ring already has
        self._clock: list[tuple[int, float]] = []  # (sample, its time), oldest first
        self._lock = threading.Lock()

    def push(self, block: AudioBlock) -> None:
        """Take one block.

        Raises
        ------
        ValueError
            When the block's `first_sample` lies before the end of the one before.
        """
        with self._lock:
            self._align(block)
            assert self._resampler is not None
            self._write(self._resampler.push(block.samples_SC))
            self._next_sample = block.first_sample + len(block.samples_SC)
            self._note_time(block)

    def newest_end(self, after_end: int | None) -> int | None:
        """Return where the newest token ends, if it does so after `after_end` (None: anywhere)."""
        with self._lock:
            end = self._newest_end()
        return None if end is None or end <= (after_end or -1) else end

    def window(self, end: int) -> NDArray[np.float32]:
        """Copy the window `[window_samples]` that ends at `end`; zeros before the stream's start.

        Raises
        ------
        IndexError
            When the window is no longer held (it ended over four seconds ago) or not complete.
        """
        with self._lock:
            return self._ring.read(end - self._window_samples, end)

    def time_of(self, sample: int) -> float:
        """Return when `sample` was captured, in seconds on the blocks' own clock.

        Raises
        ------
        LookupError
            When no block has come yet.
        """
        with self._lock:
            if not self._clock:
                raise LookupError("no sound has come yet, so no sample has a time")
            at = max(0, bisect.bisect_right(self._clock, (sample, np.inf)) - 1)
            known, time_s = self._clock[at]
            return time_s + (sample - known) / SAMPLE_RATE_HZ

    def sample_at(self, time_s: float) -> int:
        """Return which sample was captured at a time: `time_of` the other way round.

        Raises
        ------
        LookupError
            When no block has come yet.
        """
        with self._lock:
            if not self._clock:
                raise LookupError("no sound has come yet, so no time has a sample")
            at = max(0, bisect.bisect_right(self._clock, time_s, key=lambda seen: seen[1]) - 1)
            known, known_s = self._clock[at]
            return known + round((time_s - known_s) * SAMPLE_RATE_HZ)

    def _newest_end(self) -> int | None:
        hops = (self._ring.end - TOKEN_SPAN_SAMPLES) // TOKEN_HOP_SAMPLES
        return None if hops < 0 else TOKEN_SPAN_SAMPLES + TOKEN_HOP_SAMPLES * hops

    def _align(self, block: AudioBlock) -> None:
        """Bring the resampler to the block's first sample: fill a gap, or begin anew."""
        resampler = self._resampler
        if resampler is None or resampler.rate_hz != block.rate_hz:
            self._restart(block)
            return
        missing = block.first_sample - self._next_sample
        if missing < 0:
            raise ValueError(
                f"sound goes back from sample {self._next_sample} to {block.first_sample}"
            )
        if missing > MARGIN_SAMPLES:
            self._restart(block)
        elif missing:
            self._write(resampler.push(np.zeros((missing, 1), np.float32)))

    def _restart(self, block: AudioBlock) -> None:
        self._flush()
        start = round(block.first_sample * SAMPLE_RATE_HZ / block.rate_hz)
        self._overlap = max(0, self._ring.end - start)
        self._ring.skip(max(0, start - self._ring.end))
        self._resampler = Resampler(block.rate_hz)

    def _flush(self) -> None:
        if self._resampler is not None:
            self._write(self._resampler.finish())
            self._resampler = None

    def _write(self, wave_S: NDArray[np.float32]) -> None:
        overlap = min(self._overlap, len(wave_S))
        self._overlap -= overlap
        self._ring.write(wave_S[overlap:])

    def _note_time(self, block: AudioBlock) -> None:
        """Remember the block's time where it disagrees with the clock so far."""
        sample = round(block.first_sample * SAMPLE_RATE_HZ / block.rate_hz)
        if self._clock:
            known, time_s = self._clock[-1]
            expected_s = time_s + (sample - known) / SAMPLE_RATE_HZ
            if abs(block.capture_s - expected_s) < CLOCK_TOLERANCE_S:
                return
        self._clock.append((sample, block.capture_s))
        while len(self._clock) > 1 and self._clock[1][0] <= self._ring.oldest:
            self._clock.pop(0)
