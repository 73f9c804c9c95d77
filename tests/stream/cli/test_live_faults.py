"""The real command while its sources and its display come and go."""

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from denseav.stream.feed.client import StatusSubscriber
from denseav.stream.feed.message import preview_jpeg
from tests.support.faults import break_and_mend, stamp_s, stamped
from tests.support.feeds import free_endpoint, status_of
from tests.support.live_command import LiveProcess, live_here
from tests.support.media import grey
from tests.support.screen.desktop import XServer, find_window, screen_until
from tests.support.servers import MjpegServer, PulseServer

pytestmark = pytest.mark.realtime


def test_a_picture_shows_when_it_was_made() -> None:
    before_s = time.monotonic()
    shown_s = stamp_s(preview_jpeg(stamped(0)))
    assert before_s - 0.001 <= shown_s <= time.monotonic() + 0.001


def test_both_sources_come_back_each_time_and_nothing_stale_is_published(tmp_path: Path) -> None:
    if not PulseServer.possible():
        pytest.skip("PulseAudio is not installed")
    faults = break_and_mend(tmp_path, 2, print)
    assert faults.stale == []
    assert faults.code == 0
    assert faults.judged > 10
    told = iter([line.split()[1] for line in faults.said if "is back after" in line])
    assert all(source in told for source in ["camera", "microphone"] * 2)  # in this order
    ours = [line for line in faults.said if not line.startswith("Expression '")]  # PortAudio's
    assert [line for line in ours if not line.startswith("denseav-live")] == []


def test_a_lost_camera_is_told_by_the_status_and_no_secret_is(
    mjpeg_server: MjpegServer, pulse_server: PulseServer, tmp_path: Path
) -> None:
    endpoint, url = free_endpoint(), f"http://me:s3cret@{mjpeg_server.address}/x?key=s3cret"
    arguments = ("--camera", url, "--headless", "--publish", endpoint, "--stats-json", "s.json")
    process = LiveProcess(tmp_path, *arguments, env=pulse_server.environment)
    process.until("READY")
    with StatusSubscriber(status_of(endpoint)) as feed:
        mjpeg_server.kill()
        process.until("stopped giving pictures")
        status = next(status for status in feed if status.state == "camera_lost")
        assert status.health == "unusable"
        camera, _ = status.sources
        assert (camera.kind, camera.state, camera.losses) == ("camera", "lost", 1)
        assert b"s3cret" not in status.data
    process.process.terminate()
    assert process.end() == 0
    written = (tmp_path / "s.json").read_text()
    assert '"state":"lost"' in written.splitlines()[-1].replace(" ", "")
    assert "s3cret" not in written + "".join(process.said)


@pytest.mark.parametrize(
    "arguments",
    [
        ("rtsp://me:s3cret@cam/live",),
        ("--source", "rtsp://me:s3cret@cam/live?key=s3cret"),
        ("--camera", "me:s3cret@cam/live"),
        ("--camera", "rtsp://me:s 3cret@127.0.0.1:9/live?key=s3cret"),
        ("--demo", "--publish", "tcp://me:s3cret@nowhere"),
    ],
)
def test_no_error_shows_a_password(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = live_here(tmp_path, *arguments, "--headless")
    assert done.returncode in (2, 3, 7)
    assert "3cret" not in done.stderr + done.stdout


def test_the_run_goes_on_when_its_display_goes_away(tmp_path: Path) -> None:
    if not XServer.possible():
        pytest.skip("needs Xvfb, xdotool and ImageMagick")
    server = XServer()
    try:
        arguments = ("--demo", "--record", "r.mp4")
        process = LiveProcess(tmp_path, *arguments, env={"DISPLAY": server.display})
        process.until("READY")
        find_window(server.display, "^denseav$")
    finally:
        server.kill()
    process.until("the window is gone, for its display went away; the run goes on without it")
    time.sleep(1)
    assert process.process.poll() is None
    process.process.terminate()
    assert process.end() == 0
    assert process.said[-1].endswith("recorded: r.mp4\n")
    assert all(line.startswith("denseav-live") for line in process.said)
    assert shutil.which("ffprobe") is None or (tmp_path / "r.mp4").stat().st_size > 10_000


def bright(screen_HW3: NDArray[np.int64]) -> int:
    return int((screen_HW3 > 200).sum())


def test_a_lost_camera_leaves_its_last_picture_marked_as_old(
    display: str, mjpeg_server: MjpegServer, tmp_path: Path
) -> None:
    mjpeg_server.picture = lambda _: grey(240, 320, 240)
    arguments = ("--camera", mjpeg_server.url, "--mic", "none")
    process = LiveProcess(tmp_path, *arguments, env={"DISPLAY": display})
    process.until("READY")
    find_window(display, "^denseav$")
    shot = tmp_path / "shot.png"
    screen_until(display, shot, lambda screen_HW3: bright(screen_HW3) > 50_000)
    mjpeg_server.kill()
    process.until("stopped giving pictures")
    screen_until(display, shot, lambda screen_HW3: bright(screen_HW3) < 10_000)
    mjpeg_server.start()
    process.until("is back after")
    screen_until(display, shot, lambda screen_HW3: bright(screen_HW3) > 50_000)
    process.process.terminate()
    assert process.end() == 0
