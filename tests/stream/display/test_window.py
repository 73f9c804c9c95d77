import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.screen.desktop import find_window, press, screen_until

SHOW = """
import sys, time
import numpy as np
from denseav.stream.display.window import Screen
from denseav.stream.display.window_process import display_available

assert display_available()
canvas = np.zeros((240, 320, 3), np.uint8)
canvas[:, 160:] = (0, 159, 230)
screen = Screen("a window")
assert screen.poll() is None
end_s = time.monotonic() + 120
key, shown = None, 0
while key != "q" and time.monotonic() < end_s:
    key = screen.show(canvas) if shown < 20 else screen.poll()  # a paused view only polls
    shown += 1
    if key:
        print(repr(key), flush=True)
    time.sleep(0.01)
again = screen.show(canvas)
screen.close()
screen.close()
print("closed", repr(again), repr(screen.poll()), flush=True)
"""

LOOK = """
from denseav.stream.display.window_process import display_available
print(display_available())
"""


def is_shown(screen_HW3: NDArray[np.int64]) -> bool:
    return int(np.all(abs(screen_HW3 - (0, 159, 230)) < 3, axis=-1).sum()) == 160 * 240


@pytest.fixture
def window(display: str, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that shows a window, and the window's id."""
    process = subprocess.Popen(
        [sys.executable, "-c", SHOW],
        env={**os.environ, "DISPLAY": display, "QT_QPA_PLATFORM": "wayland"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    window_id = find_window(display, "^a window$")
    screen_until(display, tmp_path / "screen.png", is_shown)
    yield process, window_id
    process.kill()
    process.communicate()


def ask_to_close(display: str, window_id: int) -> None:
    """Do what a desktop does when someone clicks on the X of a window."""

    class ClientMessage(ctypes.Structure):
        _fields_ = [
            ("type", ctypes.c_int),
            ("serial", ctypes.c_ulong),
            ("send_event", ctypes.c_int),
            ("display", ctypes.c_void_p),
            ("window", ctypes.c_ulong),
            ("message_type", ctypes.c_ulong),
            ("format", ctypes.c_int),
            ("data", ctypes.c_long * 5),
            ("room", ctypes.c_char * 192),
        ]

    x11 = ctypes.CDLL("libX11.so.6")
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XInternAtom.restype = ctypes.c_ulong
    server = ctypes.c_void_p(x11.XOpenDisplay(display.encode()))
    protocols = x11.XInternAtom(server, b"WM_PROTOCOLS", 0)
    delete = x11.XInternAtom(server, b"WM_DELETE_WINDOW", 0)
    event = ClientMessage(
        type=33, window=window_id, message_type=protocols, format=32, data=(delete, 0, 0, 0, 0)
    )
    assert x11.XSendEvent(
        server, ctypes.c_ulong(window_id), 0, ctypes.c_long(0), ctypes.byref(event)
    )
    x11.XSync(server, 0)
    x11.XCloseDisplay(server)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there always is a display")
def test_without_a_display_looking_says_no_and_nothing_aborts():
    env = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    for display in ({}, {"DISPLAY": ""}, {"DISPLAY": ":7391"}, {"DISPLAY": "nonsense"}):
        seen = subprocess.run(
            [sys.executable, "-c", LOOK],
            env={**env, **display},
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert (seen.returncode, seen.stdout, seen.stderr) == (0, "False\n", "")


def test_a_picture_is_on_the_screen_and_keys_come_back(
    display: str, window: tuple[subprocess.Popen[str], str]
):
    process, window_id = window
    assert process.stdout is not None
    press(display, window_id, "x")  # says nothing
    for key, said in {"h": "h", "R": "r", "space": " ", "s": "s", "q": "q"}.items():
        press(display, window_id, key)
        assert process.stdout.readline() == f"{said!r}\n"
    assert process.stdout.read() == "closed None None\n"
    assert process.wait(20) == 0


def test_escape_quits(display: str, window: tuple[subprocess.Popen[str], str]):
    process, window_id = window
    press(display, window_id, "Escape")
    out, err = process.communicate(timeout=20)
    assert out.splitlines()[0] == "'q'", err


def test_closing_the_window_quits_and_it_does_not_come_back(
    display: str, window: tuple[subprocess.Popen[str], str]
):
    process, window_id = window
    ask_to_close(display, int(window_id))
    out, err = process.communicate(timeout=20)
    assert out.splitlines() == ["'q'", "closed 'q' None"], err
    assert process.returncode == 0
