"""Bad input to the real command: one line that names the remedy, its exit code, nothing half."""

import json
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from denseav.export.runtime.bundle import demo_folder, open_bundle
from denseav.export.runtime.onnx_session import OnnxSession
from denseav.stream.display.hud import Hud
from tests.support.live_command import LiveProcess, environment, live, live_here
from tests.support.media import LEVELS, cut, ffmpeg, grey, tone, write_clip
from tests.support.servers import MjpegServer
from tests.support.stalls import until_threads


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """Check that the run ended with this code, and that its last line is the one with the words."""
    lines = done.stderr.splitlines()
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert [line for line in lines if "error: " in line] == lines[-1:]
    assert lines[-1].startswith("denseav-live: error: ")
    assert all(line.startswith("denseav-live") for line in lines), done.stderr
    for word in words:
        assert word in lines[-1]


def without(kind: str) -> Callable[[Path, Path], None]:
    def make(whole: Path, path: Path) -> None:
        ffmpeg("-i", whole, f"-{kind}n", "-c", "copy", path)

    return make


def without_index(whole: Path, path: Path) -> None:
    """Keep what a camera has written when its power goes: its index would have come last."""
    ffmpeg("-i", whole, "-c", "copy", path)
    cut(path, path, 0.5)


def not_numbers(_whole: Path, path: Path) -> None:
    samples_SC = tone(48_000, 1.0)
    samples_SC[30_000] = np.nan
    write_clip(path, map(grey, LEVELS), samples_SC)


def one_pixel(_whole: Path, path: Path) -> None:
    write_clip(path, repeat(grey(9, 1, 1), 10), tone(48_000, 0.4))


