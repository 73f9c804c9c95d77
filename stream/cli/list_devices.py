"""What cameras and microphones this machine has, as `denseav-live --list-devices` shows them."""

import contextlib
import os
import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2

from denseav.export.terminal_text import safe_text
from denseav.stream.errors import SourceError
from denseav.stream.sources.device_capture import BACKEND
from denseav.stream.sources.microphone import load_sounddevice

PROBED_CAMERAS = 8
SYSFS = Path("/sys/class/video4linux")
DEV = Path("/dev")

QUERY_CAPABILITIES = 0x80685600  # VIDIOC_QUERYCAP
CAPABILITIES = struct.Struct("16s32s32sIII12x")
CAPTURES_VIDEO = 0x1


@dataclass(frozen=True)
class CameraDevice:
    """What `--camera` takes: a number, and where there is one a path that stays the same."""

    number: int
    path: str
    name: str
    note: str = ""


@dataclass(frozen=True)
class MicrophoneDevice:
    """What `--mic` takes: a number or a part of the name."""

    number: int
    name: str
    host_api: str
    channels: int
    rate_hz: int


def list_devices() -> str:
    """Return all cameras and microphones as a text for people; never raises."""
    return "\n".join(
        [
            "cameras (--camera NUMBER or PATH; addresses: rtsp://…, http://…)",
            *_found(lambda: map(_camera_line, list_cameras())),
            "microphones (--mic NUMBER or NAME)",
            *_found(lambda: map(_microphone_line, list_microphones())),
        ]
    )


def _found(devices: Callable[[], Iterable[str]]) -> list[str]:
    """Return a line for each device, or why there is none: a list helps whatever is broken."""
    try:
        lines = list(devices()) or ["none found"]
    except SourceError as error:
        lines = [str(error)]
    except Exception as error:  # noqa: BLE001
        lines = [f"cannot be listed ({type(error).__name__}: {error})"]
    return [f"  {safe_text(line)}" for line in lines]


def _camera_line(camera: CameraDevice) -> str:
    return "  ".join(filter(None, [f"{camera.number:>3}", camera.name, camera.path, camera.note]))


def _microphone_line(mic: MicrophoneDevice) -> str:
    about = f"{mic.host_api}, {mic.channels} channels, {mic.rate_hz} Hz"
    return f"{mic.number:>3}  {mic.name}  {about}"


def list_cameras() -> list[CameraDevice]:
    """Return the cameras: on Linux as the kernel names them, elsewhere as the system does.

    `cv2_enumerate_cameras` knows the names on macOS and Windows. On Linux it has neither the paths
    that stay when a camera is plugged in again, nor a word on those that may not be opened.
    """
    if sys.platform == "linux":
        return _linux_cameras()
    try:
        from cv2_enumerate_cameras import enumerate_cameras
    except ImportError:
        return _probed_cameras()
    found = enumerate_cameras(BACKEND)
    return [CameraDevice(int(each.index), "", str(each.name)) for each in found]


def list_microphones() -> list[MicrophoneDevice]:
    """Return the devices that record sound.

    Raises
    ------
    SourceError
        When PortAudio is not installed.
    """
    sounddevice = load_sounddevice()
    apis = [str(api["name"]) for api in sounddevice.query_hostapis()]
    return [
        MicrophoneDevice(
            number=int(device["index"]),
            name=str(device["name"]),
            host_api=apis[device["hostapi"]],
            channels=int(device["max_input_channels"]),
            rate_hz=int(device["default_samplerate"]),
        )
        for device in sounddevice.query_devices()
        if device["max_input_channels"] > 0
    ]


def _linux_cameras(sysfs: Path = SYSFS, dev: Path = DEV) -> list[CameraDevice]:
    stable = {link.resolve(): link for link in sorted(dev.glob("v4l/by-id/*"))}
    cameras = []
    for entry in sysfs.glob("video*"):
        path = dev / entry.name
        if _captures_video(path):
            number = entry.name.removeprefix("video")
            shown = str(stable.get(path.resolve(), path))
            cameras.append(CameraDevice(int(number), shown, _name(entry), _note(path)))
    return sorted(cameras, key=lambda camera: camera.number)


def _name(entry: Path) -> str:
    try:
        return (entry / "name").read_text(errors="replace").strip()
    except OSError:  # it has just been unplugged
        return "no name"


def _note(path: Path) -> str:
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        return "(not permitted: add yourself to the group video)"
    return ""


def _captures_video(path: Path) -> bool:
    """Ask the driver whether this node gives pictures: a webcam has others, for metadata."""
    if sys.platform != "win32":  # Linux alone has such nodes, and Windows no `fcntl`
        import fcntl

        answer = bytearray(CAPABILITIES.size)
        with contextlib.suppress(OSError), path.open("rb", buffering=0) as node:
            fcntl.ioctl(node, QUERY_CAPABILITIES, answer)
            return bool(CAPABILITIES.unpack(answer)[5] & CAPTURES_VIDEO)
    return True  # listed all the same: it may be there and not permitted, which is worth seeing


def _probed_cameras() -> list[CameraDevice]:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    cameras = []
    for number in range(PROBED_CAMERAS):
        capture = cv2.VideoCapture(number, BACKEND)
        if capture.isOpened():
            cameras.append(CameraDevice(number, "", f"camera {number}"))
        capture.release()
    return cameras
