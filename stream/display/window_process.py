"""The window's own process: canvases through a pipe in, keys out.

When a display goes away, Qt ends the process that has a window there, and no run should end so.
OpenCV ends a process that opens a window without a display, so look first. What OpenCV and Qt do
not ask or tell the X server themselves is asked and told here.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from time import monotonic

import cv2
import numpy as np

from denseav.stream.display.drawing import Canvas

KEYS = frozenset("q hrstv")
_ESCAPE = 27
_ANNOUNCED_S = (0.5, 2.0, 8.0)  # after it opened
_MAP_NOTIFY = 19
_STRUCTURE_NOTIFY_MASK = 1 << 17
_IGNORE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(lambda *_: 0)
_DEEPEST = 3  # below the root: a window manager's frame, its decoration, the window


def display_available() -> bool:
    """Return whether a window can be opened here.

    On Linux OpenCV draws through X11 (Wayland desktops offer it as well), so that is what is
    asked: whether the X server that DISPLAY names lets this process in.
    """
    if sys.platform != "linux":
        return True
    if not os.environ.get("DISPLAY"):
        return False
    try:
        x11 = _library()
    except OSError:
        return False
    display = x11.XOpenDisplay(None)
    if not display:
        return False
    x11.XCloseDisplay(ctypes.c_void_p(display))
    return True


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


class _MapEvent(ctypes.Structure):
    """Xlib's XMapEvent, as long as an XEvent."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("send_event", ctypes.c_int),
        ("display", ctypes.c_void_p),
        ("event", ctypes.c_ulong),
        ("window", ctypes.c_ulong),
        ("override_redirect", ctypes.c_int),
        ("rest", ctypes.c_long * 24),
    )


def announce_window(title: str) -> None:
    """Tell the window of this title that it is on the screen, as the X server does once.

    On a busy machine Qt at times loses the server's word for it and then never paints. A window
    that knows paints once more than it had to.
    """
    x11 = _library()
    display = ctypes.c_void_p(x11.XOpenDisplay(None))
    if not display:
        return
    x11.XSetErrorHandler(_IGNORE)  # a window that goes away meanwhile would end the process
    root = ctypes.c_ulong(x11.XDefaultRootWindow(display))
    for window in _windows_called(title.encode(), x11, display, root):
        event = _MapEvent(type=_MAP_NOTIFY, event=window.value, window=window.value)
        x11.XSendEvent(display, window, 0, _STRUCTURE_NOTIFY_MASK, ctypes.byref(event))
        x11.XClearArea(display, window, 0, 0, 0, 0, 1)
    x11.XCloseDisplay(display)


def _library() -> ctypes.CDLL:
    x11 = ctypes.CDLL("libX11.so.6")
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XDefaultRootWindow.restype = ctypes.c_ulong
    return x11


def _windows_called(
    name: bytes, x11: ctypes.CDLL, display: ctypes.c_void_p, parent: ctypes.c_ulong, depth: int = 0
) -> Iterator[ctypes.c_ulong]:
    unused, count = ctypes.c_ulong(), ctypes.c_uint()
    children, found = ctypes.POINTER(ctypes.c_ulong)(), ctypes.c_char_p()
    if x11.XFetchName(display, parent, ctypes.byref(found)):
        if found.value == name:
            yield parent
        x11.XFree(found)
    pointers = map(ctypes.byref, (unused, unused, children, count))
    if depth < _DEEPEST and x11.XQueryTree(display, parent, *pointers):
        for i in range(count.value):
            child = ctypes.c_ulong(children[i])
            yield from _windows_called(name, x11, display, child, depth + 1)
        x11.XFree(children)
