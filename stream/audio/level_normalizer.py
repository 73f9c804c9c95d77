"""How loud it lately was: windows enter, the least deviation to normalise them by leaves.

A network is trained on clips in which something sounds. A live window of a quiet room, normalised
by itself, would be that room's noise, as loud as a voice. So a window is divided by no less than
what was lately loud, which fades slowly, nor than a level so far above the energy floor that noise
at the floor stays as faint as under the sounds of training.

From the past alone. What is kept is one number, and for a stream what each token of its window adds
up to, so that no sample is looked at twice.
"""

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from denseav.export.runtime.bundle import SAMPLE_RATE_HZ, TOKEN_HOP_SAMPLES
from denseav.export.runtime.session import Level

FADE_DB_PER_S = 2.0
ABOVE_FLOOR_DB = 20.0


class LevelNormalizer:
    """The loudness of one stream.

    Parameters
    ----------
    energy_floor_dbfs : at which no head is active any more.
    """

    def __init__(self, energy_floor_dbfs: float) -> None:
        self._floor = 10 ** ((energy_floor_dbfs + ABOVE_FLOOR_DB) / 20)
        self._recent = 0.0
        self._end_sample = 0
        self._sums: deque[tuple[float, float]] = deque()  # each token of the newest window's
        self._sums_end = 0

    def least_deviation(self, wave_S: NDArray[np.float32], end_sample: int) -> float:
        """Take the newest window, float32 [S], and return what it is divided by at least.

        `end_sample` counts at 16 kHz and never goes back; the window itself is heard in full.
        """
        return self._least(Level.of(wave_S).deviation, end_sample)

    def level(self, wave_S: NDArray[np.float32], end_sample: int) -> Level:
        """Take the newest window in the same way, and return what it is normalised by.

        Windows end where tokens do. Of one that ends a token after the one before, only that
        token is looked at, and what lies before the first whole one.
        """
        before = len(wave_S) % TOKEN_HOP_SAMPLES
        tokens_TS = wave_S[before:].reshape(-1, TOKEN_HOP_SAMPLES)
        if self._sums and end_sample == self._sums_end + TOKEN_HOP_SAMPLES:
            self._sums.popleft()
            tokens_TS = tokens_TS[-1:]
        else:
            self._sums.clear()
        self._sums.extend(map(_sums, tokens_TS))
        self._sums_end = end_sample
        total, squares = map(sum, zip(_sums(wave_S[:before]), *self._sums, strict=True))
        own = Level.of_sums(total, squares, len(wave_S))
        return own.at_least(self._least(own.deviation, end_sample))

    def _least(self, deviation: float, end_sample: int) -> float:
        passed_s = (end_sample - self._end_sample) / SAMPLE_RATE_HZ
        faded = self._recent * 10 ** (-FADE_DB_PER_S * passed_s / 20)
        self._recent = max(faded, deviation)
        self._end_sample = end_sample
        return max(self._recent, self._floor)


def _sums(wave_S: NDArray[np.float32]) -> tuple[float, float]:
    """Return what samples and their squares add up to; one that is no number is silence."""
    heard_S = wave_S.astype(np.float64)
    total = float(heard_S.sum())
    if not math.isfinite(total):
        np.nan_to_num(heard_S, copy=False, posinf=0.0, neginf=0.0)
        total = float(heard_S.sum())
    return total, float(np.square(heard_S, out=heard_S).sum())