FILES: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "missing.mp4": (lambda whole, path: None, "there is no such file; check the path"),
    "a" * 300: (lambda whole, path: None, "there is no such file; check the path"),
    "folder.mp4": (lambda whole, path: path.mkdir(), "there is no such file"),
    "silent.mp4": (without("a"), "has no sound; give a file with sound"),
    "blind.mp4": (without("v"), "has no picture; give a file with video"),
    "no_index.mp4": (without_index, "cut short (Invalid data found when processing input); copy"),
    "cut.mp4": (lambda whole, path: cut(whole, path, 0.5), "of 4.0 s; copy or convert it again"),
    "one_pixel.mov": (one_pixel, "1x1 are not between 16 and 8192 pixels"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_read(common: Path, tmp_path: Path, name: str) -> None:
    make, message = FILES[name]
    make(common, tmp_path / name)
    done = live_here(tmp_path, "--source", name, "--offline", "--headless")
    refused(done, 3, name, message)


def test_samples_that_are_no_numbers_are_silence_and_said(common: Path, tmp_path: Path) -> None:
    not_numbers(common, tmp_path / "nan.mov")
    done = live_here(tmp_path, "--source", "nan.mov", "--offline", "--headless")
    assert done.returncode == 0, done.stderr
    assert "nan.mov was mended: samples that are no numbers" in done.stderr.splitlines()[-1]


def test_a_head_that_gives_no_numbers_is_said_once(
    common: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would look as it does in silence."""
    whole = OnnxSession.heatmap

    def broken(*given: Any) -> NDArray[np.float32]:
        return whole(*given) * np.array([[[1]], [[np.nan]]], np.float32)

    monkeypatch.setattr(OnnxSession, "heatmap", broken)
    done = live_here(tmp_path, "--source", common, "--offline", "--headless", "--seconds", "1")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "not a number" in line]
    head = open_bundle(demo_folder()).manifest.heads[1].name
    assert len(said) == 1
    assert f"the model's heat for {head} is not a number" in said[0]


def test_what_came_before_the_cut_is_kept_whole(common: Path, tmp_path: Path) -> None:
    cut(common, tmp_path / "cut.mp4", 0.6)
    arguments = ("--source", "cut.mp4", "--headless", "--record", "r.mp4", "--stats-json", "s.json")
    refused(live(tmp_path, *arguments), 3, "cut short")
    ffmpeg("-i", tmp_path / "r.mp4", "-f", "null", "-")
    assert json.loads((tmp_path / "s.json").read_text().splitlines()[-1])["frames_out"] > 0
    assert {path.name for path in tmp_path.iterdir()} == {"cut.mp4", "r.mp4", "s.json"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "0",
            "camera 0 cannot be opened; it is absent, in use or not permitted; see: denseav-live",
        ),
        ("99999999999999999999", "cannot be opened"),
        ("rtsp://me:secret@127.0.0.1:9/x", "rtsp://127.0.0.1:9/x cannot be opened; check its"),
    ],
)
def test_an_unknown_camera(tmp_path: Path, spec: str, message: str) -> None:
    done = live_here(tmp_path, "--camera", spec, "--mic", "none", "--headless")
    refused(done, 3, message)
    assert "secret" not in done.stderr


@pytest.mark.parametrize("spec", ["no such thing", "99999999999999999999"])
def test_an_unknown_microphone(mjpeg_server: MjpegServer, tmp_path: Path, spec: str) -> None:
    done = live_here(tmp_path, "--camera", mjpeg_server.url, "--mic", spec, "--headless")
    refused(done, 3, f"no microphone {spec}; see: denseav-live --list-devices")


def newer(folder: Path) -> None:
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "schema": 99}))


def forged(folder: Path) -> None:
    with (folder / "heatmap.onnx").open("ab") as file:
        file.write(b"!")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (newer, "schema 99, newer than the 2 this denseav reads; upgrade"),
        (forged, "its sha256 differs); export or copy the bundle again"),
        (shutil.rmtree, "holds no manifest.json; make a bundle with: denseav-export"),
    ],
)
def test_a_bundle_that_cannot_be_used(
    tmp_path: Path, harm: Callable[[Path], None], message: str
) -> None:
    shutil.copytree(demo_folder(), tmp_path / "model")
    harm(tmp_path / "model")
    refused(live_here(tmp_path, "--demo", "--headless", "--model", "model"), 4, message)


@pytest.mark.parametrize("device", ["cuda", "trt"])
def test_a_device_that_is_not_here_is_never_another(tmp_path: Path, device: str) -> None:
    hidden = {"CUDA_VISIBLE_DEVICES": "-1"}
    done = live_here(tmp_path, "--demo", "--headless", "--device", device, env=hidden)
    refused(done, 4, "no NVIDIA GPU", "use --device cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--record missing/r.mp4", "No such file or directory); choose a folder that exists"),
        ("--record r.avi", "name it NAME.mp4"),
        ("--record taken.mp4", "exists already; choose another name or delete it"),
        ("--stats-json missing/s.json", "No such file or directory); choose another path"),
        ("--stats-json .", "Is a directory); choose another path"),
        ("--stats-json /dev/full", "No space left on device); choose another path"),
    ],
)
def test_an_output_that_cannot_be_written(tmp_path: Path, arguments: str, message: str) -> None:
    (tmp_path / "taken.mp4").write_text("precious")
    done = live_here(tmp_path, "--demo", "--headless", "--seconds", "0.2", *arguments.split())
    refused(done, 7, message)
    assert [path.name for path in tmp_path.iterdir()] == ["taken.mp4"]
    assert (tmp_path / "taken.mp4").read_text() == "precious"
    assert Path("/dev/full").is_char_device()


def test_a_disk_that_fills_while_recording_keeps_nothing_half(exact: Path, tmp_path: Path) -> None:
    import resource

    def small() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))

    done = live(
        tmp_path, "--source", exact, "--offline", "--headless", "--record", "r.mp4", limits=small
    )
    refused(done, 7, "cannot write the recording r.mp4 (", "has space left")
    assert list(tmp_path.iterdir()) == []


def test_standard_output_that_nobody_reads(tmp_path: Path) -> None:
    arguments = ("--demo", "--headless", "--seconds", "0.2", "--stats-json", "-")
    with Path("/dev/full").open("w") as full:
        process = LiveProcess(tmp_path, *arguments, stdout=full.fileno())
        assert process.end() == 7
    assert process.said[-1].endswith("No space left on device); choose another path\n")


@pytest.mark.parametrize(
    ("module", "body", "arguments", "code", "remedy"),
    [
        (
            "cv2",
            'raise ImportError("libGL.so.1: cannot open shared object file")',
            ("--demo",),
            1,
            "libGL.so.1: cannot open shared object file); install denseav again, and on Debian "
            "or Ubuntu: apt install libgl1 ",
        ),
        (
            "sounddevice",
            'raise OSError("PortAudio library not found")',
            ("--camera", "CAMERA"),
            3,
            "apt install libportaudio2",
        ),
    ],
)
def test_a_missing_library_is_named_with_its_package(
    mjpeg_server: MjpegServer,
    tmp_path: Path,
    module: str,
    body: str,
    arguments: tuple[str, ...],
    code: int,
    remedy: str,
) -> None:
    (tmp_path / f"{module}.py").write_text(body)
    given = [mjpeg_server.url if word == "CAMERA" else word for word in arguments]
    done = live(tmp_path, *given, "--headless", env={"PYTHONPATH": str(tmp_path)})
    refused(done, code, remedy)


def test_what_nobody_foresaw_is_one_line_and_the_recording_is_whole(
    exact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing, drawn = Hud.draw, list[int]()

    def draw(*arguments: Any) -> None:
        drawn.append(1)
        if len(drawn) > 5:
            raise ValueError("no such colour")
        drawing(*arguments)

    monkeypatch.setattr(Hud, "draw", draw)
    arguments = ("--source", exact, "--offline", "--headless", "--record", "r.mp4")
    done = live_here(tmp_path, *arguments)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert (
        "the run failed unexpectedly (ValueError: no such colour) at test_live_errors.py:" in last
    )
    assert "Traceback" not in done.stderr
    with av.open(str(tmp_path / "r.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 5


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_with_too_little_memory_to_begin_it_is_one_line(tmp_path: Path) -> None:
    def little() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (500_000_000, 500_000_000))

    done = live(tmp_path, "--demo", "--headless", limits=little)
    refused(done, 1, "the limit of 500 MB is too little memory", "allow this program 1000 MB")


@pytest.mark.parametrize("name", ["signals", "the image pass"])
def test_a_thread_that_cannot_be_started_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before, start = threading.enumerate(), threading.Thread.start

    def begin(thread: threading.Thread) -> None:
        if thread.name == name:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", begin)
    done = live_here(tmp_path, "--demo", "--headless", "--record", "r.mp4")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("denseav-live: error: there is too little")
    assert "Traceback" not in done.stderr
    until_threads(before)


OTHER_SIGNAL = """
import os, signal, threading, time
from denseav.stream.cli import live
stop, opened = threading.Event(), threading.Event()
with live._stopping_on_signals(stop, opened):
    signal.signal(signal.SIGCHLD, lambda *_: None)
    os.kill(os.getpid(), signal.SIGCHLD)
    time.sleep(0.3)
    print(stop.is_set(), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    print(stop.wait(5), flush=True)
"""


def test_a_signal_that_a_library_handles_ends_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OTHER_SIGNAL]
    done = subprocess.run(
        command, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["False", "True"]


AFTERWARDS = """
import signal, threading, time
from denseav.stream.cli import feed, live
ended = threading.Event()
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: ended.set())
assert live.main(["--nonsense"]) == 2
try:
    feed.main(["--nonsense"])
except SystemExit:
    pass
for number in (signal.SIGTERM, signal.SIGINT):
    ended.clear()
    signal.raise_signal(number)
    assert ended.wait(5)
time.sleep(live.OPENING_S + 0.5)
print([thread.name for thread in threading.enumerate()], signal.set_wakeup_fd(-1))
"""


def test_a_command_that_was_called_leaves_signals_to_its_caller(tmp_path: Path) -> None:
    """Else the caller's next SIGTERM would end its process, without a word, as a success."""
    command = [sys.executable, "-c", AFTERWARDS]
    done = subprocess.run(
        command, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1:] == ["['MainThread'] -1"]
