"""What is left of a recording when the real command ends in another way than its own."""

import signal
import sys
import time
from pathlib import Path

import av
import pytest

from tests.support.live_command import LiveProcess

RECORDED_S = 5.0


def seconds(path: Path) -> tuple[float, float]:
    """Return how far a recording's pictures and its sound reach."""
    with av.open(str(path)) as container:
        pictures_s = max(frame.time for frame in container.decode(video=0))
    with av.open(str(path)) as container:
        sound_s = max(frame.time for frame in container.decode(audio=0))
    return pictures_s, sound_s


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
@pytest.mark.parametrize(
    ("number", "code", "name"),
    [(signal.SIGHUP, 0, "r.mp4"), (signal.SIGKILL, -signal.SIGKILL, "r.part.mp4")],
    ids=["terminal closed", "killed"],
)
def test_however_it_is_ended_its_recording_plays(
    tmp_path: Path, number: signal.Signals, code: int, name: str
) -> None:
    process = LiveProcess(tmp_path, "--demo", "--headless", "--record", "r.mp4")
    process.until("READY")
    time.sleep(RECORDED_S)
    process.process.send_signal(number)
    assert process.end() == code
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert min(seconds(tmp_path / name)) > RECORDED_S - 3
