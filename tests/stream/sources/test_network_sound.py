"""A network camera that brings its own sound: on one clock, back after losses, and no further."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic, sleep

import av
import numpy as np
import pytest

from denseav.stream.calibration.av_offset import Offset, Watcher, match, write_clip
from denseav.stream.errors import SourceError
from denseav.stream.inference.pipeline import Pipeline
from denseav.stream.options import SourceOptions
from denseav.stream.sources.camera import Camera
from denseav.stream.sources.camera_sound import CameraWithSound
from denseav.stream.sources.network_capture import NetworkCapture, options_for
from denseav.stream.sources.open import DEMO_CLIP, open_sources, supervised
from denseav.stream.stats.source_health import SourceHealth, State
from denseav.stream.stats.stats import Stats
from denseav.stream.types import AudioBlock, Frame
from tests.support.fake_session import FakeSession, fake_manifest
from tests.support.fakes import Collector
from tests.support.servers import RtspServer, film

needs_gstreamer = pytest.mark.skipif(not RtspServer.possible(), reason="no GStreamer RTSP server")


@pytest.fixture(scope="module")
def flashes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("flashes") / "flash.mp4"
    write_clip(path, 8.0)
    return path


@contextmanager
def over_http(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def until(condition: object, timeout_s: float = 20.0) -> None:
    end_s = monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert monotonic() < end_s, "it never came"
        sleep(0.02)


def apart(watcher: Watcher, from_flash: int, from_click: int) -> Offset | None:
    """How far apart they are, once enough of both have met."""
    flash_F, frame_s = watcher.flashes()
    return match(flash_F[from_flash:], watcher.clicks()[from_click:], frame_s)


@needs_gstreamer
@pytest.mark.realtime
def test_picture_and_sound_of_rtsp_are_in_sync_and_come_back_after_a_kill(flashes: Path) -> None:
    server = RtspServer(film(flashes))
    said: list[str] = []
    health, watcher = SourceHealth(said.append), Watcher()
    try:
        options = SourceOptions(cameras=(f"rtsp://{server.address}/cam",))
        [source] = supervised(open_sources(options), health, Stats())
        assert isinstance(source, CameraWithSound)
        with closing_source(source):
            source.start(watcher)
            until(lambda: apart(watcher, 0, 0) is not None)
            skews = [apart(watcher, 0, 0)]
            flashes_before, clicks_before = len(watcher.flashes()[0]), len(watcher.clicks())
            server.kill()
            until(lambda: State.LOST in [each.state for each in health.states()])
            server.start()
            begun_s = monotonic()
            until(lambda: [each.state for each in health.states()] == [State.RUNNING] * 2)
            assert monotonic() - begun_s < 5.0
            until(lambda: apart(watcher, flashes_before, clicks_before) is not None)
            skews.append(apart(watcher, flashes_before, clicks_before))
    finally:
        server.kill()
    for skew in skews:
        assert skew is not None
        assert abs(skew.seconds) < 0.04, skew
    assert any("is back after" in line for line in said)


@contextmanager
def closing_source(source: CameraWithSound) -> Iterator[None]:
    try:
        yield
    finally:
        source.stop()


@needs_gstreamer
def test_pictures_of_several_slices_are_whole() -> None:
    """FFmpeg's threads for slices leave the upper half out, once a first picture came in parts."""
    server, seen = RtspServer(film(DEMO_CLIP)), Collector()
    try:
        camera = Camera(f"rtsp://{server.address}/cam")
        camera.start(seen)
        seen.wait_frames(20)
        camera.stop()
    finally:
        server.kill()
    nothing_3 = np.array([0, 135, 0], np.int16)  # as where no slice was decoded
    for frame in seen.frames:
        apart_HW3 = np.abs(frame.image_HW3.astype(np.int16) - nothing_3)
        assert (apart_HW3.max(axis=2) < 12).mean() < 0.1


def test_a_file_over_http_brings_its_sound_and_others_are_told(flashes: Path) -> None:
    with over_http(flashes.parent) as url:
        camera = Camera(f"{url}/flash.mp4", sound=True)
        assert camera.sound_rate_hz == 48_000
        camera.stop()
        silent = Camera(f"{url}/flash.mp4")
        assert silent.sound_rate_hz is None
        silent.stop()


def test_of_several_cameras_each_says_whose_its_sound_is(flashes: Path, tmp_path: Path) -> None:
    shutil.copy(flashes, tmp_path / "a.mp4")
    shutil.copy(flashes, tmp_path / "b.mp4")
    health, heard = SourceHealth(lambda _: None), Collector()
    with over_http(tmp_path) as url:
        options = SourceOptions(cameras=(f"{url}/a.mp4", f"{url}/b.mp4"))
        sources = supervised(open_sources(options), health, Stats())
        assert [type(source) for source in sources] == [CameraWithSound] * 2
        for source in sources:
            source.start(heard)
        until(lambda: {block.microphone for block in list(heard.blocks)} == {0, 1})
        until(lambda: {frame.camera for frame in list(heard.frames)} == {0, 1})
        for source in sources:
            source.stop()
    for number in range(2):
        kinds = [each.kind for each in health.states_of(number, number)]
        assert kinds == ["camera", "microphone"]


