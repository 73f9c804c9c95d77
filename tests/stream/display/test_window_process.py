import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from denseav.stream.display.window_process import announce_window
from tests.support.screen.desktop import find_window, screen_until

SHOW = """
import sys
import time, threading, time
import cv2
import numpy as np

colours = [0]
threading.Thread(target=lambda: [colours.append(int(line)) for line in sys.stdin]).start()
cv2.namedWindow("bare", cv2.WINDOW_NORMAL | cv2.WINDOW_GUI_NORMAL)
while True:
    cv2.imshow("bare", np.full((240, 320, 3), colours[-1], np.uint8))
    cv2.pollKey()
    time.sleep(0.01)
"""


@pytest.fixture
def window(display: str) -> Iterator[subprocess.Popen[str]]:
    """A window of OpenCV, which is grey as it is told."""
    env = {**os.environ, "DISPLAY": display, "QT_QPA_PLATFORM": "xcb"}
    process = subprocess.Popen(
        [sys.executable, "-c", SHOW],
        env=env,
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    find_window(display, "^bare$")
    yield process
    process.kill()
    process.communicate()


def unannounce(display: str, name: str) -> None:
    """Make the window believe that it is not on the screen, as one does that missed the word."""

    class UnmapEvent(ctypes.Structure):
        _fields_ = (
            ("type", ctypes.c_int),
            ("serial", ctypes.c_ulong),
            ("send_event", ctypes.c_int),
            ("display", ctypes.c_void_p),
            ("event", ctypes.c_ulong),
            ("window", ctypes.c_ulong),
            ("rest", ctypes.c_long * 24),
        )

    window_id = int(find_window(display, f"^{name}$"))
    x11 = ctypes.CDLL("libX11.so.6")
    x11.XOpenDisplay.restype = ctypes.c_void_p
    server = ctypes.c_void_p(x11.XOpenDisplay(display.encode()))
    event = UnmapEvent(type=18, event=window_id, window=window_id)
    x11.XSendEvent(server, ctypes.c_ulong(window_id), 0, 1 << 17, ctypes.byref(event))
    x11.XCloseDisplay(server)


def test_a_window_that_missed_that_it_is_shown_paints_once_told(
    display: str, window: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", display)
    shot = tmp_path / "shot.png"

    def seen(grey: int) -> Callable[[NDArray[np.int64]], bool]:
        return lambda screen_HW3: int((screen_HW3 == grey).sum()) > 100_000

    def told(screen_HW3: NDArray[np.int64]) -> bool:
        announce_window("bare")
        return seen(1)(screen_HW3)

    def show(grey: int) -> None:
        assert window.stdin is not None
        print(grey, file=window.stdin, flush=True)

    def paints(grey: int) -> bool:
        show(grey)
        try:
            screen_until(display, shot, seen(grey), timeout_s=1.0)
        except AssertionError:
            return False
        return True

    show(1)
    screen_until(display, shot, told)
    unannounce(display, "bare")
    greys = count(2)
    while paints(grey := next(greys)):
        pass
    announce_window("bare")
    screen_until(display, shot, seen(grey))
