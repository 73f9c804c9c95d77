"""The hop controller: durations of passes in, how many tokens an audio pass moves on by out.

A machine too slow for what is asked gives way in this order:

1. Frames are dropped, the newest wins, down to five answers a second of each camera.
2. The audio hop doubles, from 180 ms up to 1.44 s, which leaves the image pass more of the machine.
3. After that both are as slow as they are.

An audio pass that lasts longer than its hop moves on to the newest token at any time. Where several
microphones are encoded in turn, a hop has a pass of each. When there
is room again, the hop is halved, and frames are no longer dropped.
"""

from collections import deque
from statistics import median
from threading import Lock

from denseav.export.runtime.bundle import SAMPLE_RATE_HZ, TOKEN_HOP_SAMPLES

TOKEN_S = TOKEN_HOP_SAMPLES / SAMPLE_RATE_HZ
SLOWEST_ROUND_S = 0.2  # where a turn of each camera takes longer, each has fewer than five a second
HOP_TOKENS_MAX = 8
WORTH_SHARE = 0.25  # an audio pass that takes less of its hop than this leaves little to win
ROOM_SHARE = 0.5  # and one that would take less than this of half its hop may have it
PASSES_TO_DOUBLE = 4  # of each microphone, since the last change
PASSES_TO_HALVE = 12
_RECENT = 5
_TURNS = 32  # two of each of a run's sources at most; one that is lost is soon among them no more


class HopController:
    """Chooses the hop of a live run. Callable from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._hop_tokens = 1
        self._passes = 0
        self._audio_s: deque[float] = deque(maxlen=_RECENT)
        self._frame_s: deque[float] = deque(maxlen=_RECENT)
        self._cameras: deque[int] = deque(maxlen=_TURNS)  # whose the last frames were
        self._microphones: deque[int] = deque(maxlen=_TURNS)  # and the last audio passes

    @property
    def hop_tokens(self) -> int:
        """How many tokens lie between the ends of two audio passes, at least."""
        return self._hop_tokens

    def note_frame(self, seconds: float, camera: int = 0) -> None:
        """Note how long a frame of a camera took."""
        with self._lock:
            self._frame_s.append(seconds)
            self._cameras.append(camera)

    def note_audio_pass(self, seconds: float, microphone: int = 0) -> None:
        """Note how long a pass over a microphone's audio took, and choose the next hop."""
        with self._lock:
            self._audio_s.append(seconds)
            self._microphones.append(microphone)
            self._passes += 1
            if self._frame_s:
                audio_s = len(set(self._microphones)) * median(self._audio_s)
                round_s = len(set(self._cameras)) * median(self._frame_s)
                self._choose(audio_s, round_s)

    def _choose(self, audio_s: float, round_s: float) -> None:
        """Choose by the time of a turn of every microphone, and of every camera."""
        passes = self._passes // len(set(self._microphones))
        share = audio_s / (self._hop_tokens * TOKEN_S)
        slow = round_s > SLOWEST_ROUND_S and share > WORTH_SHARE
        room = round_s < SLOWEST_ROUND_S / 2 and 2 * share < ROOM_SHARE
        if slow and passes >= PASSES_TO_DOUBLE and self._hop_tokens < HOP_TOKENS_MAX:
            self._change(2 * self._hop_tokens)
        elif room and passes >= PASSES_TO_HALVE and self._hop_tokens > 1:
            self._change(self._hop_tokens // 2)

    def _change(self, hop_tokens: int) -> None:
        self._hop_tokens = hop_tokens
        self._passes = 0
        self._audio_s.clear()
        self._frame_s.clear()
