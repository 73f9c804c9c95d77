"""The world as a live source: who connects sees and hears it, at its pace; the truth is told."""

import ctypes.util
import io
import json
import resource
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from denseav.stream.sources.camera import Camera
from denseav.train.cli.data import main
from denseav.train.errors import DataError
from denseav.train.world.broadcast import SUBSCRIBERS_MAX, Subscribers, broadcast, endless_shots
from denseav.train.world.library import library
from denseav.train.world.shots import FRAME_RATE, FRAME_SAMPLES, RATE_HZ, box, look, make_shot

pytestmark = pytest.mark.skipif(
    ctypes.util.find_library("espeak-ng") is None, reason="espeak-ng is not installed"
)
PARTS = library(held_out=True)
FRAMES = 40


@pytest.fixture(scope="module")
def shot():
    """A short shot in which one thing is heard from 0.6 to 1.1 s."""
    whole = make_shot(np.random.default_rng(3), PARTS, ("bell", "dog", "rocket"))
    events = (replace(whole.events[0], stop_s=1.1, words=whole.events[0].words[:1]),)
    wave_S = whole.wave_S[: FRAMES * FRAME_SAMPLES]
    return replace(whole, frames=FRAMES, events=events, wave_S=wave_S)


@contextmanager
def serving(shot, truth=None):
    """Send a shot again and again; give the subscribers."""
    subscribers, stop = Subscribers("127.0.0.1", 0), threading.Event()
    shots = iter(lambda: None if stop.is_set() else shot, None)
    thread = threading.Thread(target=broadcast, args=(shots, subscribers, truth or io.StringIO()))
    thread.start()
    try:
        yield subscribers
    finally:
        stop.set()
        thread.join()
        subscribers.close()


def test_who_connects_sees_and_hears_it(shot):
    pictures, waves = [], []
    with (
        serving(shot) as subscribers,
        av.open(f"tcp://127.0.0.1:{subscribers.port}", timeout=60) as stream,
    ):
        for frame in stream.decode(stream.streams.video[0], stream.streams.audio[0]):
            if isinstance(frame, av.VideoFrame):
                pictures.append(frame.to_ndarray(format="rgb24"))
            else:
                waves.append(frame.to_ndarray()[0])
            if len(pictures) >= 12 and len(waves) * 1_024 > FRAMES * FRAME_SAMPLES:
                break
    drawn = [look(shot, PARTS, index)[0].astype(int) for index in range(FRAMES)]
    assert min(np.abs(pictures[5] - one).mean() for one in drawn) < 6
    assert np.abs(np.concatenate(waves)).max() == pytest.approx(np.abs(shot.wave_S).max(), rel=0.3)


def test_it_is_a_camera_to_what_runs_live(shot):
    with serving(shot) as subscribers:
        camera = Camera(f"tcp://127.0.0.1:{subscribers.port}")
        camera.stop()
    assert (camera.width, camera.height) == (640, 480)


def test_it_keeps_the_pace_of_the_clock(shot):
    subscribers = Subscribers("127.0.0.1", 0)
    begun_s = time.monotonic()
    broadcast([shot], subscribers, io.StringIO())
    subscribers.close()
    assert time.monotonic() - begun_s >= (FRAMES - 1) / FRAME_RATE


def test_the_truth_is_told_of_each_thing_as_it_ends(shot):
    truth, subscribers, begun_s = io.StringIO(), Subscribers("127.0.0.1", 0), time.time()
    broadcast([shot, shot], subscribers, truth)
    subscribers.close()
    first, second = (json.loads(line) for line in truth.getvalue().splitlines())
    (event,) = shot.events
    assert (first["name"], first["head"], first["start_s"]) == (event.name, event.head, 0.6)
    assert second["start_s"] == pytest.approx(0.6 + FRAMES / FRAME_RATE, abs=0.001)
    _, masks_NHW = look(shot, PARTS, 18)
    expected = box(masks_NHW[shot.scene.names.index(event.name)])
    assert tuple(first["boxes"][0][1:]) == tuple(second["boxes"][0][1:]) == expected
    assert second["boxes"][0][0] == pytest.approx(second["start_s"], abs=0.02)
    assert begun_s + 0.5 < first["start_unix_s"] < second["start_unix_s"] - 0.8 < time.time()


def test_shots_follow_from_the_seed_and_differ_from_each_other():
    one, same = endless_shots(5), endless_shots(5)
    first, second = next(one), next(one)
    again = next(same)
    one.close()
    same.close()
    assert first.scene == again.scene
    assert first.wave_S.tobytes() == again.wave_S.tobytes()
    assert first.scene != second.scene
    assert 6 * RATE_HZ < len(first.wave_S) < 15 * RATE_HZ


def test_a_flood_of_connections_is_let_in_up_to_a_limit_and_ends_nothing():
    subscribers = Subscribers("127.0.0.1", 0)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as held:
        for _ in range(SUBSCRIBERS_MAX + 20):
            held.enter_context(socket.create_connection(("127.0.0.1", subscribers.port)))
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))  # no descriptors are left
        try:
            subscribers.accept_waiting()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert len(subscribers) == 0
        subscribers.accept_waiting()
        assert len(subscribers) == SUBSCRIBERS_MAX
        assert subscribers.write(b"a film") == 6
    subscribers.close()


def test_who_leaves_or_is_too_slow_is_left_out_and_the_rest_stay():
    subscribers = Subscribers("127.0.0.1", 0)
    slow, gone, good = (socket.create_connection(("127.0.0.1", subscribers.port)) for _ in range(3))
    subscribers.accept_waiting()
    assert len(subscribers) == 3
    gone.close()
    good.settimeout(20)
    received = 0
    for turn in range(800):
        subscribers.write(bytes(50_000))
        while received < (turn + 1) * 50_000:
            part = good.recv(1 << 20)
            assert part, "left out"
            received += len(part)
    assert len(subscribers) == 1
    subscribers.close()
    slow.close()
    good.close()


def test_a_port_in_use_is_refused_in_one_line(capsys):
    subscribers = Subscribers("127.0.0.1", 0)
    with pytest.raises(DataError, match="choose another"):
        Subscribers("127.0.0.1", subscribers.port)
    assert main(["world", "serve", f"tcp://127.0.0.1:{subscribers.port}"]) == 3
    subscribers.close()
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"cannot listen at 127.0.0.1:{subscribers.port}" in error


@pytest.mark.parametrize("address", ["127.0.0.1:5000", "udp://127.0.0.1:5000", "tcp://here:x"])
def test_another_address_is_wrong_use(address, capsys):
    with pytest.raises(SystemExit):
        main(["world", "serve", address])
    assert "must be tcp://HOST:PORT" in capsys.readouterr().err


def test_a_truth_that_cannot_be_written_ends_it_in_one_line(shot):
    subscribers, full = Subscribers("127.0.0.1", 0), Path("/dev/full").open("w")  # noqa: SIM115 - fails to close
    with pytest.raises(DataError, match="cannot write the truth"):
        broadcast([shot], subscribers, full)
    subscribers.close()
    with suppress(OSError):
        full.close()
