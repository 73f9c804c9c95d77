"""Rerun's viewer, for real: what arrives, where it listens, how it ends, and how it fails."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from denseav.stream.app.view import View
from denseav.stream.display import rerun_viewer
from denseav.stream.display.hud import Hud
from denseav.stream.display.overlay import Overlay
from denseav.stream.display.rerun_viewer import RerunDisplay, RerunLog
from denseav.stream.errors import OutputError
from denseav.stream.inference.latest_slot import LatestSlot
from denseav.stream.stats.stats import Stats
from denseav.stream.types import Frame, Heatmap
from tests.support.fake_session import fake_manifest
from tests.support.live_command import environment, live
from tests.support.stalls import until

rerun = pytest.importorskip("rerun")

HEADS = fake_manifest().heads
PICTURE = np.full((48, 64, 3), 90, np.uint8)


def seen(
    time_s: float, level: float = 0.5
) -> tuple[Heatmap, NDArray[np.uint8], NDArray[np.float32]]:
    strength_KHW = np.full((2, 2, 3), level, np.float32)
    strength_KHW[1] = 0
    frame = Frame(PICTURE, 0, time_s)
    heatmap = Heatmap(frame, strength_KHW, (True, True), 0.0, 0.1, -20.0, time_s)
    return heatmap, PICTURE, strength_KHW


@pytest.fixture
def display() -> Iterator[RerunDisplay]:
    display = RerunDisplay(HEADS, window=False)
    yield display
    display.close()


def program(display: RerunDisplay) -> int:
    return display._viewer._process.pid


def printed(path: Path, *options: str) -> str:
    """What Rerun's own program says is in a recording."""
    command = [rerun_viewer._program(), "rrd", "print", *options, str(path)]
    env = {**os.environ, "CI": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True)
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)


def test_a_recording_holds_pictures_maps_levels_and_loudness(tmp_path: Path) -> None:
    recording = rerun.RecordingStream("denseav")
    recording.save(tmp_path / "run.rrd")
    log = RerunLog(rerun, recording, HEADS)
    for i in range(60):
        log.show(*seen(100 + i / 30))
    recording.disconnect()
    shown = printed(tmp_path / "run.rrd")
    rows: Counter[str] = Counter()
    for count, path in re.findall(r"with (\d+) rows.* - (\S+) - .*\[(?!SeriesLines)", shown):
        rows[path] += int(count)
    assert rows["/strength/speech"] == rows["/strength/sound"] == 60, shown
    assert 18 <= rows["/picture"] == rows["/heat/speech"] <= 22, shown
    assert "/loudness" in shown
    assert "log_time" not in shown


def test_it_listens_on_this_machine_alone(display: RerunDisplay) -> None:
    psutil = pytest.importorskip("psutil")
    listening = psutil.Process(program(display)).net_connections(kind="inet")
    addresses = {(c.laddr.ip, c.laddr.port) for c in listening if c.status == "LISTEN"}
    assert {ip for ip, _ in addresses} == {"127.0.0.1"}
    assert f"{display.url}" in {f"rerun+http://{ip}:{port}/proxy" for ip, port in addresses}


def test_this_process_opens_no_port_and_memory_is_bounded(display: RerunDisplay) -> None:
    psutil = pytest.importorskip("psutil")
    display.show(*seen(0.0))
    own = psutil.Process().net_connections(kind="inet")
    assert not [c for c in own if c.status == "LISTEN"]
    command = psutil.Process(program(display)).cmdline()
    for option in ("--memory-limit", "--server-memory-limit"):
        assert command[command.index(option) + 1] in ("1GB", "256MB")


def test_what_is_shown_arrives_and_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    psutil = pytest.importorskip("psutil")
    monkeypatch.setattr(rerun_viewer, "SERVER_MEMORY", "20MB")
    monkeypatch.setattr(rerun_viewer, "PICTURES_PER_S", 1000)
    display = RerunDisplay(HEADS, window=False)
    viewer, noise = psutil.Process(program(display)), np.random.default_rng(0)
    display.show(*seen(0.0))
    time.sleep(3)  # what it takes to begin is not counted
    sizes_mb = [viewer.memory_info().rss / 1e6]
    for i in range(240):
        noisy = noise.integers(0, 256, (480, 640, 3), np.uint8)
        heatmap, _, strength_KHW = seen(i / 30)
        display.show(heatmap, noisy, strength_KHW)
        time.sleep(0.02)
        sizes_mb.append(viewer.memory_info().rss / 1e6)
    until(lambda: viewer.memory_info().rss / 1e6 > sizes_mb[0] + 10)  # it came
    display.close()
    assert max(sizes_mb) < sizes_mb[0] + 150  # and did not all stay: it was 221


