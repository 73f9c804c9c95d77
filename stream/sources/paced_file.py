"""A file played as if it were a camera and a microphone: each frame and block at its own time."""

import dataclasses
import threading
import time
from collections.abc import Iterator
from functools import partial

from denseav.stream.errors import SourceError
from denseav.stream.sources.media_file import ready_s
from denseav.stream.sources.source_thread import SourceThread
from denseav.stream.types import AudioBlock, Film, Frame, Receiver

TOLERATED_LAG_S = 1.0


class PacedClip:
    """Play a clip on the monotonic clock: a `Source` whose `capture_s` are `time.monotonic()`.

    When decoding falls more than a second behind, both streams are moved to a later time alike.

    Parameters
    ----------
    clip : the clip.
    loop : begin again at its end; time, frame index and `first_sample` go on without a seam.
    """

    def __init__(self, clip: Film, loop: bool = False) -> None:
        self.name = clip.name
        self.clip = clip
        self._loop = loop
        self._stopping = threading.Event()
        self._thread: SourceThread | None = None

    def start(self, receiver: Receiver) -> None:
        """Begin to play, on a thread of its own."""
        self._thread = SourceThread(self.name, partial(self._play, receiver), receiver.ended)
        self._thread.start()

    def stop(self) -> None:
        """Stop playing. May be called twice."""
        self._stopping.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _play(self, receiver: Receiver) -> None:
        anchor_s = time.monotonic()
        error = None
        try:
            for item in endless(self.clip) if self._loop else self.clip:
                due_s = anchor_s + ready_s(item)
                lag_s = time.monotonic() - due_s
                if lag_s > TOLERATED_LAG_S:
                    anchor_s += lag_s
                if self._stopping.wait(max(0.0, -lag_s)):
                    return
                _deliver(receiver, item, anchor_s)
        except SourceError as failure:
            error = failure
        receiver.ended(error)


def endless(clip: Film) -> Iterator[Frame | AudioBlock]:
    """Yield the clip again and again, each lap moved on by the length of the laps before.

    A lap lasts as long as the longer of its two streams, in whole samples of sound.
    """
    frames, samples = 0, 0
    while True:
        shift_s, next_frame, end_s = samples / clip.rate_hz, frames, 0.0
        for item in clip:
            if isinstance(item, Frame):
                next_frame = frames + item.index + 1
                end_s = max(end_s, item.capture_s + 1 / clip.fps)
                yield dataclasses.replace(
                    item, index=frames + item.index, capture_s=shift_s + item.capture_s
                )
            else:
                end_s = max(end_s, item.end_s)
                lap_samples = round(samples * item.rate_hz / clip.rate_hz)
                yield dataclasses.replace(
                    item,
                    first_sample=lap_samples + item.first_sample,
                    capture_s=shift_s + item.capture_s,
                )
        frames, samples = next_frame, samples + round(end_s * clip.rate_hz)


def _deliver(receiver: Receiver, item: Frame | AudioBlock, anchor_s: float) -> None:
    if isinstance(item, Frame):
        receiver.frame(dataclasses.replace(item, capture_s=anchor_s + item.capture_s))
    else:
        receiver.audio(dataclasses.replace(item, capture_s=anchor_s + item.capture_s))
