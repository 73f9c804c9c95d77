"""A desktop without a screen: an X server, keys pressed on it, and pictures of what it shows."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray


class XServer:
    """An X server of our own, on a number that nobody uses."""

    def __init__(self) -> None:
        read_fd, write_fd = os.pipe()
        command = ["Xvfb", "-displayfd", str(write_fd), "-screen", "0", "800x600x24"]
        self._process = subprocess.Popen(
            [*command, "-noreset", "-nolisten", "tcp"],
            pass_fds=[write_fd],
            stderr=subprocess.DEVNULL,
        )
        os.close(write_fd)
        with os.fdopen(read_fd) as ready:
            self.display = f":{ready.readline().strip()}"

    @staticmethod
    def possible() -> bool:
        return all(map(shutil.which, ("Xvfb", "xdotool", "import")))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def find_window(display: str, name: str) -> str:
    """Wait for a window whose name matches, and return its id."""
    command = ("xdotool", "search", "--sync", "--onlyvisible", "--name", name)
    return _run(display, *command).split()[-1]


def press(display: str, window_id: str, key: str) -> None:
    _run(display, "xdotool", "key", "--window", window_id, key)
    time.sleep(0.15)


def screenshot(display: str, path: Path) -> NDArray[np.uint8]:
    """Return what is on the screen, `[height, width, 3]`, blue-green-red."""
    _run(display, "import", "-window", "root", str(path))
    image_HW3 = cv2.imread(str(path))
    assert image_HW3 is not None
    return np.asarray(image_HW3, np.uint8)


def screen_until(
    display: str, path: Path, right: Callable[[NDArray[np.int64]], bool], timeout_s: float = 45.0
) -> None:
    """Wait until the screen is `right`."""
    end_s = time.monotonic() + timeout_s
    while not right(screenshot(display, path).astype(np.int64)):
        assert time.monotonic() < end_s, "it never was on the screen"


def _run(display: str, *command: str) -> str:
    env = {**os.environ, "DISPLAY": display}
    return subprocess.run(
        command, env=env, capture_output=True, text=True, check=True, timeout=30
    ).stdout
