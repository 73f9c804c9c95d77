"""Network cameras of every kind, each served for real: what they send is what a reader bounds."""

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from denseav.stream.errors import SourceError
from denseav.stream.sources import network_capture
from denseav.stream.sources.camera import Camera
from denseav.stream.types import Frame
from tests.support.fakes import Collector
from tests.support.media import ffmpeg, grey
from tests.support.servers import MjpegServer
from tests.support.stalls import thrice, until


class Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def website(tmp_path: Path) -> Iterator[str]:
    """Serves `tmp_path`."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Files, directory=str(tmp_path))
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_address_of_one_picture_is_asked_again_and_again(website: str, tmp_path: Path) -> None:
    picture = tmp_path / "snapshot.jpg"
    cv2.imwrite(str(picture), grey(50, 160, 120))
    collector = Collector()
    camera = Camera(f"{website}/snapshot.jpg", fps=20)
    camera.start(collector)
    collector.wait_frames(3)
    cv2.imwrite(str(tmp_path / "next.jpg"), grey(150, 160, 120))
    (tmp_path / "next.jpg").replace(picture)
    collector.wait_frames(len(collector.frames) + 4)
    picture.unlink()
    error = str(collector.wait_end())
    camera.stop()
    levels = [round(float(frame.image_HW3.mean())) for frame in collector.frames]
    assert (levels[0], levels[-1]) == (50, 150)
    assert np.median(np.diff([frame.capture_s for frame in collector.frames])) > 0.03
    assert "stopped giving pictures (" in error
    assert "cannot be opened" in error  # what was found, in the end


@thrice
def test_segments_are_played_at_their_own_pace(website: str, tmp_path: Path) -> None:
    pictures = "testsrc=s=160x120:r=10:d=6"
    segments = ("-f", "hls", "-hls_time", "2", "-hls_list_size", "0")
    inputs = ("-f", "lavfi", "-i", pictures, "-pix_fmt", "yuv420p", "-g", "20")
    ffmpeg(*inputs, "-preset", "ultrafast", *segments, tmp_path / "live.m3u8")
    collector = Collector()
    camera = Camera(f"{website}/live.m3u8")
    camera.start(collector)
    collector.wait_frames(30)
    camera.stop()
    steps_s = np.diff([frame.capture_s for frame in collector.frames[3:]])
    assert np.median(steps_s) == pytest.approx(0.1, abs=0.02)
    assert steps_s.max() < 0.3


class Spoilt(MjpegServer):
    """Serves some pictures cut short, or something that is no picture at all."""

    def serve(self, connection: object) -> None:
        count = 0
        while not self._killed.wait(0.05):
            jpeg = cv2.imencode(".jpg", grey(100, 160, 120))[1].tobytes()
            if count % 4 == 2:
                jpeg = jpeg[: len(jpeg) // 3] if count % 8 == 2 else b"rubbish" * 300
            header = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            connection.write(header.encode() + jpeg + b"\r\n")  # type: ignore[attr-defined]
            count += 1


def test_a_corrupt_picture_costs_itself() -> None:
    server, collector = Spoilt(), Collector()
    try:
        camera = Camera(server.url)
        camera.start(collector)
        collector.wait_frames(40)
        camera.stop()
    finally:
        server.kill()
    assert collector.errors == []
    assert all(abs(float(frame.image_HW3.mean()) - 100) < 3 for frame in collector.frames)


def numbered(number: int) -> np.ndarray:
    """A picture that says which it is, in bars of one bit each."""
    bits = [255 * (number >> bit & 1) for bit in range(10)]
    return np.repeat(np.tile(np.repeat(np.uint8(bits), 16), (120, 1))[..., None], 3, axis=-1)


def number_of(image_HW3: np.ndarray) -> int:
    return sum(int(image_HW3[60, 16 * bit + 8, 1] > 128) << bit for bit in range(10))


def test_pictures_that_come_faster_than_they_are_decoded_are_left_out_and_none_is_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three come while one is decoded: of 600, the last one seen would be one of the first 200."""
    sent, behind = [0], []

    def picture(number: int) -> np.ndarray:
        sent[0] = number
        return numbered(number)

    class Late(Collector):
        def frame(self, frame: Frame) -> None:
            behind.append(sent[0] - number_of(frame.image_HW3))
            super().frame(frame)

    decode = network_capture.NetworkCapture._decode

    def decode_slowly(capture: network_capture.NetworkCapture, packet: object) -> None:
        before = sent[0]
        until(lambda: sent[0] >= before + 3 or sent[0] >= 600)
        decode(capture, packet)

    monkeypatch.setattr(network_capture, "UNAWAITED_S", 0.1)
    monkeypatch.setattr(network_capture.NetworkCapture, "_decode", decode_slowly)
    server, late = MjpegServer(picture, 0.003), Late()
    try:
        camera = Camera(server.url)
        camera.start(late)
        until(lambda: sent[0] >= 600)
        camera.stop()
    finally:
        server.kill()
    assert max(behind) < 300
    assert sum(frame.missed for frame in late.frames) > 200


