"""What is left of a recording when the real command ends in another way than its own."""

import json
import resource
import signal
import sys
from pathlib import Path

import av
import pytest

from tests.support.feeds import free_endpoint
from tests.support.live_command import LiveProcess, live
from tests.support.stalls import until

FRAGMENT_BYTES = 150_000  # of the demo's two seconds at most


def seconds(path: Path) -> tuple[float, float]:
    """Return how far a recording's pictures and its sound reach."""
    with av.open(str(path)) as container:
        pictures_s = max(frame.time for frame in container.decode(video=0))
    with av.open(str(path)) as container:
        sound_s = max(frame.time for frame in container.decode(audio=0))
    return pictures_s, sound_s


def until_recorded(folder: Path) -> None:
    """Wait until more than a fragment is on the disk."""
    path = folder / "r.part.mp4"
    until(lambda: path.exists() and path.stat().st_size > FRAGMENT_BYTES, 60)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
@pytest.mark.parametrize(
    ("number", "code", "name"),
    [(signal.SIGHUP, 0, "r.mp4"), (signal.SIGKILL, -signal.SIGKILL, "r.part.mp4")],
    ids=["terminal closed", "killed"],
)
def test_however_it_is_ended_its_recording_plays(
    tmp_path: Path, number: signal.Signals, code: int, name: str
) -> None:
    # Under `nohup` these tests would hand on that a terminal's end is ignored.
    ignored = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    process = LiveProcess(tmp_path, "--demo", "--headless", "--record", "r.mp4")
    signal.signal(signal.SIGHUP, ignored)
    until_recorded(tmp_path)
    process.process.send_signal(number)
    assert process.end() == code
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert min(seconds(tmp_path / name)) > 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_full_disk_ends_the_recording_alone(tmp_path: Path) -> None:
    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (FRAGMENT_BYTES, FRAGMENT_BYTES))

    arguments = ("--demo", "--headless", "--record", "r.mp4", "--seconds", "8")
    done = live(tmp_path, *arguments, "--stats-json", "-", limits=small_disk)
    assert done.returncode == 7
    assert "kept in r.part.mp4; the run goes on without it" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("denseav-live: error: cannot write")
    assert json.loads(done.stdout.splitlines()[-1])["seconds"] > 7
    assert min(seconds(tmp_path / "r.part.mp4")) > 0.5


@pytest.mark.skipif(sys.platform == "win32", reason="has no such pipes")
def test_a_log_that_nobody_reads_any_more_ends_nothing(tmp_path: Path) -> None:
    process = LiveProcess(
        tmp_path,
        "--demo",
        "--headless",
        "--record",
        "r.mp4",
        "--camera-id",
        "x",
        "--publish",
        free_endpoint(),
    )
    assert process.process.stderr is not None
    process.process.stderr.close()
    until_recorded(tmp_path)
    process.process.send_signal(signal.SIGTERM)
    assert process.process.wait(30) == 0
    LiveProcess.running.remove(process.process)
    assert min(seconds(tmp_path / "r.mp4")) > 0.5
