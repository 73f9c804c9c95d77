"""A live camera in, frames out: a device on this machine or a stream on the network, by OpenCV.

A frame's time is the driver's stamp where there is one, else that of its grab, before it is
decoded; what waited in a buffer is thrown away, for that stamp would be a lie. A camera that stops
or freezes ends with an error; to open it again is somebody else's decision. Passwords in a URL are
used and never shown.
"""

import os
import sys
import threading
import time
from pathlib import Path
from typing import Self

# OpenCV reads these when it is loaded or first used: open cameras at once on Windows, notice a
# frozen one within two seconds on Linux, and leave FFmpeg's errors, with their URLs, unprinted.
os.environ.setdefault("OPENCV_VIDEOIO_MSMF_ENABLE_HW_TRANSFORMS", "0")
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "2")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2

from denseav.stream.errors import SourceError, without_secrets
from denseav.stream.sources.sample_clock import driver_time_s
from denseav.stream.types import Frame, Receiver

OPEN_TIMEOUT_MS = 5000
READ_TIMEOUT_MS = 5000  # the first whole picture of a network camera can take as long
FROZEN_S = 2.0  # a camera that grabs but gives no picture for so long has failed
STOP_TIMEOUT_S = 2.0
PAUSE_S = 0.5  # after a longer one, pictures may have waited
DRAINED_S = 0.5  # pictures that wait are looked through for so long at most
PERIOD_S = (1 / 120, 0.2)  # what is believed of a camera that says how often it gives pictures
LASTING = Path("/dev/v4l/by-id")

BACKENDS = {"linux": cv2.CAP_V4L2, "darwin": cv2.CAP_AVFOUNDATION, "win32": cv2.CAP_MSMF}
BACKEND = BACKENDS.get(sys.platform, cv2.CAP_ANY)


class Camera:
    """A camera: a `Source` of frames.

    Parameters
    ----------
    spec : `0`, `/dev/video2`, `rtsp://…` or `http://…`.
    size : width and height in pixels to ask a device for; it gives the nearest it has.
    fps : frames per second to ask a device for.

    Attributes
    ----------
    name : the device, or the URL without user, password and query.
    width, height : pixels of the first frame.

    Raises
    ------
    SourceError
        When there is no such camera, or it gives no picture.
    """

    def __init__(
        self, spec: str, size: tuple[int, int] | None = None, fps: float | None = None
    ) -> None:
        self.name = public_name(spec)
        self._asked = (lasting(spec), size, fps)
        self._capture = _open(spec, self.name, size, fps)
        opened, image_HW3 = self._capture.read()
        if not opened:
            self._capture.release()
            raise SourceError(f"camera {self.name} gives no picture; {_advice(spec)}")
        self.height, self.width = image_HW3.shape[:2]
        self._backlog = Backlog(self._stated_fps(spec, fps), time.monotonic())
        self._receiver: Receiver | None = None
        self._begun = threading.Event()
        self._stopping = threading.Event()
        # It reads from now on, so that no old pictures wait in a buffer when it is started.
        self._thread = threading.Thread(target=self._read, name="camera", daemon=True)
        self._thread.start()

    def start(self, receiver: Receiver) -> None:
        """Begin to call the receiver."""
        self._receiver = receiver
        self._begun.set()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop and release the camera, later if it hangs. May be called twice."""
        self._stopping.set()
        self._begun.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def again(self) -> Self:
        """Open the same camera anew, also where it was plugged in again under another number."""
        return type(self)(*self._asked)

    def _read(self) -> None:
        index, seen_s = 0, time.monotonic()
        while not self._stopping.is_set() and time.monotonic() - seen_s < FROZEN_S:
            if not self._capture.grab():
                break
            captured_s = self._captured_s()
            if self._backlog.waited(captured_s):
                seen_s = captured_s
                continue
            decoded, image_HW3 = self._capture.retrieve()
            if not decoded:
                continue
            seen_s = captured_s
            if self._receiver is not None and not self._stopping.is_set():
                self._receiver.frame(Frame(image_HW3, index, captured_s))  # type: ignore[arg-type]
                index += 1
        self._capture.release()
        self._begun.wait()
        if self._receiver is not None and not self._stopping.is_set():
            self._receiver.ended(
                SourceError(
                    f"camera {self.name} stopped giving pictures; check its cable or network"
                )
            )

    def _stated_fps(self, spec: str, asked_fps: float | None) -> float:
        """Return the frame rate by the stream's own words, or as it was asked of a device."""
        return self._capture.get(cv2.CAP_PROP_FPS) if "://" in spec else asked_fps or 0.0

    def _captured_s(self) -> float:
        """Return when the frame in hand was captured: by the driver where it says, else now."""
        now_s = time.monotonic()
        if self._capture.get(cv2.CAP_PROP_BACKEND) != cv2.CAP_V4L2:
            return now_s
        return driver_time_s(self._capture.get(cv2.CAP_PROP_POS_MSEC), now_s)