def test_what_follows_pictures_that_were_left_out_needs_none_of_them(
    website: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(400):
        cv2.imwrite(str(tmp_path / f"{number:03d}.png"), numbered(number))
    coded = ("-c:v", "libx264", "-g", "20", "-sc_threshold", "0", "-bf", "0", "-pix_fmt", "yuv420p")
    ffmpeg(
        "-i", tmp_path / "%03d.png", *coded, tmp_path / "film.ts"
    )  # a web server sends it at once
    monkeypatch.setattr(network_capture, "UNAWAITED_S", 0.0)
    monkeypatch.setattr(network_capture, "LOOK_S", 0.0005)
    capture = network_capture.NetworkCapture(f"{website}/film.ts", "film", threading.Event())
    seen = []
    while capture.grab():
        image_HW3 = capture.retrieve()
        if image_HW3 is not None:
            seen.append((number_of(image_HW3), capture.left_out))
    capture.release()
    assert capture.left_out > 0
    for (before, left_out), (number, more_left_out) in pairwise(seen):
        assert number == before + 1 or (number % 20 == 0 and more_left_out > left_out)


HUGE = """
import resource, sys
from denseav.stream.errors import SourceError
from denseav.stream.sources.camera import Camera
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    Camera(sys.argv[1])
except SourceError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_picture_of_a_terrible_size_is_not_decoded(website: str, tmp_path: Path) -> None:
    huge = np.zeros((16_000, 16_000), np.uint8)
    cv2.imwrite(str(tmp_path / "huge.jpg"), huge)
    done = subprocess.run(
        [sys.executable, "-c", HUGE, f"{website}/huge.jpg"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    *told, megabytes = done.stdout.splitlines()
    assert "larger than 33 million pixels" in told[0]
    assert int(megabytes) < 100


def test_what_is_no_camera_says_what_was_found(website: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<html>please log in</html>")
    with pytest.raises(SourceError, match=r"cannot be opened; check .*Invalid data") as failure:
        Camera(f"{website}/page.html")
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("part_type", ["Content-Type: image/jpg\r\n", ""])
def test_parts_by_another_name_are_pictures_all_the_same(
    part_type: str, mjpeg_server: MjpegServer
) -> None:
    mjpeg_server.part_type = part_type
    collector = Collector()
    camera = Camera(mjpeg_server.url)
    camera.start(collector)
    collector.wait_frames(10)
    camera.stop()
    assert collector.errors == []
    levels = [round(float(frame.image_HW3.mean()) / 10) for frame in collector.frames]
    assert set(np.diff(levels)) <= {1, -23}


@pytest.mark.parametrize("period_s", [0.6, 1.2])
@thrice
def test_every_picture_of_a_slow_camera_comes_when_it_is_sent(
    period_s: float, monkeypatch: pytest.MonkeyPatch, mjpeg_server: MjpegServer
) -> None:
    monkeypatch.setattr("tests.support.servers.PICTURE_S", period_s)
    collector = Collector()
    camera = Camera(mjpeg_server.url)
    camera.start(collector)
    collector.wait_frames(6, 15)
    camera.stop()
    paced = collector.frames[2:]  # until then its pace is not known
    levels = [round(float(frame.image_HW3.mean()) / 10) for frame in paced]
    steps_s = np.diff([frame.capture_s for frame in paced])
    assert np.diff(levels).tolist() == [1] * (len(levels) - 1)
    assert np.median(steps_s) == pytest.approx(period_s, abs=0.15)
