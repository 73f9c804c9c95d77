"""A canvas enters, a key comes back: one window, owned by the thread that opened it.

OpenCV ends the whole process when it opens a window without a display, so look first.
"""

import ctypes
import os
import sys

import cv2

from denseav.stream.paint import Canvas

KEYS = frozenset("q hrstv")
_ESCAPE = 27


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
        x11 = ctypes.CDLL("libX11.so.6")
    except OSError:
        return False
    x11.XOpenDisplay.restype = ctypes.c_void_p
    display = x11.XOpenDisplay(None)
    if not display:
        return False
    x11.XCloseDisplay(ctypes.c_void_p(display))
    return True


class Screen:
    """The window. It can be resized by hand; a canvas of another size resizes it too.

    Call everything from one thread, the main one, and only where `display_available()`.
    """

    def __init__(self, title: str) -> None:
        if sys.platform == "linux":
            # OpenCV's Qt can only do X11, whatever the desktop asks of Qt programs.
            os.environ["QT_QPA_PLATFORM"] = "xcb"
        self._title = title
        self._is_open = False
        self._size = (0, 0)

    def show(self, canvas: Canvas) -> str | None:
        """Show a canvas and return the key pressed, as `poll` does. Once closed it stays closed."""
        if not self._is_open:
            self._open()
        elif self._closed_by_hand():
            return "q"
        self._resize(canvas)
        cv2.imshow(self._title, canvas)
        return self.poll()

    def poll(self) -> str | None:
        """Return the key pressed since the last call: one of `KEYS`, or None.

        Escape and closing the window count as "q". Call it some times a second when there is
        nothing new to show: the window answers to nothing meanwhile.
        """
        if not self._is_open:
            return None
        code = cv2.pollKey()
        if code == _ESCAPE or self._closed_by_hand():
            return "q"
        key = chr(code & 0xFF).lower() if code >= 0 else ""
        return key if key in KEYS else None

    def close(self) -> None:
        """Close the window. May be called twice."""
        if self._is_open:
            self._is_open = False
            cv2.destroyAllWindows()
            cv2.pollKey()

    def _open(self) -> None:
        flags = cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL
        cv2.namedWindow(self._title, flags)
        self._is_open = True

    def _resize(self, canvas: Canvas) -> None:
        height, width = canvas.shape[:2]
        if (width, height) != self._size:
            self._size = (width, height)
            cv2.resizeWindow(self._title, width, height)

    def _closed_by_hand(self) -> bool:
        try:
            return cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1
        except cv2.error:  # with the last window gone, Qt has nothing left to ask
            return True
