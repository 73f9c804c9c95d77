"""An endless film of the world, sent as it happens to whoever listens.

A seed and a port enter; H.264 and AAC in MPEG-TS leave by TCP, at the pace of a clock, the same to
all who are connected, and what happened leaves as JSON lines. Who connects comes into the middle of
it; who takes it too slowly is left out. Pictures and sound are those of `shots`, of held-out
parts.

Errors
------
DataError    the port cannot be had, or espeak-ng is not installed
"""

import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TextIO

import av
import numpy as np

from denseav.export.process_limits import descriptors_are_few
from denseav.train.errors import DataError
from denseav.train.world.film import (
    Box,
    add_audio,
    add_video,
    audio_frame,
    boxes_of,
    event_truth,
    video_frame,
)
from denseav.train.world.library import Library, library
from denseav.train.world.scenes import choose_names
from denseav.train.world.shots import FRAME_RATE, FRAME_SAMPLES, Shot, look, make_shot

THINGS = (3, 4)
SEND_BYTES = 2**22
"""So much may wait for a listener: some ten seconds."""
SUBSCRIBERS_MAX = 32
"""One more is sent away."""
TOLERATED_LAG_S = 0.5
"""What is later than this is not caught up with: the clock is set back."""
VIDEO_OPTIONS = {"preset": "ultrafast", "tune": "zerolatency", "crf": "23", "g": str(FRAME_RATE)}
"""A picture that needs no other comes every second; listeners are let in with it."""

_SERVE = 10


class Subscribers:
    """Everybody who listens at a port; what is written goes to all of them.

    Attributes
    ----------
    port : the port's number, also where any was asked for by 0.

    Raises
    ------
    DataError
        When the port cannot be had.
    """

    def __init__(self, host: str, port: int) -> None:
        try:
            self._server = socket.create_server((host, port))
        except OSError as error:
            raise DataError(
                f"cannot listen at {host}:{port} ({error.strerror}); choose another"
            ) from None
        self._server.setblocking(False)
        self.port = int(self._server.getsockname()[1])
        self._connected: list[socket.socket] = []

    def __len__(self) -> int:
        """Return how many listen."""
        return len(self._connected)

    def accept_waiting(self) -> None:
        """Let in who has come."""
        while True:
            try:
                subscriber, _ = self._server.accept()
            except OSError:  # nobody is there, or there are no descriptors left for now
                return
            if len(self._connected) >= SUBSCRIBERS_MAX or descriptors_are_few():
                subscriber.close()
                continue
            subscriber.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
            subscriber.setblocking(False)
            self._connected.append(subscriber)

    def write(self, part: bytes) -> int:
        """Send to all; who has left, or is too slow, is left out from then on."""
        for subscriber in list(self._connected):
            try:
                whole = subscriber.send(part) == len(part)
            except OSError:
                whole = False
            if not whole:
                self._connected.remove(subscriber)
                subscriber.close()
        return len(part)

    def close(self) -> None:
        """Send everybody away and give the port back."""
        for held in (*self._connected, self._server):
            held.close()


def endless_shots(seed: int) -> Iterator[Shot]:
    """Yield shots without end, each made while the one before it runs."""
    with ThreadPoolExecutor(1) as pool:
        number = 0
        coming = pool.submit(_shot, seed, number)
        while True:
            shot, number = coming.result(), number + 1
            coming = pool.submit(_shot, seed, number)
            yield shot


def _shot(seed: int, number: int) -> Shot:
    random = np.random.default_rng([seed, _SERVE, number])
    names = choose_names(random, int(random.choice(THINGS)))
    return make_shot(random, library(held_out=True), names)


def broadcast(shots: Iterable[Shot], subscribers: Subscribers, truth: TextIO) -> None:
    """Send shots at the pace of the clock until there are no more.

    Parameters
    ----------
    shots : what is sent.
    subscribers : to whom.
    truth : takes a JSON line for each event as it ends: that of a film, in seconds of the
        stream, with `start_unix_s`, when its first frame was sent.
    """
    options = {"flush_packets": "1"}
    with av.open(subscribers, "w", format="mpegts", options=options) as stream:
        video, audio = add_video(stream, VIDEO_OPTIONS), add_audio(stream)

        def send(picture_HW3: Any, sound_S: Any, index: int) -> None:
            stream.mux(video.encode(video_frame(picture_HW3, index)))
            stream.mux(audio.encode(audio_frame(sound_S, index * FRAME_SAMPLES)))

        clock = _Clock()
        first = 0
        for shot in shots:
            _play(
                shot=shot, first=first, clock=clock, subscribers=subscribers, send=send, truth=truth
            )
            first += shot.frames


class _Clock:
    """Says when a frame is due: at its own time after the first, later for good after a delay."""

    def __init__(self) -> None:
        self._zero_s = time.monotonic()

    def wait(self, index: int) -> None:
        due_s = self._zero_s + index / FRAME_RATE
        lag_s = time.monotonic() - due_s
        if lag_s > TOLERATED_LAG_S:
            self._zero_s += lag_s
        time.sleep(max(0.0, -lag_s))


def _play(
    shot: Shot,
    first: int,
    clock: _Clock,
    subscribers: Subscribers,
    send: Callable[[Any, Any, int], None],
    truth: TextIO,
) -> None:
    """Draw and send a shot whose first frame has the number `first`."""
    parts: Library = library(held_out=True)
    boxes: dict[int, dict[str, Box]] = {}
    sent_unix_s = []
    waiting = sorted(shot.events, key=lambda event: event.stop_s)
    for index in range(shot.frames):
        picture_HW3, masks_NHW = look(shot, parts, index)
        boxes[first + index] = boxes_of(dict(zip(shot.scene.names, masks_NHW, strict=True)))
        begin = index * FRAME_SAMPLES
        clock.wait(first + index)
        if (first + index) % FRAME_RATE == 0:
            subscribers.accept_waiting()
        sent_unix_s.append(time.time())
        send(picture_HW3, shot.wave_S[begin : begin + FRAME_SAMPLES], first + index)
        while waiting and waiting[0].stop_s * FRAME_RATE <= index:
            event = waiting.pop(0)
            begun = sent_unix_s[round(event.start_s * FRAME_RATE)]
            line = event_truth(first / FRAME_RATE, event, boxes) | {"start_unix_s": round(begun, 3)}
            _write(truth, json.dumps(line) + "\n")


def _write(truth: TextIO, line: str) -> None:
    try:
        truth.write(line)
        truth.flush()
    except OSError as error:
        raise DataError(f"cannot write the truth ({error.strerror}); choose another") from None
