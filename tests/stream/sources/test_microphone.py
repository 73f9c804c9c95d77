import builtins
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from denseav.stream.audio.rolling_window import RollingWindow
from denseav.stream.cli.list_devices import list_devices, list_microphones
from denseav.stream.errors import SourceError
from denseav.stream.sources import microphone as microphone_module
from denseav.stream.sources.microphone import Microphone, Packet
from denseav.stream.types import AudioBlock
from tests.support.fakes import Collector
from tests.support.media import read_sound, speak
from tests.support.servers import PulseServer
from tests.support.stalls import thrice

pytestmark = pytest.mark.realtime


@pytest.fixture(autouse=True)
def _portaudio_looks_again() -> None:
    """PortAudio looks for devices once; each test has its own."""
    import sounddevice

    sounddevice._terminate()
    sounddevice._initialize()


def likeness(heard_S: np.ndarray, said_S: np.ndarray) -> float:
    """Return the greatest correlation of what was said with any part of what was heard."""
    size = len(heard_S) + len(said_S)
    spectrum = np.fft.rfft(heard_S, size) * np.conj(np.fft.rfft(said_S, size))
    products = np.fft.irfft(spectrum, size)[: len(heard_S) - len(said_S)]
    energy = np.convolve(heard_S**2, np.ones(8), "valid").sum() / 8
    return float(products.max() / np.sqrt(energy * np.sum(said_S**2)))


@thrice
def test_a_spoken_sentence_is_heard_as_it_was_said(
    pulse_server: PulseServer, tmp_path: Path
) -> None:
    speech = speak(tmp_path / "speech.wav", "the dog barks")
    collector, rolling = Collector(), RollingWindow(160_000)
    microphone = Microphone("default")
    assert (microphone.channels, microphone.name) == (2, "default")
    begun_s = time.monotonic()
    microphone.start(collector)
    collector.wait_sound(0.2)
    pulse_server.play(speech)
    collector.wait_sound(time.monotonic() - begun_s + 1.0)
    stopped_s = time.monotonic()
    microphone.stop()
    microphone.stop()
    for block in collector.blocks:
        rolling.push(block)
    end = rolling.newest_end(None)
    assert end is not None
    assert likeness(rolling.window(end), read_sound(speech, 16_000)) > 0.95
    assert collector.errors == []
    assert (microphone.overflows, microphone.not_finite) == (0, 0)
    last = collector.blocks[-1]
    assert begun_s - 0.1 < collector.blocks[0].capture_s < collector.came_s[0]
    assert last.end_s == pytest.approx(stopped_s, abs=0.2)


@thrice
def test_times_and_counts_of_blocks_agree(pulse_server: PulseServer) -> None:
    collector = Collector()
    microphone = Microphone("pulse")
    microphone.start(collector)
    collector.wait_sound(1.5)
    microphone.stop()
    first = 0
    for block in collector.blocks:
        assert block.first_sample == first or (microphone.overflows and block.first_sample > first)
        assert block.rate_hz == microphone.rate_hz
        first = block.first_sample + len(block.samples_SC)
    settled = [block for block in collector.blocks if block.first_sample > block.rate_hz]
    offsets_s = [block.capture_s - block.first_sample / block.rate_hz for block in settled]
    assert max(offsets_s) - min(offsets_s) < 0.03


def test_a_microphone_can_be_chosen_by_number_and_is_listed(pulse_server: PulseServer) -> None:
    listed = list_microphones()
    pulse = next(device for device in listed if device.name == "pulse")
    microphone = Microphone(str(pulse.number))
    microphone.stop()
    assert (microphone.name, microphone.rate_hz) == ("pulse", pulse.rate_hz)
    text = list_devices()
    assert "pulse" in text
    assert f"{pulse.rate_hz} Hz" in text


@pytest.mark.parametrize(
    ("spec", "fault"), [("97", "no microphone 97"), ("trumpet", "no microphone trumpet")]
)
def test_an_unknown_microphone_names_the_list(
    pulse_server: PulseServer, spec: str, fault: str
) -> None:
    with pytest.raises(SourceError, match=f"{fault}; see: denseav-live --list-devices"):
        Microphone(spec)


def test_a_suspended_microphone_ends_after_two_seconds(pulse_server: PulseServer) -> None:
    collector = Collector()
    microphone = Microphone("default")
    microphone.start(collector)
    collector.wait_sound(0.2)
    pulse_server.suspend(True)
    error = collector.wait_end(20)
    pulse_server.suspend(False)
    microphone.stop()
    assert "stopped giving sound" in str(error)


def test_a_lost_sound_server_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not PulseServer.possible():
        pytest.skip("PulseAudio is not installed")
    server = PulseServer(tmp_path)
    monkeypatch.setenv("PULSE_SERVER", server.environment["PULSE_SERVER"])
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    collector = Collector()
    microphone = Microphone("pulse")
    microphone.start(collector)
    collector.wait_sound(0.2)
    server.kill()
    message = str(collector.wait_end(20))
    microphone.stop()
    assert message.startswith("microphone pulse stopped giving sound; ")
    assert "\n" not in message
    assert len(collector.errors) == 1


