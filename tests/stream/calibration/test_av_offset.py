"""A known offset between flashes and clicks, found through the real command and from bad input."""

import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from denseav.export.runtime.bundle import TOKEN_HOP_SAMPLES
from denseav.stream.calibration.av_offset import Watcher, click_times, flash_times, match
from denseav.stream.errors import SourceError
from denseav.stream.inference.pipeline import Pipeline
from denseav.stream.inference.sync_policy import Sync
from denseav.stream.sources.media_file import Clip
from denseav.stream.types import AudioBlock, Frame
from tests.support.fake_session import FakeSession, fake_manifest
from tests.support.live_command import LiveProcess, live, live_here
from tests.support.media import ffmpeg, grey, write_clip
from tests.support.servers import MjpegServer, PulseServer
from tests.support.stalls import thrice

pytestmark = pytest.mark.realtime

FPS, RATE_HZ = 30, 48_000
FLASH_FRAMES = (20, 57, 88, 133, 166)
TOKEN_S = TOKEN_HOP_SAMPLES / 16_000


def made_clip(path: Path, offset_ms: float) -> Path:
    """Six seconds of flashes, with clicks that come so much later (or earlier)."""
    draw = np.random.default_rng(0)
    wave_S = (0.001 * draw.standard_normal(6 * RATE_HZ)).astype(np.float32)
    for frame in FLASH_FRAMES:
        at = round((frame / FPS + offset_ms / 1000) * RATE_HZ)
        wave_S[at : at + 480] += 0.5 * np.sin(np.arange(480, dtype=np.float32))
    lit = {frame + more for frame in FLASH_FRAMES for more in range(3)}
    images = (grey(200 if index in lit else 60) for index in range(6 * FPS))
    return write_clip(path, images, wave_S[:, None], fps=FPS)


def printed_ms(text: str) -> float:
    found = re.search(r"--av-offset-ms (-?\d+)$", text.strip())
    assert found is not None, text
    return float(found[1])


def measured_and_taken_back(folder: Path, offset_ms: float) -> None:
    folder.mkdir()
    clip = made_clip(folder / "clip.mov", offset_ms)
    ran = live(folder, "--calibrate-av", "--source", clip)
    assert ran.returncode == 0, ran.stderr
    assert printed_ms(ran.stdout) == pytest.approx(offset_ms, abs=5)
    assert len(ran.stdout.splitlines()) == 1
    word = "later" if offset_ms > 0 else "earlier"
    assert f"ms {word} than the picture, by 5 flashes" in ran.stdout
    corrected = live(
        folder, "--calibrate-av", "--source", clip, f"--av-offset-ms={printed_ms(ran.stdout)}"
    )
    left = re.search(r"arrives (\S+) ms", corrected.stdout)
    assert left is not None
    assert float(left[1]) < 20
    assert printed_ms(corrected.stdout) == pytest.approx(printed_ms(ran.stdout), abs=1)


def test_a_known_offset_is_measured_and_taken_back(tmp_path: Path) -> None:
    with ThreadPoolExecutor() as at_once:  # each clip is played at its own pace
        ends = [
            at_once.submit(measured_and_taken_back, tmp_path / f"{offset_ms}", offset_ms)
            for offset_ms in (250.0, -90.0)
        ]
    for end in ends:
        end.result()


def test_the_clip_that_is_written_has_no_offset(tmp_path: Path) -> None:
    wrote = live(tmp_path, "--calibrate-av", "--record", "flash.mp4")
    assert wrote.returncode == 0, wrote.stderr
    assert "flash.mp4 written" in wrote.stdout
    ran = live(tmp_path, "--calibrate-av", "--source", "flash.mp4", "--seconds", "8")
    assert printed_ms(ran.stdout) == pytest.approx(0, abs=3)


@pytest.mark.parametrize("offset_ms", [0.0, 250.0, -90.0])
def test_without_calibration_the_heatmaps_tell_the_offset_to_a_token(
    tmp_path: Path, offset_ms: float
) -> None:
    """Each heatmap says which sound it used: the first loud token dates the click."""
    pipeline = Pipeline(FakeSession(), fake_manifest(), sync=Sync(exact=True))
    flash_s: list[float] = []
    click_s: list[float] = []
    held: list[Frame] = []
    dark = loud = False
    for item in Clip(made_clip(tmp_path / "clip.mov", offset_ms)):
        if isinstance(item, AudioBlock):
            pipeline.push(item)
            pipeline.encode_audio()
        else:
            held.append(item)
        while held and pipeline.sync[0].covers(held[0]):
            heatmap = pipeline.heatmap(held.pop(0))
            assert heatmap.audio_start_s is not None
            assert heatmap.audio_end_s is not None
            bright, dark = dark, heatmap.frame.image_HW3.mean() < 130
            if bright and not dark:
                flash_s.append(heatmap.frame.capture_s)
            quiet, loud = not loud, heatmap.rms_dbfs > -40
            if quiet and loud:
                click_s.append((heatmap.audio_start_s + heatmap.audio_end_s) / 2)
    assert len(flash_s) == len(FLASH_FRAMES)
    assert len(click_s) == len(FLASH_FRAMES)
    errors_s = np.subtract(click_s, flash_s) - offset_ms / 1000
    assert np.abs(errors_s).max() < TOKEN_S


