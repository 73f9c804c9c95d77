"""Several cameras in one run: in turn, each with its figures, and none disturbed by another."""

import itertools
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from denseav.export.runtime.session import AudioWay
from denseav.stream.app.build import _have_own_microphones, _open_live
from denseav.stream.app.live_loop import LiveRun
from denseav.stream.errors import SourceError, UsageError
from denseav.stream.inference.pipeline import Pipeline
from denseav.stream.options import SourceOptions
from denseav.stream.sources import open as sources_open
from denseav.stream.sources.open import most_microphones, open_sources
from denseav.stream.stats.source_health import SourceHealth, SourceState, State
from denseav.stream.stats.stats import Stats, Totals
from denseav.stream.types import AudioBlock, Frame, Heatmap
from tests.support.fake_session import FakeSession, fake_manifest
from tests.support.fakes import Collector
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


def ticks(microphone: int, level: float, seconds: float = 2.0) -> list[AudioBlock]:
    """Sound of which every block says when it was, as loud as told."""
    samples_S = level * (1 + np.arange(round(16_000 * seconds)) / 16_000 / 10)
    whole_S1 = samples_S.astype(np.float32)[:, None]
    return [
        AudioBlock(whole_S1[at : at + 320], 16_000, at, at / 16_000, microphone)
        for at in range(0, len(whole_S1), 320)
    ]


@pytest.mark.parametrize("audio", ["window", "streaming"])
def test_each_camera_is_compared_with_its_own_sound(audio: AudioWay) -> None:
    """The slow way: a pipeline for each camera, and no other."""
    both = Pipeline(FakeSession(), fake_manifest(), audio=audio, cameras=2, own_microphones=True)
    alone = [Pipeline(FakeSession(), fake_manifest(), audio=audio) for _ in range(2)]
    compared = 0
    for blocks in zip(ticks(0, 0.5), ticks(1, 0.0002), strict=True):
        for camera, block in enumerate(blocks):
            both.push(block)
            alone[camera].push(replace(block, microphone=0))
            while both.encode_audio():
                pass
            alone[camera].encode_audio()
        for camera, block in enumerate(blocks):
            found = both.heatmap(Frame(PICTURE, 0, block.end_s, camera))
            right = alone[camera].heatmap(Frame(PICTURE, 0, block.end_s))
            np.testing.assert_array_equal(found.heat_KHW, right.heat_KHW)
            assert found.valid_K == right.valid_K
            assert (found.rms_dbfs, found.audio_end_s) == (right.rms_dbfs, right.audio_end_s)
            compared += found.audio_end_s is not None
        loud, quiet = (both.heatmap(Frame(PICTURE, 0, blocks[0].end_s, n)) for n in range(2))
        assert not any(quiet.valid_K), "the other one's sound is nothing to it"
        assert all(loud.valid_K) == (loud.audio_end_s is not None)
    assert compared > 100


def test_microphones_take_turns_on_a_machine_that_is_too_slow() -> None:
    session = FakeSession()
    pipeline = Pipeline(session, fake_manifest(), cameras=3, own_microphones=True)
    levels = (0.1, 0.2, 0.3)
    each = [ticks(number, level) for number, level in enumerate(levels)]
    for blocks in zip(*each, strict=True):
        for block in blocks:
            pipeline.push(block)
        if round(blocks[0].capture_s * 50) % 9 == 8:  # a pass each 180 ms, for three
            pipeline.encode_audio()
    heard = [round(float(wave_S[-1]), 1) for wave_S in session.windows]
    counts = [heard.count(level) for level in levels]
    assert sum(counts) == len(heard) >= 9
    assert max(counts) - min(counts) <= 1
    assert pipeline.hops_skipped > 0


def test_a_fault_of_one_microphone_leaves_the_heads_of_the_others_valid() -> None:
    good_since_s = [0.0, None]
    pipeline = Pipeline(
        FakeSession(),
        fake_manifest(),
        cameras=2,
        own_microphones=True,
        audio_good_since=good_since_s.__getitem__,
    )
    for blocks in zip(ticks(0, 0.5), ticks(1, 0.5), strict=True):
        for block in blocks:
            pipeline.push(block)
            pipeline.encode_audio()
    valid = [pipeline.heatmap(Frame(PICTURE, 0, 2.0, camera)).valid_K for camera in range(2)]
    assert valid == [(True, True), (False, False)]


