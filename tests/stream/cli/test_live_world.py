"""The served world before `denseav-live`: seen as a camera, heard by a microphone, and found."""

import ctypes.util
import io
import shutil
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from denseav.stream.feed.client import HeatmapSubscriber
from denseav.train.world.broadcast import Subscribers, broadcast
from denseav.train.world.library import library
from denseav.train.world.shots import FRAME_RATE, FRAME_SAMPLES, box, look, make_shot
from tests.support.feeds import free_endpoint
from tests.support.live_command import LiveProcess

pytestmark = [
    pytest.mark.realtime,
    pytest.mark.skipif(
        ctypes.util.find_library("espeak-ng") is None or shutil.which("ffmpeg") is None,
        reason="needs espeak-ng and ffmpeg",
    ),
]
PARTS = library(held_out=True)
NEAR = 24  # pixels of 640; the grid's cells are 30


@pytest.fixture
def shot():
    """A shot in which a bell rings, and nothing else is heard."""
    whole = make_shot(np.random.default_rng(9), PARTS, ("bell", "dog", "rocket"))
    frames = round((whole.events[0].stop_s + 0.5) * FRAME_RATE)
    events, wave_S = whole.events[:1], whole.wave_S[: frames * FRAME_SAMPLES]
    return replace(whole, frames=frames, events=events, wave_S=wave_S)


@contextmanager
def served(shot):
    """Serve a shot again and again, and play what is heard of it; give its address."""
    subscribers, stop = Subscribers("127.0.0.1", 0), threading.Event()
    shots = iter(lambda: None if stop.is_set() else shot, None)
    server = threading.Thread(target=broadcast, args=(shots, subscribers, io.StringIO()))
    server.start()
    url = f"tcp://127.0.0.1:{subscribers.port}"
    # As the README plays it: one connection is heard, another is seen.
    play = ("ffmpeg", "-nostdin", "-loglevel", "fatal", "-i", url, "-vn", "-f", "pulse", "world")
    player = subprocess.Popen(play)
    try:
        yield url
    finally:
        player.kill()
        player.wait()
        stop.set()
        server.join()
        subscribers.close()


def test_what_is_served_is_found_live(shot, pulse_server, tmp_path):
    (heard,) = shot.events
    middle = round((heard.start_s + heard.stop_s) / 2 * FRAME_RATE)
    mask_HW = look(shot, PARTS, middle)[1][shot.scene.names.index(heard.name)]
    left, top, right, bottom = box(mask_HW)
    endpoint, peaks, end_s = free_endpoint(), [], time.monotonic() + 60
    with served(shot) as url, HeatmapSubscriber(endpoint) as feed:
        arguments = ("--camera", url, "--mic", "default", "--headless", "--publish", endpoint)
        live = LiveProcess(tmp_path, *arguments)
        live.until("READY")
        while len(peaks) < 20 and time.monotonic() < end_s:
            head = next(feed).heads[heard.head]
            peaks += [head.peak] if head.box is not None else []
        live.process.terminate()
        assert live.end() == 0
    on_it = [
        left - NEAR <= x <= right + NEAR and top - NEAR <= y <= bottom + NEAR for x, y in peaks
    ]
    assert sum(on_it) > 10, (heard, peaks, (left, top, right, bottom))
