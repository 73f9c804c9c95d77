"""What OpenCV's window does not ask or tell the X server itself; Linux alone has one.

OpenCV ends a process that opens a window without a display, so look first.
"""

import ctypes
import os
import sys
from collections.abc import Iterator

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
