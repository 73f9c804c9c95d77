"""Sound of any rate and channel count in, mono sound at the model's rate out, as it streams."""

import numpy as np
import soxr
from numpy.typing import NDArray

from denseav.export.runtime.bundle import SAMPLE_RATE_HZ


class Resampler:
    """Mix all channels into one and resample to 16 kHz, block by block.

    What comes out, joined, is what the whole signal would give at once, and is aligned with it:
    output sample n lies at input time n / 16000. The filter's look-ahead (HQ, about 20 ms at
    48 kHz) stays inside until more sound or `finish` brings it out.
    """

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self._stream = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")

    def push(self, samples_SC: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the samples `[S']` at 16 kHz that this block completes."""
        return self._run(samples_SC.mean(axis=1, dtype=np.float32), last=False)

    def finish(self) -> NDArray[np.float32]:
        """Return what the filter still holds; the resampler is used up afterwards."""
        return self._run(np.zeros(0, np.float32), last=True)

    def _run(self, mono_S: NDArray[np.float32], last: bool) -> NDArray[np.float32]:
        wave_S: NDArray[np.float32] = self._stream.resample_chunk(mono_S, last=last)
        return wave_S
