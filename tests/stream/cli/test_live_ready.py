"""The line that says the run is ready: printed once, by the command itself."""

import subprocess
import sys

import numpy as np
import pytest

from denseav.stream.app.build import _announcer, print_ready
from denseav.stream.types import Frame, Heatmap
from tests.support.fake_session import FakeSession
from tests.support.fakes import FakeCamera

pytestmark = pytest.mark.realtime


def heatmap(audio_end_s: float | None) -> Heatmap:
    frame = Frame(np.zeros((48, 64, 3), np.uint8), 0, 1.0)
    heat_KHW = np.zeros((2, 2, 3), np.float32)
    return Heatmap(frame, heat_KHW, (False, False), audio_end_s, audio_end_s, -120.0, 1.1)


def test_the_command_says_ready_once_and_what_runs() -> None:
    command = [
        sys.executable,
        "-c",
        "from denseav.stream.cli.live import main; raise SystemExit(main())",
    ]
    options = ["--demo", "--headless", "--seconds", "5", "--device", "cpu"]
    run = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    ready = [line for line in run.stderr.splitlines() if " READY " in line]
    assert ready == ['denseav-live READY backend=onnxruntime-cpu-fp32 source="clip.mp4"']


def test_ready_waits_for_the_first_sound(capsys: pytest.CaptureFixture[str]) -> None:
    ready = _announcer(FakeSession(), [FakeCamera()], True, print_ready)
    assert not ready(heatmap(None))
    assert capsys.readouterr().err == ""
    assert ready(heatmap(1.0))
    assert capsys.readouterr().err == 'denseav-live READY backend=fake-fp32 source="fake"\n'


def test_without_a_microphone_the_first_picture_will_do() -> None:
    assert _announcer(FakeSession(), [FakeCamera()], False, print_ready)(heatmap(None))
