"""The real command on real input: what it shows, writes and says, and how it ends."""

import contextlib
import json
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from denseav.export.runtime.bundle import demo_folder, open_bundle
from denseav.export.runtime.onnx_session import OnnxSession
from denseav.export.runtime.session import Interrupted
from denseav.stream.app.live_loop import LiveRun
from denseav.stream.app.view import View
from denseav.stream.display.hud import Hud
from denseav.stream.display.overlay import Overlay
from denseav.stream.inference.pipeline import Pipeline
from denseav.stream.sources.media_file import Clip
from denseav.stream.sources.microphone import Microphone
from denseav.stream.sources.open import count_losses
from denseav.stream.sources.paced_file import PacedClip
from denseav.stream.stats.stats import Stats
from tests.support.live_command import LiveProcess, environment, live
from tests.support.media import ffmpeg
from tests.support.screen.desktop import find_window, press, screen_until, screenshot
from tests.support.servers import MjpegServer, PulseServer, RtspServer
from tests.support.stalls import until

pytestmark = pytest.mark.realtime

ORANGE_OR_BLUE = ((0, 159, 230), (233, 180, 86))  # the colours of the heads


def heads_are_shown(screen_HW3: NDArray[np.int64]) -> bool:
    """Tell whether both colours are somewhere on the screen."""
    return all((abs(screen_HW3 - colour).max(axis=2) < 8).any() for colour in ORANGE_OR_BLUE)


def figures(text: str) -> dict[str, Any]:
    """Return the final line of the figures."""
    found: dict[str, Any] = json.loads(text.splitlines()[-1])
    assert found["final"]
    return found


def recorded(path: Path) -> tuple[int, float, float]:
    """Return how many pictures a recording has, its length, and that of its sound, in seconds."""
    with av.open(str(path)) as container:
        times_s = [frame.time for frame in container.decode(video=0)]
        assert times_s == sorted(times_s)
    with av.open(str(path)) as container:
        sound = sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))
    return len(times_s), times_s[-1], sound


def test_the_demo_runs_where_there_is_nothing_and_says_so(tmp_path: Path) -> None:
    done = live(tmp_path, "--demo", "--seconds", "5", "--stats-json", "-")
    assert done.returncode == 0, done.stderr
    assert "no display here, so running headless" in done.stderr
    assert "model demo on onnxruntime-cpu, fp32" in done.stderr
    assert "looking at and listening to clip.mp4" in done.stderr
    found = figures(done.stdout)
    assert set(found) == {
        "final",
        "unix_s",
        "frames_in",
        "frames_out",
        "fps_in",
        "fps",
        "seconds",
        "latency_ms",
        "stage_ms",
        "audio_hops",
        "audio_age_ms",
        "av_skew_ms",
        "drops",
        "gauges",
        "backend",
        "precision",
        "model",
        "trained",
        "audio",
        "sources",
    }
    assert found["audio"] in ("window", "streaming")
    assert found["gauges"]["audio_hop_share"] > 0
    for latency_ms in (
        found["latency_ms"][key] for key in ("capture_to_heatmap", "capture_to_sink")
    ):
        assert 0 < latency_ms["p50"] <= latency_ms["p95"] <= latency_ms["p99"]
    assert 0 < found["frames_out"] <= found["frames_in"]
    assert found["audio_hops"] >= 3
    assert found["trained"] == open_bundle(demo_folder()).manifest.trained
    assert (found["backend"], found["model"]) == ("onnxruntime-cpu", "demo")


def test_offline_drops_nothing_and_records_every_picture(common: Path, tmp_path: Path) -> None:
    arguments = ("--source", common, "--offline", "--headless", "--seconds", "2")
    done = live(tmp_path, *arguments, "--record", "r.mp4", "--stats-json", "s.json")
    assert done.returncode == 0, done.stderr
    assert "the small demo model runs; for the released weights, in a clone" in done.stderr
    found = figures((tmp_path / "s.json").read_text())
    assert (found["frames_in"], found["frames_out"], found["drops"]) == (50, 50, {})
    pictures, length_s, sound_s = recorded(tmp_path / "r.mp4")
    assert pictures == 50
    assert length_s == pytest.approx(1.96, abs=0.001)
    assert sound_s == pytest.approx(1.96, abs=0.1)