class Backlog:
    """Tells pictures that have waited in a buffer from those that have just come.

    A camera is opened by reading some of its stream, and a network holds up what it cannot send:
    such pictures then come at once, and are older than their stamps say. The first that comes
    after about its usual time has not waited.

    Parameters
    ----------
    fps : pictures a second, as the camera says; anything.
    now_s : when it was opened.
    """

    def __init__(self, fps: float, now_s: float) -> None:
        shortest_s, longest_s = PERIOD_S
        self._period_s = min(max(1 / fps if fps > 0 else 0.0, shortest_s), longest_s)
        self._last_s = self._since_s = now_s
        self._draining = True

    def waited(self, came_s: float) -> bool:
        """Return whether the picture that came now had waited."""
        gap_s, self._last_s = came_s - self._last_s, came_s
        if self._draining:
            late = gap_s > self._period_s / 2 or came_s - self._since_s > DRAINED_S
            self._draining = not late
        elif gap_s > max(PAUSE_S, 3 * self._period_s):
            self._draining, self._since_s = True, came_s
        else:
            self._period_s += 0.1 * (gap_s - self._period_s)
        return self._draining


def public_name(spec: str) -> str:
    """Return what of a camera's name may be shown: no user, password or query."""
    shown = without_secrets(spec)
    return shown if spec.startswith("/") else shown.rpartition("@")[2]


def lasting(spec: str, links: Path = LASTING) -> str:
    """Return the path of a Linux camera that stays when it is plugged in again, or the spec."""
    node = Path(f"/dev/video{spec}" if spec.isdecimal() else spec)
    if "://" in spec or not links.is_dir():
        return spec
    return next((str(link) for link in sorted(links.iterdir()) if link.resolve() == node), spec)


def _open(
    spec: str, name: str, size: tuple[int, int] | None, fps: float | None
) -> cv2.VideoCapture:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    if "://" in spec:
        timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS]
        timeouts += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_TIMEOUT_MS]
        capture = cv2.VideoCapture(spec, cv2.CAP_FFMPEG, timeouts)
    elif spec.isdecimal() and len(spec) < 10:  # OpenCV refuses what is no 32-bit number
        capture = cv2.VideoCapture(int(spec), BACKEND)
    else:
        capture = cv2.VideoCapture(spec, BACKEND)
    if not capture.isOpened():
        raise SourceError(f"camera {name} cannot be opened; {_advice(spec)}")
    if "://" not in spec:
        _set_up(capture, size, fps)
    return capture


def _set_up(capture: cv2.VideoCapture, size: tuple[int, int] | None, fps: float | None) -> None:
    """Ask for size and rate, then for MJPG: Windows forgets the format unless it comes last."""
    if size is not None:
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
    if fps is not None:
        capture.set(cv2.CAP_PROP_FPS, fps)
    capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))


def _advice(spec: str) -> str:
    if "://" in spec:
        return "check its address and password, and that it is switched on"
    if sys.platform == "darwin":
        return (
            "allow the camera for this terminal in System Settings > Privacy & Security, "
            "and see: denseav-live --list-devices"
        )
    node = f"/dev/video{spec}" if spec.isdecimal() else spec
    fault = "it is absent, in use or not permitted"
    if sys.platform == "linux" and Path(node).is_char_device():
        readable = os.access(node, os.R_OK | os.W_OK)
        fault = "another program uses it" if readable else "add yourself to the group video"
    return f"{fault}; see: denseav-live --list-devices"
