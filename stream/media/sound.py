"""Decoded sound in, the sound as heard out: one channel at one rate, by sample number.

Of two channels the mean is heard, or one of them; of more, FFmpeg's mix to two. Where the mean
cancels what both channels have, the left one is heard instead, unless the mean was asked for. When
rate or channels change, the rest is brought to the first rate. A hole in the time stamps is a jump
in the sample number; what would be heard twice is left out; where the stamps stand still, as those
of a copy of a clock that began anew, the samples are counted on.

S samples, C channels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import av
import numpy as np
from numpy.typing import NDArray

from denseav.stream.media.mended_faults import Mends

Channel = Literal["left", "right", "mix"]
Samples = NDArray[np.float32]

GAP_S = 0.05
"""Time stamps that disagree less with the sample count are only rounded."""
STANDING = 0.5
"""Time stamps that advance by no more than this share of the sound between them say nothing."""
CANCELLED = 0.01
"""The mean cancels when it has less than this share of the channels' power, until it has …"""
RECOVERED = 0.05
POWER_S = 0.5
"""… over about so many seconds."""
FAINT = 1e-8
"""Power below -80 dBFS says nothing."""
LOUDEST = 1e6
"""Files of whole numbers written as floats reach 32768; what is louder is damaged."""
_USUAL_RATE_HZ = 48_000
_NEVER_OVER_FULL = {"rematrix_maxval": "1"}


@dataclass(frozen=True, slots=True, eq=False)
class Sound:
    """Some sound, float32 `[S]` in [-1, 1], whose first sample counts from the file's start."""

    samples_S: Samples
    first_sample: int
    rate_hz: int


class Hearing:
    """What hears the sound of one file, from its start to its end.

    Parameters
    ----------
    channel : which is heard; None for the mean, or the left one where that cancels.
    mends : takes what was wrong.
    """

    def __init__(self, channel: Channel | None, mends: Mends) -> None:
        self._mix = _Mixer(channel, mends)
        self._mends = mends
        self._rate_hz = 0
        self._form: tuple[int, str, str] | None = None
        self._resampler: av.AudioResampler | None = None
        self._at: int | None = None  # where the next sample lies, by the count
        self._stamped: tuple[int, int] | None = None  # the last stamp, and where its sound lies
        self._end = 0  # up to where sound was given

    def hear(self, frame: av.AudioFrame, time_s: float | None) -> Iterator[Sound]:
        """Yield what a frame completes; its time counts from the file's start."""
        form = frame.sample_rate, frame.format.name, frame.layout.name
        if form != self._form:
            yield from self.finish()
            self._change(form, frame.layout.nb_channels, time_s)
        self._align(time_s)
        frame.pts = None  # samples are counted here
        for part in self._resampled(frame):
            yield from self._give(part)

    def finish(self) -> Iterator[Sound]:
        """Yield what is still held."""
        if self._resampler is not None:
            for part in filter(None, self._resampler.resample(None)):
                yield from self._give(part)
            self._resampler = None

    def _resampled(self, frame: av.AudioFrame) -> list[av.AudioFrame]:
        assert self._resampler is not None
        assert self._at is not None
        try:
            return self._resampler.resample(frame)
        except av.FFmpegError:  # a damaged packet may say that it has 29 channels
            self._mends.note("damaged sound is silent", self._at / self._rate_hz)
            self._at += round(frame.samples * self._rate_hz / frame.sample_rate)
            self._form = self._resampler = None
            return []

    def _change(self, form: tuple[int, str, str], channels: int, time_s: float | None) -> None:
        if self._form is not None and (form[0], form[2]) != (self._form[0], self._form[2]):
            was, becomes = (f"{rate} Hz {layout}" for rate, _, layout in (self._form, form))
            self._mends.note(f"the sound changes from {was} to {becomes}", time_s or 0.0)
        self._form = form
        self._rate_hz = self._rate_hz or form[0]
        layout = "stereo" if channels > 2 else None
        self._resampler = av.AudioResampler(
            format="fltp", layout=layout, rate=self._rate_hz, options=_NEVER_OVER_FULL
        )

    def _align(self, time_s: float | None) -> None:
        stamped = None if time_s is None else round(time_s * self._rate_hz)
        if self._at is None:
            self._at = stamped or 0
        elif stamped is not None and abs(stamped - self._at) > GAP_S * self._rate_hz:
            if self._stands_still(stamped, self._at):
                at_s = self._at / self._rate_hz
                self._mends.note("time stamps stand still, so the sound is counted", at_s)
            else:
                if stamped > self._at:
                    at_s = self._at / self._rate_hz
                    self._mends.note("the sound has a hole, which is silent", at_s)
                self._at = stamped
        if stamped is not None:
            self._stamped = stamped, self._at

    def _stands_still(self, stamped: int, at: int) -> bool:
        if self._stamped is None:
            return False
        last, last_at = self._stamped
        return stamped < at and 0 <= stamped - last <= STANDING * (at - last_at)

    def _give(self, part: av.AudioFrame) -> Iterator[Sound]:
        assert self._at is not None
        samples_S = self._mix(np.asarray(part.to_ndarray(), np.float32), self._at / self._rate_hz)
        first, self._at = self._at, self._at + len(samples_S)
        twice = self._end - first
        if twice > 0 and self._end:
            self._mends.note("sound that comes twice is left out", first / self._rate_hz)
        if twice < len(samples_S):
            yield Sound(samples_S[max(0, twice) :], max(first, self._end), self._rate_hz)
            self._end = self._at


class _Mixer:
    """Channels to one."""

    def __init__(self, channel: Channel | None, mends: Mends) -> None:
        self._channel = channel
        self._mends = mends
        self._cancels = False
        self._mean_power = self._channel_power = 0.0

    def __call__(self, samples_CS: NDArray[np.float32], time_s: float) -> Samples:
        if not _energy(samples_CS) <= LOUDEST**2:  # which a NaN is not
            samples_CS = self._numbers(samples_CS, time_s)
        left_S: Samples = samples_CS[0]
        right_S: Samples = samples_CS[-1]
        if len(samples_CS) == 1 or self._channel == "left":
            return left_S
        if self._channel == "right":
            return right_S
        mean_S: Samples = np.float32(0.5) * (left_S + right_S)
        self._measure(samples_CS, mean_S)
        if not self._cancels:
            return mean_S
        if self._channel == "mix":
            self._mends.note("left and right cancel each other in the mix", time_s)
            return mean_S
        self._mends.note("left and right cancel each other, so the left is heard", time_s)
        return left_S

    def _numbers(self, samples_CS: NDArray[np.float32], time_s: float) -> NDArray[np.float32]:
        numbers_CS = np.abs(samples_CS) <= LOUDEST
        if not numbers_CS.all():
            self._mends.note("samples that are no numbers are taken for silence", time_s)
        return np.where(numbers_CS, samples_CS, np.float32(0))

    def _measure(self, samples_CS: NDArray[np.float32], mean_S: Samples) -> None:
        """Learn whether the mean cancels, with what was lately heard counting most."""
        kept = max(0.0, 1 - len(mean_S) / (POWER_S * _USUAL_RATE_HZ))
        share = (1 - kept) / max(1, len(mean_S))
        self._mean_power = kept * self._mean_power + share * _energy(mean_S)
        self._channel_power = kept * self._channel_power + share / 2 * _energy(samples_CS)
        if self._channel_power > FAINT:
            cancelled = RECOVERED if self._cancels else CANCELLED
            self._cancels = self._mean_power < cancelled * self._channel_power


def _energy(samples: NDArray[np.float32]) -> float:
    return float(np.vdot(samples, samples))
