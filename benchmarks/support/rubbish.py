"""Cameras that give rubbish: good pictures for a while, rubbish of one kind, good ones again.

A kind enters, an HTTP server of MJPEG leaves, and an adversary for a live run that looks at it.
Rubbish comes in the place of pictures, on a connection that was good and on those after it.
"""

import random
import struct
from collections.abc import Callable, Mapping
from threading import Event
from time import monotonic
from typing import Any

import cv2

from benchmarks.support.adversaries import Target
from tests.support.servers import PICTURE_S, MjpegServer

GOOD_S, RUBBISH_S = 6.0, 3.0
HUGE = 65_000  # pixels to a side
_RANDOM = random.Random(0)


def part(body: bytes, length: int | None = None) -> bytes:
    """Return a picture's place in the answer, with the length that it says it has."""
    said = len(body) if length is None else length
    return b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (said, body)


def huge(jpeg: bytes) -> bytes:
    """Return a picture that says it has 65,000 pixels to a side."""
    at = jpeg.index(b"\xff\xc0") + 5  # the frame's header: marker, length, bits; then its size
    return jpeg[:at] + struct.pack(">HH", HUGE, HUGE) + jpeg[at + 4 :]


def corrupt(jpeg: bytes) -> bytes:
    """Return a picture with a byte in fifty changed."""
    changed = bytearray(jpeg)
    for _ in range(len(changed) // 50):
        changed[_RANDOM.randrange(len(changed))] = _RANDOM.randrange(256)
    return bytes(changed)


RUBBISH: Mapping[str, Callable[[bytes], bytes]] = {
    "camera: random bytes": lambda _: _RANDOM.randbytes(20_000),
    "camera: random pictures": lambda _: part(_RANDOM.randbytes(20_000)),
    "camera: cut pictures": lambda jpeg: part(jpeg[: len(jpeg) // 2]),
    "camera: corrupt pictures": lambda jpeg: part(corrupt(jpeg)),
    "camera: huge pictures": lambda jpeg: part(huge(jpeg)),
    "camera: endless header": lambda _: b"--next\r\nX: " + b"y" * 50_000,
    "camera: lengths too long": lambda jpeg: part(jpeg, 10**12),
    "camera: lengths below zero": lambda jpeg: part(jpeg, -1),
    "camera: no boundaries": lambda jpeg: jpeg,
}


class RubbishCamera(MjpegServer):
    """Serves good pictures and rubbish in turn; `attack` is its adversary."""

    def __init__(self, kind: str) -> None:
        self._rubbish = RUBBISH[kind]
        self._begun_s = float("inf")
        self._given = 0
        super().__init__()

    def attack(self, _: Target, stop: Event) -> int:
        """Begin, and return how much rubbish was given in the place of pictures."""
        self._begun_s = monotonic()
        stop.wait()
        return self._given

    def serve(self, connection: Any) -> None:
        """As `MjpegServer.serve`."""
        count = 0
        while not self._killed.wait(PICTURE_S):
            jpeg = cv2.imencode(".jpg", self.picture(count))[1].tobytes()
            count += 1
            if (monotonic() - self._begun_s) % (GOOD_S + RUBBISH_S) > GOOD_S:
                self._given += 1
                connection.write(self._rubbish(jpeg))
            else:
                connection.write(part(jpeg))
