"""Several cameras in one run: in turn, each with its figures, and none disturbed by another."""

import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from denseav.stream.app.live_loop import LiveRun
from denseav.stream.display.mosaic import Mosaic
from denseav.stream.errors import UsageError
from denseav.stream.inference.pipeline import Pipeline
from denseav.stream.options import SourceOptions
from denseav.stream.sources.open import open_sources
from denseav.stream.stats.source_health import SourceHealth, SourceState, State
from denseav.stream.stats.stats import Stats
from denseav.stream.types import Frame, Heatmap
from tests.support.fake_session import FakeSession, fake_manifest
from tests.support.live_command import live_here
from tests.support.servers import MjpegServer

PICTURE = np.zeros((48, 64, 3), np.uint8)


class View:
    """Keeps the shapes of what it is shown."""

    quit_asked = wants_features = False

    def __init__(self) -> None:
        self.shapes: set[tuple[int, ...]] = set()

    def show(self, heatmap: Heatmap) -> None:
        self.shapes.add(heatmap.heat_KHW.shape)

    def poll(self, fault: str | None = None) -> None:
        """Show nothing."""


def run_cameras(
    health: SourceHealth, fps: Sequence[float], *, image_s: float, seconds: float
) -> tuple[Stats, View]:
    """Run cameras of so many frames a second at a session that takes so long for each."""
    stats, view, stop = Stats(), View(), threading.Event()
    cameras = [stats.camera(str(number)) for number in range(len(fps))]
    pipeline = Pipeline(FakeSession(image_s=image_s), fake_manifest(), cameras=len(fps))
    mosaic = Mosaic([str(number) for number in range(len(fps))], health.fault_of)
    run = LiveRun(
        [],
        pipeline,
        view,  # type: ignore[arg-type]
        stats,
        stop=stop,
        health=health,
        mosaic=mosaic,
        cameras=cameras,
    )

    def give(number: int) -> None:
        index = 0
        while not stop.wait(1 / fps[number]):
            image_HW3 = np.full_like(PICTURE, index % 250)
            run.frame(Frame(image_HW3, index, time.monotonic(), number))
            index += 1

    givers = [threading.Thread(target=give, args=(number,)) for number in range(len(fps))]
    ending = threading.Timer(seconds, stop.set)
    for thread in (*givers, ending):
        thread.start()
    run.run()
    for thread in (*givers, ending):
        thread.join()
    return stats, view


def test_at_a_slow_model_no_camera_starves() -> None:
    stats, view = run_cameras(
        SourceHealth(lambda _: None), (200, 200, 20), image_s=0.02, seconds=1.2
    )
    totals = [each.totals() for each in stats.cameras.values()]
    made = [each.frames_out for each in totals]
    assert min(made) >= 5
    assert max(made) <= 1.6 * min(made) + 2, "one camera has far more pictures, not more turns"
    assert totals[0].drops["model_busy"] > totals[2].drops.get("model_busy", 0)
    whole = stats.totals()
    assert whole.frames_out == sum(made)
    assert whole.drops["model_busy"] == sum(each.drops.get("model_busy", 0) for each in totals)
    heads, height, width = next(iter(view.shapes))
    assert {(heads, height, width)} == view.shapes, "the tiles stay where they are"
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
    stats, _ = run_cameras(health, (50, 50), image_s=0.0, seconds=0.4)
    first, second = (each.totals() for each in stats.cameras.values())
    assert first.frames_out >= 5
    assert not first.drops.get("camera_lost")
    assert second.frames_out == 0
    assert second.drops["camera_lost"] >= 5
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