def test_the_model_exported_last_is_the_default(exact: Path, tmp_path: Path) -> None:
    folder = Path(environment(tmp_path)["XDG_CACHE_HOME"]) / "denseav" / "bundle"
    shutil.copytree(demo_folder(), folder)
    manifest = folder / "manifest.json"
    told = {**json.loads(manifest.read_text()), "model": "mine", "trained": True}
    manifest.write_text(json.dumps(told))
    done = live(tmp_path, "--source", exact, "--offline", "--headless", "--stats-json", "-")
    assert done.returncode == 0, done.stderr
    assert "denseav-live: model mine on onnxruntime-cpu, fp32\n" in done.stderr
    assert (figures(done.stdout)["model"], figures(done.stdout)["trained"]) == ("mine", True)


def test_a_file_is_paced_by_its_own_time(exact: Path, tmp_path: Path) -> None:
    done = live(tmp_path, "--source", exact, "--headless", "--stats-json", "-")
    assert done.returncode == 0, done.stderr
    found = figures(done.stdout)
    assert found["frames_in"] == 25
    assert found["seconds"] >= 0.95


@pytest.mark.parametrize(
    ("rate_hz", "layout", "codec"), [(8_000, "stereo", "pcm_s16le"), (96_000, "5.1", "pcm_s24le")]
)
def test_sound_of_any_kind_is_heard(tmp_path: Path, rate_hz: int, layout: str, codec: str) -> None:
    path = tmp_path / "sound.mov"
    sound = f"sine=f=440:d=1,aresample={rate_hz},aformat=channel_layouts={layout}"
    pictures = ("-f", "lavfi", "-i", "testsrc=s=64x48:r=10:d=1")
    ffmpeg(*pictures, "-f", "lavfi", "-i", sound, "-c:v", "png", "-c:a", codec, path)
    done = live(tmp_path, "--source", path, "--offline", "--headless", "--stats-json", "-")
    assert done.returncode == 0, done.stderr
    assert figures(done.stdout)["audio_hops"] >= 4


def test_a_picture_of_8k_is_shown_and_recorded_smaller(tmp_path: Path) -> None:
    path = tmp_path / "8k.mp4"
    pictures = ("-f", "lavfi", "-i", "testsrc=s=7680x4320:r=5:d=0.4")
    sound = ("-f", "lavfi", "-i", "sine=d=0.4")
    ffmpeg(*pictures, *sound, "-preset", "ultrafast", "-pix_fmt", "yuv420p", path)
    arguments = ("--source", path, "--offline", "--headless", "--record", "r.mp4")
    assert live(tmp_path, *arguments).returncode == 0
    with av.open(str(tmp_path / "r.mp4")) as container:
        assert container.streams.video[0].codec_context.width == 1920


def test_the_sound_goes_on_when_the_camera_is_lost(
    mjpeg_server: MjpegServer, pulse_server: PulseServer, tmp_path: Path
) -> None:
    arguments = ("--camera", mjpeg_server.url, "--headless", "--record", "r.mp4")
    process = LiveProcess(tmp_path, *arguments, "--stats-json", "s.json")
    process.until(f'READY backend=onnxruntime-cpu-fp32 camera="{mjpeg_server.url}"@160x120 mic="')
    time.sleep(1)
    mjpeg_server.kill()
    process.until("stopped giving pictures; check its cable or network; it is opened again")
    time.sleep(1)
    process.process.terminate()
    assert process.end() == 0
    found = figures((tmp_path / "s.json").read_text())
    assert found["audio_hops"] >= 4
    assert found["audio_age_ms"]["p50"] is not None
    pictures, length_s, sound_s = recorded(tmp_path / "r.mp4")
    assert pictures >= 2
    assert length_s + 0.5 < sound_s < length_s + 4, "sound outlasts the last picture"


def test_rtsp_without_sound_shows_no_heat_and_ends_in_time(
    rtsp_server: RtspServer, tmp_path: Path
) -> None:
    url = f"rtsp://me:secret@{rtsp_server.address}/cam"
    arguments = ("--camera", url, "--mic", "none", "--headless", "--seconds", "4")
    done = live(tmp_path, *arguments, "--stats-json", "-")
    assert done.returncode == 0, done.stderr
    assert f"looking at and listening to rtsp://{rtsp_server.address}/cam\n" in done.stderr
    assert "secret" not in done.stderr
    found = figures(done.stdout)
    assert found["frames_out"] >= 2
    assert (found["audio_hops"], found["audio_age_ms"]["p50"]) == (0, None)


