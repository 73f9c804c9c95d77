"""Several cameras in one run: in turn, each with its figures, and none disturbed by another."""

import itertools
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from denseav.stream.app.live_loop import LiveRun
from denseav.stream.errors import UsageError
from denseav.stream.inference.pipeline import Pipeline
from denseav.stream.options import SourceOptions
from denseav.stream.sources.open import open_sources
from denseav.stream.stats.source_health import SourceHealth, SourceState, State
from denseav.stream.stats.stats import Stats, Totals
from denseav.stream.types import Frame, Heatmap
from tests.support.fake_session import FakeSession, fake_manifest
from tests.support.live_command import live_here
from tests.support.servers import MjpegServer

PICTURE = np.zeros((48, 64, 3), np.uint8)


class View:
    """Keeps whose heatmaps it is shown."""

    quit_asked = wants_features = False

    def __init__(self) -> None:
        self.shown: list[int] = []

    def show(self, *heatmaps: Heatmap) -> None:
        self.shown += [heatmap.frame.camera for heatmap in heatmaps]

    def poll(self, fault: str | None = None) -> None:
        """Show nothing."""


def run_cameras(
    health: SourceHealth, cameras: int, until: Callable[[Sequence[Totals]], bool]
) -> tuple[Stats, View]:
    """Run cameras that always have something new, until their figures are as they should be."""
    stats, view, stop = Stats(), View(), threading.Event()
    each = [stats.camera(str(number)) for number in range(cameras)]
    pipeline = Pipeline(FakeSession(image_s=0.002), fake_manifest(), cameras=cameras)
    run = LiveRun(
        [],
        pipeline,
        view,  # type: ignore[arg-type]
        stats,
        stop=stop,
        health=health,
        cameras=each,
    )

    def give() -> None:
        for index in itertools.count():
            for number in range(cameras):
                image_HW3 = np.full_like(PICTURE, index % 250)
                run.frame(Frame(image_HW3, index, time.monotonic(), number))
            if until([of.totals() for of in each]) or stop.wait(0.001):
                break
        stop.set()

    giver = threading.Thread(target=give)
    giver.start()
    run.run()
    giver.join()
    return stats, view


def test_each_camera_has_its_figures_within_the_run_s_and_is_shown() -> None:
    stats, view = run_cameras(
        SourceHealth(lambda _: None),
        3,
        lambda totals: (
            min(of.frames_out for of in totals) >= 5
            and min(of.drops.get("model_busy", 0) for of in totals) >= 1
        ),
    )
    totals = [of.totals() for of in stats.cameras.values()]
    made = [of.frames_out for of in totals]
    assert max(made) - min(made) <= 1, "all had something new at each turn"
    whole = stats.totals()
    assert whole.frames_in == sum(of.frames_in for of in totals)
    assert whole.frames_out == sum(made)
    assert whole.drops["model_busy"] == sum(of.drops["model_busy"] for of in totals)
    assert set(view.shown) == {0, 1, 2}
    table = stats.report(backend="", precision="", model="", trained=False)["cameras"]
    assert [table[name]["frames_out"] for name in "012"] == made


def test_what_a_lost_camera_still_gives_counts_for_nothing_and_the_other_goes_on() -> None:
    said: list[str] = []
    health = SourceHealth(said.append)
    for number in range(2):
        for state in (State.OPENING, State.RUNNING):
            health.enter(
                SourceState(kind="camera", name=f"c{number}", state=state, since_s=0, number=number)
            )
    lost = SourceState(
        kind="camera",
        name="c1",
        state=State.LOST,
        since_s=time.monotonic(),
        reason="gone",
        number=1,
    )
    health.enter(lost)
    stats, _ = run_cameras(
        health,
        2,
        lambda totals: totals[0].frames_out >= 5 and totals[1].drops.get("camera_lost", 0) >= 5,
    )
    first, second = (of.totals() for of in stats.cameras.values())
    assert not first.drops.get("camera_lost")
    assert second.frames_out == 0
    assert said == ["gone"]
    assert health.camera_fault() is None, "one camera still gives"
    assert "c1: lost" in str(health.fault_of(1))


def test_the_same_camera_by_two_names_is_refused(tmp_path: Path) -> None:
    named = tmp_path / "address"
    named.write_text("rtsp://127.0.0.1:9/cam\n")
    with pytest.raises(UsageError, match="named twice"):
        open_sources(SourceOptions(cameras=("rtsp://127.0.0.1:9/cam", f"@{named}")))


def test_one_that_cannot_be_opened_at_the_start_ends_it_in_one_line(
    mjpeg_server: MjpegServer, tmp_path: Path
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        absent = f"http://127.0.0.1:{nobody.getsockname()[1]}/cam"
        arguments = ("--camera", mjpeg_server.url, "--camera", absent, "--mic", "none")
        done = live_here(tmp_path, *arguments, "--headless", "--seconds", "2")
    assert done.returncode == 3
    assert absent in done.stderr.splitlines()[-1]