class WithSound:
    """A network camera as `open_sources` opens it, with sound of its own or none."""

    opened: ClassVar[list["WithSound"]] = []

    def __init__(self, spec: str, **asked: Any) -> None:
        self.name = spec
        has_sound = asked.get("sound", False) and "silent" not in spec
        self.sound_rate_hz = 16_000 if has_sound else None
        self.left = False
        self.opened.append(self)

    def leave_sound(self) -> None:
        self.left, self.sound_rate_hz = True, None

    def stop(self, timeout_s: float = 0.0) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(
    ("cameras", "mic", "own"),
    [
        (("rtsp://a", "rtsp://b"), None, True),
        (("rtsp://a", "rtsp://b"), "camera", True),
        (("rtsp://a", "rtsp://silent"), None, False),
        (("rtsp://a", "0"), None, False),
        (("rtsp://a", "rtsp://b"), "hw:1", False),
        (("rtsp://a",), None, True),
    ],
)
def test_cameras_have_their_own_sound_where_all_have_some(
    monkeypatch: pytest.MonkeyPatch, cameras: tuple[str, ...], mic: str | None, own: bool
) -> None:
    monkeypatch.setattr(sources_open, "Camera", WithSound)
    monkeypatch.setattr(sources_open, "Microphone", lambda name: name)
    WithSound.opened.clear()
    options = SourceOptions(cameras=cameras, mic=mic)
    opened = open_sources(options)
    assert opened[: len(cameras)] == WithSound.opened
    assert opened[len(cameras) :] == ([] if own else [mic or "default"])
    assert all(camera.left != own for camera in WithSound.opened)
    assert most_microphones(options) >= (len(cameras) if own else 1)


def test_one_without_sound_is_named_where_each_should_have_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sources_open, "Camera", WithSound)
    options = SourceOptions(cameras=("rtsp://a", "rtsp://silent"), mic="camera")
    with pytest.raises(SourceError, match="camera rtsp://silent sends no sound"):
        open_sources(options)


class Shared:
    """The microphone of this machine."""

    overflows = not_finite = 0

    def __init__(self, name: str) -> None:
        self.name = name

    def stop(self, timeout_s: float = 0.0) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(
    ("cameras", "mic", "gives_sound"),
    [
        (("browser",), None, True),
        (("browser",), "none", False),
        (("rtsp://a", "browser", "rtsp://b"), None, True),
        (("rtsp://a", "browser"), "default", False),
        (("browser", "rtsp://silent"), None, False),
        (("browser", "rtsp://a"), "none", False),
    ],
)
def test_a_browser_beside_others_has_its_place_and_gives_sound_where_each_has_its_own(
    monkeypatch: pytest.MonkeyPatch, cameras: tuple[str, ...], mic: str | None, gives_sound: bool
) -> None:
    monkeypatch.setattr(sources_open, "Camera", WithSound)
    monkeypatch.setattr(sources_open, "Microphone", Shared)
    options = SourceOptions(cameras=cameras, mic=mic)
    browser, sources = _open_live(options, None, SourceHealth(lambda _: None), Stats())
    assert browser is not None
    assert browser is sources[cameras.index("browser")]
    assert browser.audio == gives_sound
    several = len(cameras) > 1
    assert _have_own_microphones(options, sources) == (several and gives_sound)
    got = Collector()
    browser.start(got)
    browser.frame(PICTURE, 1.0)
    assert [frame.camera for frame in got.frames] == [cameras.index("browser")]
    for source in sources:
        source.stop()


def test_two_browsers_are_refused() -> None:
    options = SourceOptions(cameras=("browser", "browser"))
    with pytest.raises(UsageError, match="one browser"):
        _open_live(options, None, SourceHealth(lambda _: None), Stats())
