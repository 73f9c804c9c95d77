"""The window's own process: canvases through a pipe in, keys out.

When a display goes away, Qt ends the process that has a window there, and no run should end so.
"""

import os
import signal
import sys
from multiprocessing.connection import Connection
from time import monotonic

import cv2
import numpy as np

from denseav.stream.display.drawing import Canvas
from denseav.stream.display.x11 import announce_window

KEYS = frozenset("q hrstv")
_ESCAPE = 27
_ANNOUNCED_S = (0.5, 2.0, 8.0)  # after it opened


def serve(pipe: Connection, title: str) -> None:
    """Answer until the other side closes the pipe; the target of the window's process.

    Parameters
    ----------
    pipe : brings None to look for keys, or a canvas: its shape, then its bytes. Each is answered
        with the key pressed, or None.
    title : of the window.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which then ends this
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), sys.stderr.fileno())  # where Qt complains
    window = _Window(title)
    try:
        while True:
            shape = pipe.recv()
            if shape is None:
                pipe.send(window.poll())
            else:
                canvas: Canvas = np.frombuffer(pipe.recv_bytes(), np.uint8).reshape(shape)
                pipe.send(window.show(canvas))
    except (EOFError, OSError):
        return


class _Window:
    """It can be resized by hand; a canvas of another size gives it that size."""

    def __init__(self, title: str) -> None:
        if sys.platform == "linux":
            # OpenCV's Qt can only do X11, whatever the desktop asks of Qt programs.
            os.environ["QT_QPA_PLATFORM"] = "xcb"
        self._title = title
        self._is_open = False
        self._size = (0, 0)
        self._announce_s: list[float] = []

    def show(self, canvas: Canvas) -> str | None:
        if not self._is_open:
            self._open()
        elif self._closed_by_hand():
            return "q"
        cv2.imshow(self._title, canvas)
        height, width = canvas.shape[:2]
        if (width, height) != self._size:
            self._size = (width, height)
            cv2.resizeWindow(self._title, width, height)
        return self.poll()

    def poll(self) -> str | None:
        if not self._is_open:
            return None
        code = cv2.pollKey()
        if self._announce_s and monotonic() > self._announce_s[0]:
            del self._announce_s[0]
            announce_window(self._title)
        if code == _ESCAPE or self._closed_by_hand():
            return "q"
        key = chr(code & 0xFF).lower() if code >= 0 else ""
        return key if key in KEYS else None

    def _open(self) -> None:
        flags = cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL
        cv2.namedWindow(self._title, flags)
        self._is_open = True
        if sys.platform == "linux":
            self._announce_s = [monotonic() + after_s for after_s in _ANNOUNCED_S]

    def _closed_by_hand(self) -> bool:
        try:
            return cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1
        except cv2.error:  # with the last window gone, Qt has nothing left to ask
            return True
