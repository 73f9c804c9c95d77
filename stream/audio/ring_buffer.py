"""The last seconds of sound, addressed by absolute sample index; its memory never grows."""

import numpy as np
from numpy.typing import NDArray


class RingBuffer:
    """Keep the newest `capacity_samples` of a mono stream whose first sample has index 0.

    Attributes
    ----------
    end : the index just after the newest sample.
    """

    def __init__(self, capacity_samples: int) -> None:
        self.end = 0
        self._wave_S = np.zeros(capacity_samples, np.float32)

    @property
    def oldest(self) -> int:
        """The index of the oldest sample still held."""
        return max(0, self.end - len(self._wave_S))

    def write(self, wave_S: NDArray[np.float32]) -> None:
        """Append samples; more than the capacity leaves only the newest of them."""
        newest_S = wave_S[-len(self._wave_S) :]
        start = self.end + len(wave_S) - len(newest_S)
        self.end += len(wave_S)
        at = start % len(self._wave_S)
        first = min(len(newest_S), len(self._wave_S) - at)
        self._wave_S[at : at + first] = newest_S[:first]
        self._wave_S[: len(newest_S) - first] = newest_S[first:]

    def skip(self, samples: int) -> None:
        """Append `samples` zeros, in bounded memory however many they are."""
        zeros = min(samples, len(self._wave_S))
        self.end += samples - zeros
        self.write(np.zeros(zeros, np.float32))

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Copy samples `[start, stop)`; those before the stream's start (index < 0) are zeros.

        Raises
        ------
        IndexError
            When some of them are overwritten or have not been written yet.
        """
        if stop > self.end or (stop > 0 and max(start, 0) < self.oldest):
            raise IndexError(
                f"samples {start} to {stop} are not in the ring, which holds "
                f"{self.oldest} to {self.end}"
            )
        wave_S = np.zeros(stop - start, np.float32)
        heard = max(stop, 0) - max(start, 0)
        at = max(start, 0) % len(self._wave_S)
        wrapped = max(0, at + heard - len(self._wave_S))
        wave_S[len(wave_S) - heard : len(wave_S) - wrapped] = self._wave_S[at : at + heard]
        wave_S[len(wave_S) - wrapped :] = self._wave_S[:wrapped]
        return wave_S
