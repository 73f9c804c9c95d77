"""The sync policy: which audio token a frame is compared with, and when the frame is due.

`Frame`s and `AudioTokens` in, token indices and seconds to wait out. It alone knows either;
callable from any thread.
"""

from collections import deque
from dataclasses import dataclass
from time import monotonic

from denseav.export.runtime.bundle import TOKEN_HOP_SAMPLES
from denseav.stream.errors import UsageError
from denseav.stream.inference.audio_pass import AudioPass, AudioTokens
from denseav.stream.inference.hop_controller import HOP_TOKENS_MAX, TOKEN_S
from denseav.stream.types import Frame

SLOW_MAX_S = 2.0  # how much longer than its look-ahead a frame waits, however slow the machine is
GRACE_S = 0.3  # how long a frame waits for a token that takes longer than others lately did
_PASSES_LOOKED_AT = 32  # for how long tokens take until they are encoded


@dataclass(frozen=True, kw_only=True)
class Sync:
    """How frames and tokens meet.

    Attributes
    ----------
    exact : compare a frame with the token that covers its capture, which has to be waited for,
        and not with the newest one.
    lookahead : how many tokens must have been encoded after the one that is used.
    """

    exact: bool = False
    lookahead: int = 0

    def check(self, tokens: int) -> None:
        """Raise `UsageError` when passes of so many tokens cannot give what is asked.

        An exact frame's token must still be in a pass that moved on by the longest hop.
        """
        most = max(0, tokens - HOP_TOKENS_MAX) if self.exact else tokens - 1
        if self.lookahead > most:
            raise UsageError(
                f"--lookahead {self.lookahead} is beyond this model's window of {tokens} tokens; "
                f"with --sync {'exact' if self.exact else 'latest'} it is at most {most}"
            )

    @property
    def latency_s(self) -> float:
        """How long after a frame's capture its token is complete, at the latest."""
        return (1 + self.lookahead) * TOKEN_S


class SyncPolicy:
    """Decides for one run.

    Parameters
    ----------
    sync : how frames and tokens meet.
    audio : gives times and samples of the stream, and the newest tokens.
    """

    def __init__(self, sync: Sync, audio: AudioPass) -> None:
        self._sync = sync
        self._audio = audio
        self._held_s = sync.latency_s
        self._held_max_s = sync.latency_s + SLOW_MAX_S
        self._delays_s: deque[float] = deque(maxlen=_PASSES_LOOKED_AT)

    @property
    def exact(self) -> bool:
        """Whether frames wait for the token that covers them."""
        return self._sync.exact

    @property
    def latency_s(self) -> float:
        """How long after a frame's capture its token is complete, at the latest."""
        return self._sync.latency_s

    def token_of(self, frame: Frame, newest: AudioTokens | None) -> int | None:
        """Return the token that a frame is compared with; None when the pass does not hold it."""
        if newest is None:
            return None
        latest = newest.stop - 1 - self._sync.lookahead
        token = latest
        if self._sync.exact:
            token = self._audio.sample_at(frame.capture_s) // TOKEN_HOP_SAMPLES
        return token if token <= latest and token in newest else None

    def covers(self, frame: Frame) -> bool:
        """Return whether what a frame is to be compared with has been encoded."""
        return self.token_of(frame, self._audio.newest) is not None

    def wait_s(self, frame: Frame) -> float:
        """Return how many seconds a frame should still be held, at least; 0 when it is due.

        Exact frames are held for as long as tokens lately took until they were encoded, so that
        they go on as evenly as they came.
        """
        if not self._sync.exact:
            return 0.0
        left_s = frame.capture_s + self._held_s - monotonic()
        if left_s <= -GRACE_S or (left_s <= 0 and self.covers(frame)):
            return 0.0
        return max(left_s, 0.005)

    def note_pass(self, before: AudioTokens | None, after: AudioTokens) -> None:
        """Remember how long the oldest of a pass's new tokens had to wait for it."""
        first = after.stop - 1 if before is None else before.stop
        if after.stop - first > HOP_TOKENS_MAX:
            return  # audio was missing meanwhile, and says nothing about how long passes take
        oldest_start = (first - self._sync.lookahead) * TOKEN_HOP_SAMPLES
        self._delays_s.append(monotonic() - self._audio.time_of(oldest_start))
        self._held_s = min(self._held_max_s, max(self._delays_s))
