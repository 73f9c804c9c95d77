"""The examples, run as they are against a real publisher; and the client on the oldest Python."""

import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from denseav.stream.feed import client
from tests.support.feeds import free_endpoint, heatmap, make_keys, publish_until, publishing
from tests.support.stalls import thrice, until

EXAMPLES = Path(str(client.__file__)).parents[1] / "examples"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C++ reader, built by the line in its own head."""
    if not shutil.which("g++") or not Path("/usr/include/zmq.hpp").exists():
        pytest.skip("g++, libzmq3-dev and cppzmq-dev are not installed")
    folder = tmp_path_factory.mktemp("cpp")
    source = EXAMPLES / "reader.cpp"
    line = re.search(r"g\+\+ .* -o reader", source.read_text())
    assert line is not None
    shutil.copy(source, folder)
    command = [*line[0].split(), "-Wall", "-Wextra", "-Werror"]
    subprocess.run(command, cwd=folder, check=True, timeout=120)
    return folder / "reader"


@pytest.mark.parametrize("guarded", [False, True])
def test_the_cpp_reader_finds_the_peak(
    reader: Path, tmp_path: Path, guarded: bool, begin: Callable[..., subprocess.Popen[str]]
) -> None:
    endpoint = free_endpoint()
    keys = tmp_path / "keys"
    client = make_keys(keys, "arm")["arm"]
    command = [str(reader), endpoint, "3", *([str(client)] if guarded else [])]
    with publishing(endpoint, keys if guarded else None) as publisher:
        reading = begin(command, stdout=subprocess.PIPE)
        while reading.poll() is None:
            publisher.heatmap(heatmap(0))
            time.sleep(0.02)
        shown, _ = reading.communicate()
    assert reading.returncode == 0
    lines = shown.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert line.endswith("  row 0 column 0: 0.1250  row 2 column 4: 0.7500")


def test_the_cpp_reader_takes_the_one_camera_that_it_is_told(
    reader: Path, begin: Callable[..., subprocess.Popen[str]]
) -> None:
    endpoint = free_endpoint()
    with publishing(endpoint, cameras=("cam2", "cam")) as publisher:
        reading = begin([str(reader), endpoint, "3", "-", "cam"], stdout=subprocess.PIPE)
        index = 0
        while reading.poll() is None:
            index += 1
            for camera in range(2):
                one = heatmap(index)
                heat_KHW = one.heat_KHW if camera else np.zeros_like(one.heat_KHW)
                frame = replace(one.frame, camera=camera)
                publisher.heatmap(replace(one, frame=frame, heat_KHW=heat_KHW))
            time.sleep(0.02)
        shown, _ = reading.communicate()
    assert reading.returncode == 0
    assert all("row 0 column 0: 0.1250" in line for line in shown.splitlines()), shown


def test_the_cpp_reader_says_when_nothing_comes(reader: Path) -> None:
    done = subprocess.run(
        [str(reader), free_endpoint(), "1"], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 1
    assert "nothing came for 2 seconds" in done.stderr


@thrice
def test_the_pan_tilt_turns_to_the_sound_and_stops_when_the_feed_does(
    tmp_path: Path, begin: Callable[..., subprocess.Popen[str]]
) -> None:
    shutil.copy(EXAMPLES / "pan_tilt.py", tmp_path)
    endpoint = free_endpoint()
    command = [sys.executable, "pan_tilt.py", endpoint]
    lines: list[str] = []
    came_s: list[float] = []
    # The peak is at 480, 300 of 640x480: to the right and below the middle.
    turned = "pan +26.2 tilt +8.1 towards the sound\n"
    running = begin(command, cwd=tmp_path, stdout=subprocess.PIPE)

    def read() -> None:
        for line in running.stdout or ():
            came_s.append(time.monotonic())
            lines.append(line)

    reading = threading.Thread(target=read)
    reading.start()
    with publishing(endpoint) as publisher:
        publish_until(publisher, lambda: turned in lines)
        turning, captured_s = len(lines), time.monotonic()
        until(lambda: any("nothing in time" in line for line in lines[turning:]))
    running.send_signal(signal.SIGINT)
    assert running.wait(60) == 0
    reading.join()
    last_turn = max(index for index, line in enumerate(lines) if "towards" in line)
    assert came_s[last_turn + 1] - captured_s < 0.25  # 200 ms, and 50 for the machine
    assert all(line.startswith("pan +0.0 tilt +0.0") for line in lines[last_turn + 1 :])
    assert lines[-1] == "pan +0.0 tilt +0.0 stopped: ended\n"
