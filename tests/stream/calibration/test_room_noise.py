"""Learning the room: what its noise raises, what is printed, and what cannot be asked."""

import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from denseav.export.runtime.bundle import TOKEN_HOP_SAMPLES, Manifest
from denseav.stream.calibration.room_noise import Room, learn, with_settings, words_of_room
from denseav.stream.cli.live_options import parse
from denseav.stream.display.hud import Hud
from denseav.stream.errors import SourceError, UsageError
from denseav.stream.stats.stats import Stats
from denseav.stream.types import AudioBlock, Frame, Receiver
from tests.support.fake_session import FakeSession, fake_manifest
from tests.support.fakes import FakeSource
from tests.support.live_command import live

pytestmark = pytest.mark.realtime

PICTURE = np.full((16, 24, 3), 51, np.uint8)  # a fifth of white


class Playing(FakeSource):
    """A source that plays a sound token by token, faster than it lasts, under one picture."""

    def __init__(self, wave_S: NDArray[np.float32], picture: bool = True) -> None:
        super().__init__()
        self.wave_S, self.picture = wave_S, picture

    def start(self, receiver: Receiver) -> None:
        super().start(receiver)
        if self.picture:
            receiver.frame(Frame(PICTURE, 0, 0.0))
        threading.Thread(target=self._play, args=(receiver,)).start()

    def _play(self, receiver: Receiver) -> None:
        for first in range(0, len(self.wave_S), TOKEN_HOP_SAMPLES):
            part_S1 = self.wave_S[first : first + TOKEN_HOP_SAMPLES, None]
            receiver.audio(AudioBlock(part_S1, 16_000, first, first / 16_000))
            time.sleep(0.03)
        receiver.ended(None)


def noise(rms: float, seconds: float = 4.0) -> NDArray[np.float32]:
    signs = np.sign(np.random.default_rng(0).standard_normal(round(16_000 * seconds)))
    return (rms * signs).astype(np.float32)


def learned(source: FakeSource, manifest: Manifest, seconds: float = 30.0) -> Room:
    room = learn([source], FakeSession(), manifest, seconds=seconds, stop=threading.Event())
    assert room is not None
    assert source.stops == 1
    return room


def test_a_noisy_room_raises_the_floor_and_the_threshold_that_its_noise_is_above() -> None:
    manifest = with_settings(fake_manifest(), None, {"sound": 0.5})
    room = learned(Playing(noise(0.01)), manifest)
    assert room.noise_dbfs == pytest.approx(-40, abs=0.1)
    assert room.unsteady_db < 0.1
    settled = room.settle(manifest)
    assert settled.audio.energy_floor_dbfs == pytest.approx(-34, abs=0.1)
    speech, sound = settled.heads
    # The fake's first head is the picture's mean; its second is no more than the noise itself.
    assert speech.threshold == pytest.approx(0.2, abs=1e-3)
    assert speech.ceiling == pytest.approx(1.2, abs=1e-3)
    assert sound == manifest.heads[1]
    said = words_of_room(manifest, room)
    assert said.startswith("the room's noise is -40.0 dBFS; to keep what was learned: ")
    assert said.endswith("--energy-floor-dbfs -34 --threshold speech=0.2")


def test_a_quiet_room_changes_nothing() -> None:
    manifest = with_settings(fake_manifest(), None, {"speech": 0.9, "sound": 0.5})
    room = learned(Playing(np.zeros(40_000, np.float32)), manifest)
    assert room.settle(manifest) == manifest
    assert words_of_room(manifest, room).endswith("--energy-floor-dbfs -60")


def test_a_room_that_was_not_quiet_is_said() -> None:
    wave_S = noise(0.001)
    wave_S[: 2 * len(wave_S) // 5] *= 300
    assert "that was not quiet, try again" in words_of_room(
        fake_manifest(), learned(Playing(wave_S), fake_manifest())
    )


def test_no_picture_or_a_source_that_fails_is_an_error_and_everything_is_stopped() -> None:
    source: FakeSource = Playing(noise(0.01, 0.5), picture=False)
    with pytest.raises(SourceError, match=r"no picture with sound came .* --calibrate"):
        learned(source, fake_manifest())
    assert source.stops == 1

    class Failing(FakeSource):
        def start(self, receiver: Receiver) -> None:
            receiver.ended(SourceError("the camera was unplugged"))

    failing = Failing()
    with pytest.raises(SourceError, match="unplugged"):
        learned(failing, fake_manifest())
    assert failing.stops == 1


def test_it_ends_when_told_to() -> None:
    stop = threading.Event()
    stop.set()
    assert learn([FakeSource()], FakeSession(), fake_manifest(), seconds=100, stop=stop) is None


def test_a_head_that_the_model_has_not_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="music: this model has no such head; it has speech and"):
        with_settings(fake_manifest(), None, {"music": 1.0})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--calibrate", "0"], "not a number of seconds up to 120"),
        (["--calibrate", "nan"], "not a number of seconds"),
        (["--calibrate", "3", "--offline", "--source", "x.mp4"], "--offline does not go with"),
        (["--calibrate", "3", "--camera", "0", "--mic", "none"], "needs sound"),
        (["--energy-floor-dbfs", "3"], "not within -120 and 0"),
        (["--energy-floor-dbfs", "nan"], "not within"),
        (["--threshold", "sound"], "is not HEAD=HEAT"),
        (["--threshold", "sound=inf"], "is not HEAD=HEAT"),
    ],
)
def test_senseless_asks_are_usage_errors(arguments: list[str], message: str) -> None:
    named = {"--source", "--camera"} & set(arguments)
    with pytest.raises(UsageError, match=message):
        parse(arguments if named else ["--demo", *arguments])


def test_the_screen_says_what_was_learned() -> None:
    canvases = [np.zeros((480, 640, 3), np.uint8) for _ in range(2)]
    for canvas, room in zip(canvases, (None, "noise -52 dBFS"), strict=True):
        Hud("cpu", "fp32", ["camera"], room=room).draw(canvas, Stats().snapshot())
    assert not np.array_equal(*canvases)


def test_the_command_learns_the_room_and_takes_what_it_printed(tmp_path: Path) -> None:
    shared = ("--demo", "--headless", "--seconds", "3")
    first = live(tmp_path, *shared, "--calibrate", "3")
    assert first.returncode == 0, first.stderr
    assert "learning the room for 3 s: keep quiet" in first.stderr
    kept = re.search(r"to keep what was learned: (.*)", first.stderr)
    assert kept is not None
    again = live(tmp_path, *shared, *kept[1].split())
    assert again.returncode == 0, again.stderr
    assert "READY" in again.stderr
