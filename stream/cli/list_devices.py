"""What cameras and microphones this machine has, as `denseav-live --list-devices` shows them."""

import contextlib
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2

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
    lines = ["cameras (--camera NUMBER or PATH)"]
    cameras = list_cameras()
    lines += [f"  {c.number:>3}  {c.name}{'  ' + c.path if c.path else ''}" for c in cameras]
    lines += [] if cameras else ["  none found"]
    lines += ["microphones (--mic NUMBER or NAME)"]
    try:
        microphones = list_microphones()
    except SourceError as error:
        return "\n".join([*lines, f"  {error}"])
    lines += [
        f"  {m.number:>3}  {m.name}  {m.host_api}, {m.channels} channels, {m.rate_hz} Hz"
        for m in microphones
    ]
    return "\n".join(lines if microphones else [*lines, "  none found"])


def list_cameras() -> list[CameraDevice]:
    """Return the cameras: on Linux as the kernel names them, elsewhere by trying numbers."""
    return _linux_cameras() if sys.platform == "linux" else _probed_cameras()


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
            int(device["index"]),
            str(device["name"]),
            apis[device["hostapi"]],
            int(device["max_input_channels"]),
            int(device["default_samplerate"]),
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
            name = (entry / "name").read_text(errors="replace").strip()
            shown = str(stable.get(path.resolve(), path))
            cameras.append(CameraDevice(int(entry.name.removeprefix("video")), shown, name))
    return sorted(cameras, key=lambda camera: camera.number)


def _captures_video(path: Path) -> bool:
    """Ask the driver whether this node gives pictures: a webcam has others, for metadata."""
    assert sys.platform != "win32"  # Linux alone has such nodes, and Windows no `fcntl`
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