def transport_stream(path: Path, size: tuple[int, int], rate_hz: int) -> bytes:
    """Two seconds of H.264 and AAC, as a camera sends them."""
    with av.open(str(path), "w", format="mpegts") as made:
        video = made.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width, video.height = size
        video.pix_fmt = "yuv420p"
        audio = made.add_stream("aac", rate=rate_hz, layout="mono")
        for index in range(50):
            grey_HW3 = np.full((size[1], size[0], 3), 4 * index, np.uint8)
            made.mux(video.encode(av.VideoFrame.from_ndarray(grey_HW3, "bgr24")))
        for first in range(0, 2 * rate_hz, 1024):
            wave_1S = np.full((1, 1024), 0.25, np.float32)
            sound = av.AudioFrame.from_ndarray(wave_1S, "fltp", "mono")
            sound.rate, sound.pts = rate_hz, first
            made.mux(audio.encode(sound))
        made.mux([*video.encode(None), *audio.encode(None)])
    return path.read_bytes()


def test_a_stream_that_changes_its_size_and_its_rate_goes_on(tmp_path: Path) -> None:
    before = transport_stream(tmp_path / "a.ts", (320, 240), 48_000)
    after = transport_stream(tmp_path / "b.ts", (160, 128), 32_000)
    (tmp_path / "both.ts").write_bytes(before + after)
    heard = Collector()
    with over_http(tmp_path) as url:
        capture = NetworkCapture(f"{url}/both.ts", "both", threading.Event(), sound=True)
        capture.hear = heard.audio
        while capture.grab():
            image_HW3 = capture.retrieve()
            if image_HW3 is not None:
                heard.frame(Frame(image_HW3, len(heard.frames), monotonic()))
        capture.release()
    assert {frame.image_HW3.shape for frame in heard.frames} == {(240, 320, 3), (128, 160, 3)}
    assert {block.rate_hz for block in heard.blocks} == {48_000, 32_000}
    pipeline = Pipeline(FakeSession(), fake_manifest())
    for block in heard.blocks:
        pipeline.push(block)  # it goes on in time, or it is refused
        pipeline.encode_audio()
    heatmaps = [
        pipeline.heatmap(Frame(frame.image_HW3, frame.index, heard.blocks[-1].end_s))
        for frame in (heard.frames[0], heard.frames[-1])
    ]
    assert all(found.rms_dbfs == pytest.approx(-12, abs=1) for found in heatmaps)


def test_a_camera_without_sound_is_told_where_its_own_was_asked_for(
    mjpeg_server: object,
) -> None:
    options = SourceOptions(cameras=(f"http://{mjpeg_server.address}/",), mic="camera")  # type: ignore[attr-defined]
    with pytest.raises(SourceError, match="sends no sound; use --mic"):
        open_sources(options)


def test_what_a_playlist_names_is_opened_over_the_network_alone(
    flashes: Path, tmp_path: Path
) -> None:
    """The same segment plays by its address, and is not opened as a file of this machine."""
    segment = tmp_path / "part.ts"

    with av.open(str(flashes)) as given, av.open(str(segment), "w") as made:
        streams = {each: made.add_stream_from_template(each) for each in given.streams}
        for packet in given.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream]
                made.mux(packet)
    lists = {
        "good": "part.ts",
        "file": segment.as_uri(),
        "path": str(segment),
        "concat": f"concat:{segment}",
        "subfile": f"subfile,,start,0,end,0,,:{segment}",
        "crypto": f"crypto:{segment}",
        "data": "data:video/mp2t;base64,R0AAEA",
    }
    for name, address in lists.items():
        (tmp_path / f"{name}.m3u8").write_text(
            f"#EXTM3U\n#EXT-X-TARGETDURATION:12\n#EXTINF:12,\n{address}\n#EXT-X-ENDLIST\n"
        )
    # Without a folder of that name there, a path would be of the server.
    with over_http(tmp_path) as url:
        good = Camera(f"{url}/good.m3u8", sound=True)
        assert good.sound_rate_hz == 48_000
        good.stop()
        for name in set(lists) - {"good"}:
            with pytest.raises(SourceError):
                Camera(f"{url}/{name}.m3u8")


@pytest.mark.parametrize("scheme", ["http", "https", "rtsp", "udp", "srt", "rtmp"])
def test_no_kind_of_address_reaches_files(scheme: str) -> None:
    reaches = options_for(f"{scheme}://camera/1")["protocol_whitelist"].split(",")
    assert not {"file", "concat", "subfile", "data", "pipe", "fd", "unix"} & set(reaches)


def block(first_s: float, level: float = 0.1, seconds: float = 0.1) -> AudioBlock:
    samples_SC = np.full((round(seconds * 16_000), 1), level, np.float32)
    return AudioBlock(samples_SC, 16_000, round(first_s * 16_000), first_s)


class _Nothing:
    name, device = "door", None

    def start(self, receiver: object) -> None:
        pass


def test_the_states_of_a_cameras_sound() -> None:
    said: list[str] = []
    health = SourceHealth(said.append)
    source = CameraWithSound(_Nothing(), health)  # type: ignore[arg-type]
    source.start(Watcher())
    start_s = monotonic()
    source.audio(block(start_s))
    assert health.states()[0].state is State.RUNNING
    assert health.running_since_s("microphone") == start_s
    source.audio(block(start_s + 2.0))
    assert health.running_since_s("microphone") == start_s + 2.0, "what was before a gap is old"
    for step in range(32):
        source.audio(block(start_s + 2.1 + 0.1 * step, 0.0))
    assert health.states()[0].state is State.MUTED
    assert "all zeros" in said[-1]
    source._came_s -= 5
    source.frame(Frame(np.zeros((2, 2, 3), np.uint8), 0, start_s))
    assert health.states()[0].state is State.STALLED
