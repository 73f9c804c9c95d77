import itertools
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from denseav.stream.cli import list_devices
from denseav.stream.errors import SourceError
from denseav.stream.sources import camera as camera_module
from denseav.stream.sources.camera import Camera, public_name
from denseav.stream.sources.device_capture import lasting
from denseav.stream.sources.open import camera_address
from tests.support.fakes import Collector
from tests.support.media import Image, grey
from tests.support.servers import PICTURE_S, MjpegServer, RtspServer, greys
from tests.support.stalls import thrice, until, until_threads


def test_a_network_camera_gives_frames_stamped_when_they_came(mjpeg_server: MjpegServer) -> None:
    collector = Collector()
    camera = Camera(mjpeg_server.url)
    assert (camera.width, camera.height) == (160, 120)
    camera.start(collector)
    collector.wait_frames(30)
    camera.stop()
    camera.stop()
    frames = collector.frames
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert frames[0].image_HW3.shape == (120, 160, 3)
    steps_s = np.diff([frame.capture_s for frame in frames])
    assert steps_s.min() >= 0
    assert PICTURE_S / 2 <= np.median(steps_s) <= 4 * PICTURE_S
    delays_s = [came - f.capture_s for f, came in zip(frames, collector.came_s, strict=True)]
    assert min(delays_s) >= 0
    assert collector.errors == []


@thrice
def test_each_picture_comes_once_and_in_order(mjpeg_server: MjpegServer) -> None:
    collector = Collector()
    camera = Camera(mjpeg_server.url)
    camera.start(collector)
    collector.wait_frames(30)
    camera.stop()
    levels = [round(float(frame.image_HW3.mean()) / 10) for frame in collector.frames]
    assert {(later - level) % 24 for level, later in itertools.pairwise(levels)} == {1}


def test_pictures_from_before_the_start_are_not_kept(mjpeg_server: MjpegServer) -> None:
    made: list[int] = []

    def picture(count: int) -> Image:
        made.append(count)
        return greys(min(count, 23))

    mjpeg_server.picture = picture
    collector = Collector()
    camera = Camera(mjpeg_server.url)
    until(lambda: len(made) > 16)
    begun_s = time.monotonic()
    camera.start(collector)
    collector.wait_frames(10)
    camera.stop()
    _in_hand, *later = collector.frames
    assert all(frame.capture_s >= begun_s for frame in later)
    assert collector.frames[9].capture_s - begun_s >= 8 * PICTURE_S * 0.5
    assert round(float(collector.frames[0].image_HW3.mean()) / 10) > 8


def test_a_camera_that_is_switched_off_ends_with_one_line(mjpeg_server: MjpegServer) -> None:
    collector = Collector()
    secret = f"http://user:s3cret@{mjpeg_server.address}/cam.mjpg?token=t0ken"
    camera = Camera(secret)
    camera.start(collector)
    collector.wait_frames(3)
    mjpeg_server.kill()
    message = str(collector.wait_end())
    camera.stop()
    assert message.startswith(f"camera http://{mjpeg_server.address}/cam.mjpg stopped")
    assert "\n" not in message
    assert len(collector.errors) == 1


def test_a_camera_that_freezes_ends_within_seconds(mjpeg_server: MjpegServer) -> None:
    collector = Collector()
    camera = Camera(mjpeg_server.url)
    camera.start(collector)
    collector.wait_frames(3)
    mjpeg_server.frozen.set()
    assert isinstance(collector.wait_end(20), SourceError)
    camera.stop()


def test_a_camera_lost_before_the_start_says_so_after_it(mjpeg_server: MjpegServer) -> None:
    collector = Collector()
    camera = Camera(mjpeg_server.url)
    mjpeg_server.kill()
    time.sleep(0.3)
    camera.start(collector)
    assert isinstance(collector.wait_end(), SourceError)
    camera.stop()


def test_an_rtsp_camera_gives_frames_and_its_loss_is_told(rtsp_server: RtspServer) -> None:
    collector = Collector()
    camera = Camera(f"rtsp://user:s3cret@{rtsp_server.address}/cam")
    assert camera.name == f"rtsp://{rtsp_server.address}/cam"
    assert (camera.width, camera.height) == (320, 240)
    camera.start(collector)
    collector.wait_frames(20)
    rtsp_server.kill()
    assert "s3cret" not in str(collector.wait_end())
    camera.stop()


def test_stop_without_start_releases_the_camera(mjpeg_server: MjpegServer) -> None:
    before = threading.enumerate()
    camera = Camera(mjpeg_server.url)
    camera.stop()
    mjpeg_server.kill()
    until_threads(before)


