"""Kills the camera and the sound server of a real run again and again, and reads its feed.

Each picture shows when it was made, so that a heatmap of an old one cannot hide; and no head may
be valid by sound from while there was none.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from denseav.stream.feed.client import HeatmapSubscriber, HeatMessage
from tests.support.feeds import free_endpoint
from tests.support.live_command import LiveProcess
from tests.support.media import Image
from tests.support.servers import MjpegServer, PulseServer

DOWN_S = (0.4, 2.0, 4.0)  # how long a server is away, in turn
SETTLED_S = 1.0  # what was on its way when a server was killed has been stamped by then
SHOWN_LATE_S = 5.0  # from a picture's making to its stamp: coding, network, a machine that stalls
CUT_S = 0.3  # how far a stalled machine's stamps of sound may be off where it was cut
BITS, COLUMNS, CELL = 32, 8, (20, 30)
PATIENCE_S = 30.0


def stamped(_count: int) -> Image:
    """A picture of 160x120 whose cells are the bits of the time in milliseconds."""
    now_ms = round(1000 * time.monotonic())
    bits = np.array([(now_ms >> bit) & 1 for bit in range(BITS)], np.uint8)
    cells = 255 * bits.reshape(-1, COLUMNS)
    grey_HW = np.kron(cells, np.ones(CELL[::-1], np.uint8))
    return np.repeat(grey_HW[..., None], 3, axis=2).astype(np.uint8)


def stamp_s(jpeg: bytes) -> float:
    """Return the time that such a picture shows."""
    image_HW = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert image_HW is not None
    width, height = CELL
    middles = image_HW[height // 2 :: height, width // 2 :: width].ravel() > 127
    return sum(int(bit) << at for at, bit in enumerate(middles)) / 1000


@dataclass
class Judge:
    """Hears every heat message, and keeps what is wrong with it."""

    judged: int = 0
    stale: list[str] = field(default_factory=list)
    camera_down_s: list[list[float]] = field(default_factory=list)  # [from, to]
    sound_down_s: list[list[float]] = field(default_factory=list)
    picture_s: float = 0.0  # when the newest answered picture was made
    sound_s: float = 0.0  # where the sound of the newest valid head begins

    def take(self, message: HeatMessage) -> None:
        self.judged += 1
        made_s, captured_s = stamp_s(message.preview_jpeg), message.capture_ns / 1e9
        sent_s = message.publish_ns / 1e9
        if not -0.01 < captured_s - made_s < SHOWN_LATE_S:
            self.stale.append(f"a picture is {captured_s - made_s:.2f} s older than it says")
        if made_s <= self.picture_s:
            self.stale.append(f"the picture of {made_s:.2f} s comes again")
        for gone_s, back_s in self.camera_down_s:
            late = captured_s > gone_s + SETTLED_S or sent_s > back_s + SETTLED_S
            if made_s <= gone_s and late:
                self.stale.append(f"a picture from before a fault came at {sent_s:.2f} s")
        self.picture_s = made_s
        if any(head.valid for head in message.heads.values()):
            self._valid(message, captured_s)

    def _valid(self, message: HeatMessage, captured_s: float) -> None:
        start_s, end_s = (message.header[f"audio_{edge}_ns"] / 1e9 for edge in ("start", "end"))
        for gone_s, back_s in self.sound_down_s:
            if gone_s + SETTLED_S < captured_s < back_s:
                self.stale.append(f"a head is valid at {captured_s:.2f} s, without a microphone")
            if start_s < back_s and end_s > gone_s + CUT_S:
                self.stale.append("a head is valid by sound that nobody heard")
        self.sound_s = start_s


@dataclass(frozen=True)
class Faults:
    """What came of it: seconds from each return to the first good message, and all faults."""

    camera_s: list[float]
    microphone_s: list[float]
    judged: int
    stale: list[str]
    said: list[str]
    code: int


def break_and_mend(folder: Path, times: int, say: Callable[[str], None]) -> Faults:
    """Kill and restart the camera and the sound server so many times each, in one run."""
    camera, sound = MjpegServer(picture=stamped), PulseServer(folder, "/dev/urandom")
    judge, endpoint = Judge(), free_endpoint()
    arguments = ("--camera", camera.url, "--mic", "pulse", "--headless", "--publish", endpoint)
    process = LiveProcess(folder, *arguments, "--publish-preview", env=sound.environment)
    camera_s: list[float] = []
    microphone_s: list[float] = []
    try:
        process.until("READY")
        with HeatmapSubscriber(endpoint, tap=judge.take):
            _until(lambda: judge.sound_s > 0)
            for index in range(times):
                away_s = DOWN_S[index % len(DOWN_S)]
                camera_s.append(
                    _fault(camera, away_s, judge.camera_down_s, lambda: judge.picture_s)
                )
                say(f"camera {index + 1}: back after {camera_s[-1]:.2f} s")
                _until(lambda: judge.sound_s > time.monotonic() - 1)
                microphone_s.append(
                    _fault(sound, away_s, judge.sound_down_s, lambda: judge.sound_s)
                )
                say(f"microphone {index + 1}: back after {microphone_s[-1]:.2f} s")
        process.process.terminate()
        code = process.end()
    finally:
        process.process.kill()
        camera.kill()
        sound.kill()
    return Faults(camera_s, microphone_s, judge.judged, judge.stale, process.said, code)


def _fault(
    server: MjpegServer | PulseServer,
    away_s: float,
    down_s: list[list[float]],
    newest_s: Callable[[], float],
) -> float:
    """Kill, wait, start again; return the seconds until something made since has been answered."""
    server.kill()
    down_s.append([time.monotonic(), float("inf")])
    time.sleep(away_s)
    down_s[-1][1] = time.monotonic()
    server.start()
    back_s = time.monotonic()
    _until(lambda: newest_s() > down_s[-1][1])
    return time.monotonic() - back_s


def _until(done: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < end_s, "it does not come back"
        time.sleep(0.01)
