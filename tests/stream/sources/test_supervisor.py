"""Sources that fail and come back: real servers are killed and started again."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from denseav.stream.audio.rolling_window import RollingWindow
from denseav.stream.errors import SourceError, UnexpectedSourceError
from denseav.stream.sources import supervisor
from denseav.stream.sources.camera import Camera
from denseav.stream.sources.microphone import Microphone
from denseav.stream.sources.supervisor import (
    LAST_DELAY_S,
    ZEROS_S,
    BackOff,
    Device,
    Splicer,
    SupervisedSource,
)
from denseav.stream.stats.source_health import Kind, SourceHealth, State
from denseav.stream.types import AudioBlock, Frame, Receiver, Source
from tests.support.fakes import Collector
from tests.support.media import grey, speak
from tests.support.servers import MjpegServer, PulseServer, RtspServer, greys
from tests.support.stalls import thrice, until, until_threads

BACK_S = 15.0  # from the server's return to the first picture or sound


class Kept:
    """A supervised device with its board, its receiver and what it says."""

    def __init__(self, kind: Kind, device: Device) -> None:
        self.lines: list[str] = []
        self.health = SourceHealth(self.lines.append)
        self.collector = Collector()
        self.closed: list[Source] = []
        self.source = SupervisedSource(kind, device, self.health, self.closed.append)
        self.source.start(self.collector)

    @property
    def state(self) -> State:
        (state,) = self.health.states()
        return state.state

    def until(self, *states: State, timeout_s: float = 20.0) -> float:
        """Wait for one of these states and return how long that took."""
        begun_s = time.monotonic()
        while not self.health.states() or self.state not in states:
            assert time.monotonic() - begun_s < timeout_s, (self.state, self.lines)
            time.sleep(0.005)
        return time.monotonic() - begun_s


@pytest.fixture
def keep() -> Iterator[Callable[[Kind, Device], Kept]]:
    kept: list[Kept] = []

    def make(kind: Kind, device: Device) -> Kept:
        kept.append(Kept(kind, device))
        return kept[-1]

    yield make
    for each in kept:
        each.source.stop()


Keep = Callable[[Kind, Device], Kept]


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stall of this machine is not taken for one of a device."""
    monkeypatch.setattr(supervisor, "GIVEN_UP_S", 30.0)
    monkeypatch.setattr(supervisor, "STALLED_S", {"camera": 30.0, "microphone": 30.0})


@pytest.mark.usefixtures("_patient")
def test_a_camera_is_back_each_time_it_is_served_again(
    mjpeg_server: MjpegServer, keep: Keep
) -> None:
    kept = keep("camera", Camera(f"http://me:s3cret@{mjpeg_server.address}/cam.mjpg?key=s3cret"))
    for count in (1, 2):
        kept.until(State.RUNNING)
        kept.collector.wait_frames(len(kept.collector.frames) + 5)
        mjpeg_server.kill()
        kept.until(State.LOST, timeout_s=5)
        lost_s = time.monotonic()
        time.sleep(0.6)
        assert all(frame.capture_s < lost_s for frame in kept.collector.frames)
        mjpeg_server.start()
        assert kept.until(State.RUNNING) < BACK_S
        assert kept.health.states()[0].losses == count
    kept.collector.wait_frames(len(kept.collector.frames) + 5)
    frames = kept.collector.frames
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert kept.collector.errors == []
    assert [("stopped giving" in line, "is back after" in line) for line in kept.lines] == [
        (True, False),
        (False, True),
    ] * 2
    assert not any("s3cret" in line or "\n" in line for line in kept.lines)


def test_a_frozen_camera_is_stalled_then_opened_anew(mjpeg_server: MjpegServer, keep: Keep) -> None:
    kept = keep("camera", Camera(mjpeg_server.url))
    kept.collector.wait_frames(5)
    mjpeg_server.frozen.set()
    frozen_s = time.monotonic()
    kept.until(State.LOST)
    assert time.monotonic() - frozen_s < BACK_S
    assert sum(frame.capture_s > frozen_s for frame in kept.collector.frames) <= 3
    mjpeg_server.frozen.clear()
    assert kept.until(State.RUNNING) < BACK_S


def test_a_short_stall_is_told_and_needs_no_new_opening(
    mjpeg_server: MjpegServer, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "GIVEN_UP_S", 30.0)
    monkeypatch.setattr(supervisor, "UNKNOWN_S", 0.0)
    kept = keep("camera", Camera(mjpeg_server.url))
    kept.collector.wait_frames(5)
    mjpeg_server.frozen.set()
    kept.until(State.STALLED)
    mjpeg_server.frozen.clear()
    kept.until(State.RUNNING)
    assert kept.closed == []
    assert kept.lines[0].endswith("has stalled; nothing comes from it")
    assert "is back after" in kept.lines[1]


