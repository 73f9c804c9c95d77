"""A camera of this machine: a number or path in, pictures one by one out, by OpenCV.

Runs on the thread that calls it. Knows nothing of networks.
"""

import os
import sys
from pathlib import Path
from time import monotonic
from typing import Any

# OpenCV reads these when it is loaded or first used: open cameras at once on Windows, and notice
# a frozen one within two seconds on Linux.
os.environ.setdefault("OPENCV_VIDEOIO_MSMF_ENABLE_HW_TRANSFORMS", "0")
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "2")

import cv2

from denseav.stream.errors import SourceError
from denseav.stream.sources.sample_clock import driver_time_s

LASTING = Path("/dev/v4l/by-id")

BACKENDS = {"linux": cv2.CAP_V4L2, "darwin": cv2.CAP_AVFOUNDATION, "win32": cv2.CAP_MSMF}
BACKEND = BACKENDS.get(sys.platform, cv2.CAP_ANY)


class DeviceCapture:
    """A device that is open: a `Capture`.

    Parameters
    ----------
    spec : `0` or `/dev/video2`.
    name : the same for people.
    size : width and height in pixels to ask for; it gives the nearest it has.
    fps : frames per second to ask for.

    Raises
    ------
    SourceError
        When there is no such device, or it cannot be opened.
    """

    def __init__(
        self, spec: str, name: str, size: tuple[int, int] | None, fps: float | None
    ) -> None:
        self.fps, self.known, self.left_out = fps or 0.0, "", 0
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        # OpenCV refuses what is no 32-bit number.
        device = int(spec) if spec.isdecimal() and len(spec) < 10 else spec
        self._capture: Any = cv2.VideoCapture(device, BACKEND)
        if not self._capture.isOpened():
            raise SourceError(f"camera {name} cannot be opened; {device_advice(spec)}")
        self._set_up(size, fps)

    def grab(self) -> bool:
        """Wait for the next picture; False when none will come."""
        return bool(self._capture.grab())

    def captured_s(self) -> float:
        """Return when the picture in hand was captured: by the driver where it says, else now."""
        now_s = monotonic()
        if self._capture.get(cv2.CAP_PROP_BACKEND) != cv2.CAP_V4L2:
            return now_s
        return driver_time_s(self._capture.get(cv2.CAP_PROP_POS_MSEC), now_s)

    def stamp_s(self, captured_s: float) -> float:
        """Return the same: it is the driver's."""
        return captured_s

    def retrieve(self) -> Any:
        """Return the picture in hand, uint8 [H, W, 3]; None when it cannot be decoded."""
        decoded, image_HW3 = self._capture.retrieve()
        return image_HW3 if decoded else None

    def first(self) -> Any:
        """Return the first picture; None when there is none."""
        return self.retrieve() if self.grab() else None

    def release(self) -> None:
        """Close the device. May be called twice."""
        self._capture.release()

    def _set_up(self, size: tuple[int, int] | None, fps: float | None) -> None:
        """Ask for size and rate, then for MJPG: Windows forgets the format unless it comes last."""
        if size is not None:
            self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
            self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
        if fps is not None:
            self._capture.set(cv2.CAP_PROP_FPS, fps)
        self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))


def lasting(spec: str, links: Path = LASTING) -> str:
    """Return the path of a Linux camera that stays when it is plugged in again, or the spec."""
    node = Path(f"/dev/video{spec}" if spec.isdecimal() else spec)
    if "://" in spec or not links.is_dir():
        return spec
    return next((str(link) for link in sorted(links.iterdir()) if link.resolve() == node), spec)


def device_advice(spec: str) -> str:
    """Return what to do about a device that does not open or gives nothing."""
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