def test_a_machine_without_portaudio_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = builtins.__import__

    def missing(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "sounddevice":
            raise OSError("PortAudio library not found")
        return load(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(SourceError, match="apt install libportaudio2"):
        Microphone("default")
    assert "apt install libportaudio2" in list_devices()


class FakeSoundDevice:
    """PortAudio's seam: the test calls the callback itself."""

    PortAudioError = RuntimeError

    def __init__(self) -> None:
        self.fault = ""
        self.closed = False
        self.options: dict[str, Any] = {}

    def query_devices(self, device: Any = None, kind: str | None = None) -> dict[str, Any]:
        if device == "several":
            raise ValueError("Multiple input devices found for 'several':\n[1] a\n[2] b")
        return {
            "name": "mic",
            "index": 0,
            "hostapi": 0,
            "default_samplerate": 48000.0,
            "max_input_channels": 6,
        }

    def query_hostapis(self, index: int) -> dict[str, Any]:
        return {"name": "ALSA"}

    def InputStream(self, **options: Any) -> "FakeSoundDevice":  # noqa: N802
        self.options = options
        if self.fault:
            raise self.PortAudioError(self.fault)
        return self

    def start(self) -> None:
        pass

    def abort(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def say(self, samples_SC: np.ndarray, overflowed: bool = False) -> None:
        class Status:
            input_overflow = overflowed

        self.options["callback"](samples_SC, len(samples_SC), None, Status())


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeSoundDevice:
    fake = FakeSoundDevice()
    monkeypatch.setattr(microphone_module, "load_sounddevice", lambda: fake)
    return fake


def test_the_callback_copies_what_portaudio_will_overwrite(fake: FakeSoundDevice) -> None:
    collector = Collector()
    microphone = Microphone("default")
    buffer_SC = np.full((480, 2), 0.25, np.float32)
    fake.say(buffer_SC)
    buffer_SC[:] = 9
    microphone.start(collector)
    collector.wait_sound(0.01)
    microphone.stop()
    assert fake.closed
    assert microphone.channels == 2
    np.testing.assert_array_equal(collector.sound(), np.full((480, 2), 0.25))


def test_a_stream_that_portaudio_finishes_ends_at_once(
    fake: FakeSoundDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(microphone_module, "CEASED_S", 60.0)
    collector = Collector()
    microphone = Microphone("default")
    microphone.start(collector)
    fake.say(np.zeros((480, 2), np.float32))
    collector.wait_sound(0.01)
    fake.options["finished_callback"]()
    assert "stopped giving sound" in str(collector.wait_end())
    assert fake.closed


def test_samples_that_are_not_numbers_become_zeros_and_are_counted(fake: FakeSoundDevice) -> None:
    collector = Collector()
    microphone = Microphone("default")
    microphone.start(collector)
    samples_SC = np.full((480, 2), 0.25, np.float32)
    samples_SC[3, 0], samples_SC[4, 1], samples_SC[5, 1] = np.nan, np.inf, -np.inf
    fake.say(samples_SC)
    collector.wait_sound(0.01)
    microphone.stop()
    assert microphone.not_finite == 3
    heard_SC = collector.sound()
    assert (heard_SC[3, 0], heard_SC[4, 1], heard_SC[5, 1]) == (0, 0, 0)
    assert np.count_nonzero(heard_SC) == 957


def arrivals(microphone: Microphone, lost_s: float, flagged: set[int]) -> list[AudioBlock]:
    """Blocks from 3 s of packets that jitter by 4 ms; from the 200th on they come later."""
    blocks, silence_SC = [], np.zeros((480, 2), np.float32)
    for index in range(300):
        came_s = 100.01 + index / 100 + 0.004 * (index % 3) + (lost_s if index >= 200 else 0)
        packet = Packet(silence_SC, 480 * index, came_s, index in flagged)
        blocks += [microphone._block(ready) for ready in microphone._counted(packet)]
    return blocks


def test_lost_sound_becomes_a_jump_as_long_as_the_loss(fake: FakeSoundDevice) -> None:
    microphone = Microphone("default")
    blocks = arrivals(microphone, 0.3, {200})
    firsts = [block.first_sample for block in blocks]
    assert firsts[:200] == [480 * index for index in range(200)]
    assert np.diff(firsts[200:]).tolist() == [480] * 99
    assert firsts[200] - 480 * 200 == pytest.approx(0.3 * 48_000, abs=2)
    for index in range(200, 300):
        assert blocks[index].capture_s == pytest.approx(100.0 + index / 100 + 0.3, abs=1e-3)
    assert microphone.overflows == 1


def test_a_jitter_that_is_called_a_loss_moves_nothing(fake: FakeSoundDevice) -> None:
    microphone = Microphone("default")
    blocks = arrivals(microphone, 0.0, set(range(20, 300)))
    assert [b.first_sample for b in blocks] == [480 * index for index in range(len(blocks))]
    assert len(blocks) == 300
    assert microphone.overflows == 280


def test_sound_that_finds_no_room_is_a_gap(
    fake: FakeSoundDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(microphone_module, "WAITING_BLOCKS", 3)
    collector = Collector()
    microphone = Microphone("default")
    silence_SC = np.zeros((480, 2), np.float32)
    for _ in range(5):
        fake.say(silence_SC)
    microphone.start(collector)
    collector.wait_sound(0.03)
    fake.say(silence_SC)
    collector.wait_sound(0.04)
    microphone.stop()
    assert [block.first_sample for block in collector.blocks] == [0, 480, 960, 2400]
    assert microphone.overflows == 2


def test_a_microphone_that_cannot_be_opened_says_why(fake: FakeSoundDevice) -> None:
    fake.fault = "Error opening InputStream: Invalid sample rate\nmore"
    with pytest.raises(SourceError, match="Invalid sample rate") as failure:
        Microphone("default")
    assert "\n" not in str(failure.value)


def test_a_name_that_fits_several_microphones_is_refused(fake: FakeSoundDevice) -> None:
    with pytest.raises(SourceError, match="fits several") as failure:
        Microphone("several")
    assert "\n" not in str(failure.value)


def test_modules_that_read_files_do_not_load_portaudio() -> None:
    import subprocess

    asked = (
        "import sys, denseav.stream.sources.media_file, denseav.stream.cli.list_devices; "
        "print(*sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert "sounddevice" not in ran.stdout.split()