def test_an_rtsp_camera_is_back_when_it_is_served_again(keep: Keep) -> None:
    if not RtspServer.possible():
        pytest.skip("GStreamer's RTSP server is not installed")
    server = RtspServer()
    try:
        kept = keep("camera", Camera(f"rtsp://{server.address}/cam"))
        kept.collector.wait_frames(10)
        server.kill()
        kept.until(State.LOST)
        server.start()
        assert kept.until(State.RUNNING) < BACK_S
    finally:
        kept.source.stop()
        server.kill()


def test_a_camera_may_come_back_with_another_resolution(
    mjpeg_server: MjpegServer, keep: Keep
) -> None:
    kept = keep("camera", Camera(mjpeg_server.url))
    kept.collector.wait_frames(5)
    mjpeg_server.picture = lambda _: grey(250, 320, 240)
    kept.collector.wait_frames(len(kept.collector.frames) + 20)
    larger_HW3 = kept.collector.frames[-1].image_HW3
    assert larger_HW3.shape == (240, 320, 3)
    assert larger_HW3.min() > 240
    mjpeg_server.kill()
    mjpeg_server.picture = lambda _: grey(50, 96, 64)
    kept.until(State.LOST)
    mjpeg_server.start()
    kept.collector.wait_frames(len(kept.collector.frames) + 1, BACK_S)
    assert kept.collector.frames[-1].image_HW3.shape == (64, 96, 3)


@thrice
def test_pictures_that_a_network_held_up_are_not_given(
    mjpeg_server: MjpegServer, keep: Keep
) -> None:
    mjpeg_server.picture = lambda _: grey(50, 160, 120)
    kept = keep("camera", Camera(mjpeg_server.url))
    kept.collector.wait_frames(20)
    mjpeg_server.held_up.set()
    mjpeg_server.picture = lambda _: grey(200, 160, 120)
    time.sleep(0.8)
    mjpeg_server.picture = lambda _: grey(50, 160, 120)
    mjpeg_server.held_up.clear()
    kept.collector.wait_frames(len(kept.collector.frames) + 5)
    levels = {int(frame.image_HW3.mean()) for frame in kept.collector.frames[10:]}
    assert not levels & set(range(190, 211))
    gaps_s = np.diff([frame.capture_s for frame in kept.collector.frames])
    assert gaps_s.max() > 0.7