def test_nothing_is_noted_down_about_who_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CI", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    display = RerunDisplay(HEADS, window=False)
    display.show(*seen(0.0))
    display.close()
    assert list(tmp_path.rglob("*")) == []


def test_a_viewer_that_stalls_holds_nothing_up(display: RerunDisplay) -> None:
    os.kill(program(display), signal.SIGSTOP)
    started_s = time.monotonic()
    for i in range(300):
        display.show(*seen(i / 30))
    assert time.monotonic() - started_s < 5
    display.close()
    assert time.monotonic() - started_s < 30
    assert not display.alive


def test_the_end_leaves_no_program_and_no_thread() -> None:
    before = set(threading.enumerate())
    display = RerunDisplay(HEADS, window=False)
    display.show(*seen(0.0))
    pid = program(display)
    display.close()
    display.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    until(lambda: {t for t in threading.enumerate() if t.name.startswith("rerun")} <= before)


def test_a_taken_port_is_left_to_who_has_it(display: RerunDisplay) -> None:
    second = RerunDisplay(HEADS, window=False)
    assert second.url != display.url
    assert second.alive
    assert display.alive
    second.close()


def test_a_viewer_that_does_not_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "rerun"
    broken.write_text("#!/bin/sh\necho 'no GPU here' >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(rerun_viewer, "_program", lambda: str(broken))
    with pytest.raises(OutputError, match=r"did not start \(no GPU here\); with --headless"):
        RerunDisplay(HEADS, window=True)


class Shown:
    """A viewer that ends as it is told to."""

    url = "rerun+http://127.0.0.1:9/proxy"
    alive, failure, closed = True, None, False

    def show(self, *_: object) -> None:
        """Look away."""

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("failure", [None, "no GPU here"])
def test_closing_the_viewer_ends_the_run_and_its_failure_does_not(failure: str | None) -> None:
    said: list[str] = []
    viewer = Shown()
    overlay, hud = Overlay(HEADS, True), Hud("fake", "fp32", [])
    view = View(overlay, hud, Stats(), say=said.append, rerun=viewer)  # type: ignore[arg-type]
    view.show(seen(0.0)[0])
    assert not view.quit_asked
    viewer.alive, viewer.failure = False, failure
    view.show(seen(0.1)[0])
    assert view.quit_asked == (failure is None)
    if failure:
        assert said == ["Rerun's viewer ended (no GPU here); the run goes on without it"]
        assert viewer.closed
        view.show(seen(0.2)[0])
        assert len(said) == 1


class BrokenLog:
    """Cannot be given anything."""

    def show(self, *_: object) -> None:
        raise RuntimeError("no memory left")


def test_a_display_that_can_be_shown_nothing_more_says_why() -> None:
    display = RerunDisplay.__new__(RerunDisplay)
    display._newest, display._ending, display._fault = LatestSlot(), threading.Event(), None
    display._log = BrokenLog()  # type: ignore[assignment]
    display._newest.put(seen(0.0))
    display._work()
    assert not display.alive
    assert display.failure == "it cannot be shown anything more: no memory left"


def test_a_run_shows_itself_to_viewers_that_connect(tmp_path: Path) -> None:
    done = live(tmp_path, "--demo", "--display", "rerun", "--headless", "--seconds", "5")
    assert done.returncode == 0
    assert "others connect with: rerun rerun+http://127.0.0.1:" in done.stderr
    assert "READY" in done.stderr


def test_without_the_library_there_is_one_line_and_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "rerun.py").write_text("raise ImportError\n")
    command = "import sys; from denseav.stream.cli.live import main; sys.exit(main())"
    arguments = ["--demo", "--display", "rerun", "--headless", "--seconds", "2"]
    done = subprocess.run(
        [sys.executable, "-c", command, *arguments],
        env=environment(tmp_path, PYTHONPATH=str(tmp_path)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "denseav-live: error: Rerun is not installed; install it, in a clone of denseav, with: "
        "pip install '.[rerun]'"
    )
    assert "Traceback" not in done.stderr