@thrice
def test_a_camera_and_a_microphone_are_calibrated_live(
    pulse_server: PulseServer, tmp_path: Path
) -> None:
    """Flashes by MJPEG, clicks by PulseAudio; that one begins to play late is their offset."""
    begins_s = np.cumsum([3.0, 1.3, 1.7, 1.1, 1.9, 1.5])
    wave_S = np.zeros(round((begins_s[-1] + 1) * RATE_HZ), np.float32)
    for begin_s in begins_s:
        at = round(begin_s * RATE_HZ)
        wave_S[at : at + 480] = 0.5 * np.sin(np.arange(480, dtype=np.float32))
    soundfile.write(tmp_path / "clicks.wav", wave_S, RATE_HZ)
    started_s = float("inf")

    def picture(_: int) -> np.ndarray:
        since_s = time.monotonic() - started_s - begins_s
        return grey(250 if ((since_s >= 0) & (since_s < 0.1)).any() else 20, 160, 120)

    server = MjpegServer(picture=picture)
    arguments = ("--calibrate-av", "--camera", server.url, "--seconds", "11")
    live_process = LiveProcess(tmp_path, *arguments, stdout=subprocess.PIPE)
    try:
        live_process.until("watching for flashes")
        started_s = time.monotonic()
        pulse_server.play(tmp_path / "clicks.wav")
        assert live_process.process.stdout is not None
        said = live_process.process.stdout.read()
        assert live_process.end() == 0
    finally:
        server.kill()
    # A sound server's way and a network camera's are about as long: either may be the longer.
    found = re.search(
        r"arrives (\S+) ms (?:later|earlier) .* by (\d) flashes .* most (\S+) ms", said
    )
    assert found is not None, said
    assert 0 <= float(found[1]) < 1000
    assert int(found[2]) >= 4
    assert float(found[3]) < 60


def test_too_few_flashes_say_what_was_seen(tmp_path: Path) -> None:
    images = (grey(200 if index in (20, 21) else 60) for index in range(60))
    clip = write_clip(tmp_path / "clip.mov", images, np.zeros((2 * RATE_HZ, 1), np.float32))
    ran = live(tmp_path, "--calibrate-av", "--source", clip)
    assert ran.returncode == 3
    assert "1 flashes and 0 clicks were seen" in ran.stderr
    assert ran.stderr.count("\n") <= 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--calibrate-av"], "name one thing to look at"),
        (["--calibrate-av", "--demo"], "--demo does not go with --calibrate-av"),
        (["--calibrate-av", "--camera", "0", "--mic", "none"], "needs sound"),
        (["--calibrate-av", "--camera", "0", "--record", "a.mp4"], "watches a source or writes"),
        (["--calibrate-av", "--camera", "0", "--seconds", "500"], "at most 120"),
        (["--camera", "0", "--sync", "exact", "--mic", "none"], "--sync exact needs sound"),
        (["--demo", "--av-offset-ms", "nan"], "not within 1000 ms"),
        (["--demo", "--lookahead", "-1"], "whole number"),
        (["--demo", "--headless", "--lookahead", "500"], "beyond this model's window"),
    ],
)
def test_senseless_asks_are_refused(tmp_path: Path, given: list[str], message: str) -> None:
    ran = live_here(tmp_path, *given)
    assert ran.returncode == 2
    assert message in ran.stderr


def test_a_sound_coded_with_loss_does_not_make_clicks_early(tmp_path: Path) -> None:
    lossless = made_clip(tmp_path / "clip.mov", 40.0)
    ffmpeg("-i", lossless, "-c:v", "libx264", "-c:a", "aac", "-b:a", "64k", tmp_path / "lossy.mp4")
    ran = live(tmp_path, "--calibrate-av", "--source", "lossy.mp4")
    assert printed_ms(ran.stdout) == pytest.approx(40, abs=10)


def test_flashes_and_clicks_are_dated_by_their_first_frame_and_millisecond() -> None:
    time_N = np.arange(30) / 30
    bright_NP = np.full((30, 48), 60, np.int16)
    bright_NP[10:14, 5] = 120
    bright_NP[25:, 7] = 100
    assert flash_times(time_N, bright_NP) == pytest.approx([10 / 30, 25 / 30])
    time_N = np.arange(1000) / 1000
    dbfs_N = np.full(1000, -70.0)
    dbfs_N[295:300] = -45  # what comes before the click, far under its peak
    dbfs_N[300:340] = -12
    assert click_times(time_N, dbfs_N) == pytest.approx([0.3])


def test_the_offset_that_most_share_is_found_among_other_noises() -> None:
    flash_F = np.array([1.0, 2.3, 3.9, 5.0, 6.4])
    others_C = np.random.default_rng(0).uniform(0, 7, 20)
    click_C = np.sort(np.concatenate([flash_F + 0.12, others_C]))
    found = match(flash_F, click_C, 1 / 30)
    assert found is not None
    assert found.seconds == pytest.approx(0.12, abs=0.01)
    assert found.pairs == 5


def test_no_offset_is_made_up() -> None:
    flash_F = np.array([1.0, 2.3, 3.9, 5.0, 6.4])
    assert match(flash_F, np.zeros(0), 1 / 30) is None
    assert match(np.zeros(0), flash_F, 1 / 30) is None
    assert match(flash_F, np.array([1.2, 2.9, 3.0]), 1 / 30) is None
    assert match(flash_F, flash_F + 3.0, 1 / 30) is None


def test_the_first_error_of_two_sources_is_the_one_that_is_told() -> None:
    watcher = Watcher()
    watcher.ended(SourceError("the camera was unplugged"))
    watcher.ended(None)
    watcher.ended(SourceError("the microphone was unplugged too"))
    assert "camera" in str(watcher.error)