@thrice
def test_sound_goes_on_where_time_is_when_the_server_is_back(
    keep: Keep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not PulseServer.possible():
        pytest.skip("PulseAudio is not installed")
    server = PulseServer(tmp_path)
    for name in ("PULSE_SERVER", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, server.environment[name])
    try:
        kept = keep("microphone", Microphone("pulse"))
        for _ in range(2):
            kept.collector.wait_sound(0.3)
            server.kill()
            kept.until(State.LOST, timeout_s=5)
            count = len(kept.collector.blocks)
            time.sleep(0.5)
            assert len(kept.collector.blocks) == count
            server.start()
            assert kept.until(State.RUNNING) < BACK_S
            kept.collector.wait_sound(sum(map(_seconds, kept.collector.blocks)) + 0.5)
    finally:
        kept.source.stop()
        server.kill()
    blocks, rolling = kept.collector.blocks, RollingWindow(160_000)
    for block in blocks:
        rolling.push(block)
    jumps = [b.first_sample - a.first_sample - len(a.samples_SC) for a, b in pairwise(blocks)]
    assert sum(jump > 0.4 * blocks[0].rate_hz for jump in jumps) == 2
    counted_s = blocks[-1].first_sample / blocks[-1].rate_hz
    assert counted_s == pytest.approx(blocks[-1].capture_s - blocks[0].capture_s, abs=0.1)
    end = rolling.newest_end(None)
    assert end is not None
    assert rolling.time_of(end) == pytest.approx(blocks[-1].end_s, abs=0.4)


def test_a_suspended_microphone_is_stalled_then_lost_then_back(
    pulse_server: PulseServer, keep: Keep
) -> None:
    kept = keep("microphone", Microphone("pulse"))
    kept.collector.wait_sound(0.3)
    pulse_server.suspend(True)
    kept.until(State.LOST)
    told = len(kept.lines)
    time.sleep(1)
    assert len(kept.lines) == told
    pulse_server.suspend(False)
    assert kept.until(State.RUNNING) < BACK_S


@pytest.mark.usefixtures("_patient")
def test_a_microphone_that_gives_only_zeros_is_muted(
    pulse_server: PulseServer, keep: Keep, tmp_path: Path
) -> None:
    kept = keep("microphone", Microphone("pulse"))
    assert kept.until(State.MUTED) > ZEROS_S - 0.5
    assert "only zeros; unmute it, or allow it" in kept.lines[0]
    count = len(kept.collector.blocks)
    pulse_server.play(speak(tmp_path / "speech.wav", "hello"))
    until(lambda: len(kept.lines) > 1)
    assert kept.state in (State.RUNNING, State.MUTED)
    assert "is back after" in kept.lines[1]
    assert len(kept.collector.blocks) > count


class Shy:
    """A device that the test makes fail, at the seam where Camera and Microphone stand."""

    def __init__(self, name: str = "shy") -> None:
        self.name = name
        self.receiver: Receiver | None = None
        self.refusals = 0
        self.refused_s: list[float] = []
        self.stops = 0

    def start(self, receiver: Receiver) -> None:
        self.receiver = receiver

    def stop(self, timeout_s: float = 0.0) -> None:
        self.stops += 1

    def again(self) -> "Shy":
        self.refused_s.append(time.monotonic())
        if len(self.refused_s) <= self.refusals:
            raise SourceError("not yet")
        return self

    def sound(self, size: int, rate_hz: int, first: int, capture_s: float) -> None:
        assert self.receiver is not None
        self.receiver.audio(AudioBlock(np.ones((size, 1), np.float32), rate_hz, first, capture_s))


def started(device: Shy, receiver: Receiver | None = None) -> Receiver:
    """Wait until the device has been started with another receiver, and return that."""
    until(lambda: device.receiver not in (receiver, None), timeout_s=30)
    assert device.receiver is not None
    return device.receiver


def test_attempts_are_paced(keep: Keep) -> None:
    device = Shy()
    device.refusals = 4
    keep("camera", device)
    receiver = started(device)
    receiver.ended(SourceError("unplugged"))
    started(device, receiver)
    waits_s = np.diff(device.refused_s)
    assert len(device.refused_s) == 5
    assert waits_s[0] > 0.3
    assert all(wait_s > 0.7 for wait_s in waits_s[1:])


def test_delays_grow_to_a_limit_and_are_never_the_same() -> None:
    back_off = BackOff()
    delays_s = [back_off.next_s() for _ in range(50)]
    assert delays_s[0] < 0.32 < delays_s[1] < 0.63
    assert max(delays_s) <= LAST_DELAY_S * 1.25
    assert min(delays_s[2:]) >= LAST_DELAY_S * 0.75
    assert len(set(delays_s[2:])) > 40
    back_off.reset()
    assert back_off.next_s() < 0.32


@pytest.mark.usefixtures("_patient")
def test_what_a_left_opening_still_gives_is_not_taken(keep: Keep) -> None:
    device = Shy()
    kept = keep("camera", device)
    old = started(device)
    old.frame(Frame(grey(1), 0, time.monotonic()))
    old.ended(SourceError("gone"))
    new = started(device, old)
    old.frame(Frame(grey(2), 1, time.monotonic()))
    assert kept.state is State.LOST
    new.frame(Frame(grey(3), 0, time.monotonic()))
    assert [int(f.image_HW3[0, 0, 0]) for f in kept.collector.frames] == [1, 3]
    assert [frame.index for frame in kept.collector.frames] == [0, 1]


@pytest.mark.usefixtures("_patient")
def test_a_microphone_may_come_back_with_another_rate(keep: Keep) -> None:
    device = Shy()
    kept = keep("microphone", device)
    receiver = started(device)
    start_s = time.monotonic()
    for index in range(100):
        device.sound(480, 48_000, 480 * index, start_s + index / 100)
    receiver.ended(SourceError("gone"))
    started(device, receiver)
    for index in range(100):
        device.sound(160, 16_000, 160 * index, start_s + 3 + index / 100)
    first, *_, last = kept.collector.blocks
    assert (first.first_sample, first.rate_hz) == (0, 48_000)
    assert (last.first_sample, last.rate_hz) == (3 * 16_000 + 99 * 160, 16_000)
    rolling = RollingWindow(160_000)
    for block in kept.collector.blocks:
        rolling.push(block)
    end = rolling.newest_end(None)
    assert end is not None
    heard_S = rolling.window(end)[-end:] if end < 160_000 else rolling.window(end)
    assert heard_S[8_000] == pytest.approx(1, abs=0.01)
    assert not heard_S[17_000:47_000].any()
    assert heard_S[56_000] == pytest.approx(1, abs=0.01)
    assert rolling.time_of(56_000) == pytest.approx(start_s + 3.5)


def test_counts_never_go_back_where_times_overlap() -> None:
    splicer = Splicer()
    one = AudioBlock(np.ones((441, 1), np.float32), 44_100, 0, 100.0)
    splicer.audio(one, splicer.missed(one))
    two = AudioBlock(np.ones((160, 1), np.float32), 16_000, 7, 99.9)
    joined = splicer.audio(two, splicer.missed(two))
    assert joined.first_sample == 160


def test_a_failure_that_nobody_foresaw_ends_the_run(keep: Keep) -> None:
    class Broken(Shy):
        def again(self) -> Shy:
            raise RuntimeError("the driver has lost its mind")

    device = Broken()
    kept = keep("camera", device)
    started(device).ended(SourceError("gone"))
    assert str(kept.collector.wait_end()) == (
        "camera shy failed unexpectedly (RuntimeError: the driver has lost its mind); start again"
    )
    assert device.stops


def test_a_device_whose_thread_fails_is_not_opened_again(mjpeg_server: MjpegServer) -> None:
    class Failing(Collector):
        def frame(self, frame: Frame) -> None:
            super().frame(frame)
            raise ValueError("nobody thought of this")

    before, collector, closed = threading.enumerate(), Failing(), []
    health = SourceHealth(lambda _: None)
    source = SupervisedSource("camera", Camera(mjpeg_server.url), health, closed.append)
    source.start(collector)
    error = collector.wait_end()
    assert isinstance(error, UnexpectedSourceError)
    assert "failed unexpectedly (ValueError: nobody thought of this)" in str(error)
    assert len(collector.frames) == len(collector.errors) == 1
    source.stop()
    mjpeg_server.kill()
    until_threads(before)


def test_the_very_same_picture_again_and_again_is_a_frozen_camera(
    mjpeg_server: MjpegServer, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "REPEATED_S", 1.0)
    kept = keep("camera", Camera(mjpeg_server.url))
    kept.until(State.RUNNING)
    mjpeg_server.picture = lambda _: grey(77, 160, 120)
    kept.until(State.FROZEN)
    count = len(kept.collector.frames)
    kept.collector.wait_frames(count + 5)  # it may be a slide: pictures go on, and it is said
    assert kept.health.camera_fault() is None
    assert "the very same picture" in kept.lines[-1]
    mjpeg_server.picture = greys
    kept.until(State.RUNNING)
    assert "is back after" in kept.lines[-1]


def test_a_few_pictures_in_turn_are_a_frozen_camera_too(
    keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a driver gives them that hands out the same buffers again and again."""
    monkeypatch.setattr(supervisor, "REPEATED_S", 1.0)
    device = Shy()
    kept = keep("camera", device)
    receiver = started(device)
    moments = itertools.count(1)

    def give(level: int) -> None:
        moment = next(moments)
        receiver.frame(Frame(grey(level), moment, moment / 10))

    for _ in range(30):
        for level in (10, 20, 30, 40):
            give(level)
    assert kept.health.states()[0].state is State.FROZEN
    for level in range(50, 250):
        give(level)
    assert kept.health.states()[0].state is State.RUNNING
    for _ in range(20):  # a loop of a film
        for level in range(50, 60):
            give(level)
    assert kept.health.states()[0].state is State.RUNNING


def test_a_clock_drawn_over_it_makes_a_picture_new() -> None:
    memory, image_HW3 = supervisor.PictureMemory(), grey(9)
    news = []
    for second in range(20):
        image_HW3 = image_HW3.copy()
        image_HW3[1, 1] = second
        news.append(memory.is_new(image_HW3))
    assert all(news)


def test_a_slow_cameras_pauses_are_no_stalls_once_its_pace_is_known(keep: Keep) -> None:
    device = Shy()
    kept = keep("camera", device)
    receiver = started(device)
    for index in range(5):
        receiver.frame(Frame(grey(index), index, time.monotonic()))
        time.sleep(1.7)
    assert kept.state is State.RUNNING
    assert kept.lines == []


def test_stop_ends_everything_and_closes_once(mjpeg_server: MjpegServer) -> None:
    before = threading.enumerate()
    kept = Kept("camera", Camera(mjpeg_server.url))
    kept.collector.wait_frames(3)
    begun_s = time.monotonic()
    kept.source.stop()
    kept.source.stop()
    assert time.monotonic() - begun_s < 10
    assert len(kept.closed) == 1
    mjpeg_server.kill()
    until_threads(before)


def test_stop_without_start_closes_the_device() -> None:
    device, closed = Shy(), []
    SupervisedSource("camera", device, SourceHealth(print), closed.append).stop()
    assert (device.stops, closed) == (1, [device])


def _seconds(block: AudioBlock) -> float:
    return len(block.samples_SC) / block.rate_hz