def test_the_pictures_go_on_when_the_microphone_is_lost(
    mjpeg_server: MjpegServer, pulse_server: PulseServer, tmp_path: Path
) -> None:
    process = LiveProcess(tmp_path, "--camera", mjpeg_server.url, "--headless")
    process.until("READY")
    pulse_server.kill()
    process.until("stopped giving sound; check that it is plugged in; it is opened again")
    time.sleep(1)
    assert process.process.poll() is None
    process.process.terminate()
    assert process.end() == 0
    assert not any("Traceback" in line for line in process.said)


def test_the_window_and_its_keys(display: str, tmp_path: Path) -> None:
    process = LiveProcess(tmp_path, "--demo", env={"DISPLAY": display})
    window = find_window(display, "^denseav$")
    process.until("READY")
    screen_until(display, tmp_path / "screen.png", heads_are_shown)
    press(display, window, "r")
    process.until("recording: denseav-")
    time.sleep(1)
    press(display, window, "r")
    process.until("recorded: denseav-")
    press(display, window, "r")
    process.until("recording: denseav-")
    time.sleep(1)
    press(display, window, "s")
    process.until("picture kept: denseav-")
    press(display, window, "h")
    press(display, window, "space")

    def held() -> bool:
        before_HW3 = screenshot(display, tmp_path / "screen.png")
        time.sleep(0.5)
        return bool((screenshot(display, tmp_path / "screen.png") == before_HW3).all())

    until(held)
    press(display, window, "q")
    assert process.end() == 0
    assert process.said[-1].startswith("denseav-live: recorded: denseav-")
    names = sorted(path.name for path in tmp_path.iterdir() if path.name != "screen.png")
    assert len(names) == 3
    assert all(re.fullmatch(r"denseav-\d{8}-\d{6}(-\d)?\.(mp4|png)", name) for name in names)
    for name in names:
        if name.endswith("mp4"):
            assert recorded(tmp_path / name)[0] >= 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_its_files_whole(tmp_path: Path, number: int) -> None:
    arguments = ("--demo", "--headless", "--record", "r.mp4", "--stats-json", "s.json")
    process = LiveProcess(tmp_path, *arguments)
    process.until("READY")
    time.sleep(1)
    process.process.send_signal(number)
    assert process.end(timeout_s=10) == 0
    assert figures((tmp_path / "s.json").read_text())["frames_out"] >= 1
    assert recorded(tmp_path / "r.mp4")[0] >= 1
    assert {path.name for path in tmp_path.iterdir()} == {"r.mp4", "s.json"}


@pytest.fixture
def mute_camera() -> Iterator[str]:
    """The URL of a camera that takes a call and never answers."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/cam"


def test_a_signal_ends_it_while_a_camera_does_not_answer(mute_camera: str, tmp_path: Path) -> None:
    process = LiveProcess(tmp_path, "--camera", mute_camera, "--mic", "none", "--headless")
    process.until("model demo")
    time.sleep(0.2)
    process.process.send_signal(signal.SIGINT)
    assert process.end(timeout_s=10) == 0


def test_list_devices_always_answers(tmp_path: Path) -> None:
    done = live(tmp_path, "--list-devices")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("cameras (--camera NUMBER or PATH")
    assert "\nmicrophones (--mic NUMBER or NAME)\n" in done.stdout


def test_a_pass_can_be_interrupted_and_that_is_no_failure(exact: Path) -> None:
    bundle = open_bundle(demo_folder())
    session = OnnxSession(bundle)
    size = bundle.manifest.image
    image_HW3 = np.zeros((size.height, size.width, 3), np.uint8)
    session.encode_image(image_HW3)
    session.interrupt()
    with pytest.raises(Interrupted):
        session.encode_image(image_HW3)
    pipeline, stats, stop = Pipeline(session, bundle.manifest), Stats(), threading.Event()
    hud, overlay = Hud("", "", []), Overlay(bundle.manifest.heads, trained=False)
    view = View(overlay, hud, stats, say=print)
    LiveRun([PacedClip(Clip(exact))], pipeline, view, stats, stop=stop, seconds=20).run()
    assert stop.is_set()


def test_what_a_microphone_lost_is_in_the_figures() -> None:
    microphone, stats = Microphone.__new__(Microphone), Stats()
    microphone.overflows, microphone.not_finite = 2, 0
    count_losses(stats, microphone)
    report = stats.report(backend="", precision="", model="", trained=False)
    assert report["drops"] == {"microphone_overflow": 2}