@pytest.mark.parametrize("spec", ["0", "97", "/dev/video97", "nonsense"])
def test_an_unknown_device_names_the_list(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if spec == "0":
        monkeypatch.setattr(cv2, "VideoCapture", FakeCapture.absent)
    with pytest.raises(SourceError, match="denseav-live --list-devices") as failure:
        Camera(spec)
    assert f"camera {spec} " in str(failure.value)


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        ("0", "0"),
        ("/dev/video2", "/dev/video2"),
        ("rtsp://10.0.0.7/live", "rtsp://10.0.0.7/live"),
        ("rtsp://admin:pw@10.0.0.7:554/live", "rtsp://10.0.0.7:554/live"),
        ("rtsp://admin:p@w/x?y#z@10.0.0.7/live", "rtsp://10.0.0.7/live"),
        ("http://cam/v?user=admin&password=pw", "http://cam/v"),
        ("http://a:pw@cam/v?password=pw#pw", "http://cam/v"),
        ("a:pw@cam/v", "cam/v"),
        ("rtsp://cam/user=admin&password=pw&channel=1", "rtsp://cam/***"),
        ("rtsp://cam/live;password=pw", "rtsp://cam/***"),
    ],
)
def test_a_cameras_name_shows_no_password(spec: str, shown: str) -> None:
    assert public_name(spec) == shown


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_an_unreachable_camera_prints_no_password(
    scheme: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SourceError, match="check its address") as failure:
        Camera(f"{scheme}://user:s3cret@127.0.0.1:9/live?key=s3cret")
    printed = capfd.readouterr()
    assert "s3cret" not in f"{failure.value}{printed.out}{printed.err}"
    assert printed.err == ""


def test_a_camera_whose_first_picture_takes_seconds_opens(mjpeg_server: MjpegServer) -> None:
    mjpeg_server.frozen.set()
    threading.Timer(2.5, mjpeg_server.frozen.clear).start()
    camera = Camera(mjpeg_server.url)
    camera.stop()
    assert camera.width == 160


def test_a_linux_camera_is_found_again_under_another_number(tmp_path: Path) -> None:
    links = tmp_path / "by-id"
    links.mkdir()
    (links / "usb-Webcam-index0").symlink_to("/dev/video2")
    for spec in ("2", "/dev/video2"):
        assert lasting(spec, links) == str(links / "usb-Webcam-index0")
    for spec in ("3", "rtsp://cam/2", "nonsense"):
        assert lasting(spec, links) == spec
    assert lasting("2", tmp_path / "none") == "2"


def test_a_device_that_is_there_and_cannot_be_opened_is_in_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture.absent)
    with pytest.raises(SourceError, match="another program uses it") as failure:
        Camera("/dev/null")  # any device that this process may read
    assert "\n" not in str(failure.value)


class FakeCapture:
    """A device at OpenCV's seam, with a script of what each read brings."""

    def __init__(self, script: list[bool | None], *_: Any) -> None:
        self.script = script  # True: a picture; False: one that cannot be decoded; None: no more
        self.settings: list[tuple[int, float]] = []
        self.released = False
        self.stamp_s: Callable[[], float] | None = None  # the driver's, where it has one

    @staticmethod
    def absent(*_: Any) -> "FakeCapture":
        return FakeCapture([])

    def isOpened(self) -> bool:  # noqa: N802
        return bool(self.script)

    def set(self, key: int, value: float) -> None:
        self.settings.append((key, value))

    def get(self, key: int) -> float:
        if key == cv2.CAP_PROP_BACKEND:
            return cv2.CAP_V4L2 if self.stamp_s else cv2.CAP_FFMPEG
        assert self.stamp_s is not None
        return 1000 * self.stamp_s()

    def grab(self) -> bool:
        time.sleep(0.002)
        return bool(self.script) and self.script[0] is not None

    def retrieve(self) -> tuple[bool, Any]:
        good = self.script[0] if len(self.script) == 1 else self.script.pop(0)
        return bool(good), grey(5) if good else None

    def read(self) -> tuple[bool, Any]:
        return self.retrieve() if self.grab() else (False, None)

    def release(self) -> None:
        self.released = True


def plug(monkeypatch: pytest.MonkeyPatch, script: list[bool | None]) -> FakeCapture:
    capture = FakeCapture(script)
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: capture)
    return capture


def test_a_device_is_asked_for_its_format_last(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = plug(monkeypatch, [True])
    Camera("0", size=(1280, 720), fps=30).stop()
    assert [key for key, _ in capture.settings] == [
        cv2.CAP_PROP_FRAME_WIDTH,
        cv2.CAP_PROP_FRAME_HEIGHT,
        cv2.CAP_PROP_FPS,
        cv2.CAP_PROP_FOURCC,
    ]
    assert [value for _, value in capture.settings[:3]] == [1280, 720, 30]
    assert capture.released


def test_a_device_without_pictures_is_refused_and_released(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    capture = plug(monkeypatch, [None])
    with pytest.raises(SourceError, match="gives no picture"):
        Camera("0")
    assert capture.released


@thrice
def test_single_broken_pictures_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_module, "FROZEN_S", 1.0)
    plug(monkeypatch, [True, *[True, True, False] * 500])
    collector = Collector()
    camera = Camera("0")
    camera.start(collector)
    collector.wait_frames(500)
    camera.stop()
    assert [frame.index for frame in collector.frames[:500]] == list(range(500))
    assert collector.errors == []


@pytest.mark.parametrize(("age_s", "used"), [(0.08, True), (-50.0, False), (30.0, False)])
def test_the_drivers_stamp_is_a_frames_time_where_it_makes_sense(
    monkeypatch: pytest.MonkeyPatch, age_s: float, used: bool
) -> None:
    capture, collector = plug(monkeypatch, [True]), Collector()
    capture.stamp_s = lambda: time.monotonic() - age_s
    camera = Camera("0")
    camera.start(collector)
    collector.wait_frames(5)
    camera.stop()
    ages_s = [c - f.capture_s for f, c in zip(collector.frames, collector.came_s, strict=True)]
    assert np.median(ages_s) == pytest.approx(age_s if used else 0.0, abs=0.04)


def test_a_device_that_gives_only_broken_pictures_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_module, "FROZEN_S", 0.1)
    capture = plug(monkeypatch, [True, True, False])
    collector = Collector()
    camera = Camera("0")
    camera.start(collector)
    assert isinstance(collector.wait_end(), SourceError)
    assert capture.released
    camera.stop()


def test_linux_cameras_have_names_and_lasting_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sysfs, dev = tmp_path / "sys", tmp_path / "dev"
    for number, name in ((10, "Capture Card"), (0, "Webcam"), (1, "Webcam")):
        (sysfs / f"video{number}").mkdir(parents=True)
        (sysfs / f"video{number}" / "name").write_text(name + "\n")
        dev.mkdir(exist_ok=True)
        (dev / f"video{number}").touch()
    (dev / "v4l/by-id").mkdir(parents=True)
    lasting = dev / "v4l/by-id/usb-Webcam-index0"
    lasting.symlink_to("../../video0")

    def ask(node: Any, request: int, answer: bytearray) -> None:
        flags = 0x1 if not node.name.endswith("video1") else 0x00800000
        answer[:] = list_devices.CAPABILITIES.pack(b"uvc", b"card", b"usb", 1, 0x84A00001, flags)

    monkeypatch.setattr("fcntl.ioctl", ask)
    found = list_devices._linux_cameras(sysfs, dev)
    assert [(c.number, c.name, c.path) for c in found] == [
        (0, "Webcam", str(lasting)),
        (10, "Capture Card", str(dev / "video10")),
    ]


def test_a_linux_camera_that_may_not_be_opened_is_listed(tmp_path: Path) -> None:
    (tmp_path / "video0").mkdir()
    (tmp_path / "video0/name").write_text("Webcam\n")
    assert [c.name for c in list_devices._linux_cameras(tmp_path, tmp_path / "dev")] == ["Webcam"]


def test_a_list_is_made_whatever_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[Any]:
        raise RuntimeError("PortAudio not initialized\x1b[2J")

    monkeypatch.setattr(list_devices, "list_cameras", broken)
    monkeypatch.setattr(list_devices, "list_microphones", broken)
    told = list_devices.list_devices()
    assert told.count("cannot be listed (RuntimeError: PortAudio not initialized") == 2
    assert "\x1b" not in told


def test_a_password_need_not_stand_in_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "address").write_text("rtsp://me:s3cret@cam/1\nmore\n")
    monkeypatch.setenv("DOOR", " rtsp://me:s3cret@cam/2 ")
    assert camera_address(f"@{tmp_path}/address") == "rtsp://me:s3cret@cam/1"
    assert camera_address("env:DOOR") == "rtsp://me:s3cret@cam/2"
    assert camera_address("0") == "0"
    for absent in (f"@{tmp_path}/absent", f"@{tmp_path}", "env:ABSENT", "@/dev/null"):
        with pytest.raises(SourceError) as failure:
            camera_address(absent)
        assert "\n" not in str(failure.value)


def test_other_systems_are_asked_number_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2_enumerate_cameras", None)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(
        cv2, "VideoCapture", lambda number, _: FakeCapture([True] if number == 1 else [])
    )
    assert [camera.number for camera in list_devices.list_cameras()] == [1]
