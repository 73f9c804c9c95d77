"""The live run: bounded whatever is slow, whole whatever fails."""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from denseav.export.runtime.bundle import TOKEN_HOP_SAMPLES, TOKEN_SPAN_SAMPLES, BundleError
from denseav.stream.app.live_loop import LiveRun
from denseav.stream.display.hud import hud_rows
from denseav.stream.errors import SourceError, StreamError
from denseav.stream.inference.hop_controller import HopController
from denseav.stream.inference.pipeline import Pipeline
from denseav.stream.inference.sync_policy import Sync
from denseav.stream.stats.stats import Stats
from denseav.stream.types import AudioBlock, Frame, Heatmap
from tests.support.fake_session import FakeSession, fake_manifest
from tests.support.fakes import FakeCamera, FakeMicrophone
from tests.support.stalls import thrice, until, until_threads

pytestmark = pytest.mark.realtime

PICTURE = np.zeros((48, 64, 3), dtype=np.uint8)


class Shown:
    """A view that keeps what it is shown, as slowly as told."""

    def __init__(self, show_s: float = 0.0) -> None:
        self.quit_asked = False
        self.heatmaps: list[Heatmap] = []
        self.polls = 0
        self.wants_features = False
        self.blocks: list[AudioBlock] = []
        self._show_s = show_s

    def audio(self, block: AudioBlock) -> None:
        self.blocks.append(block)

    def show(self, heatmap: Heatmap) -> None:
        time.sleep(self._show_s)
        self.heatmaps.append(heatmap)

    def poll(self, fault: str | None = None) -> None:
        self.polls += 1


class Rig:
    """A live run over fakes; `feed` gives frames and sound at their times from another thread."""

    def __init__(
        self,
        session: FakeSession,
        show_s: float = 0.0,
        av_offset_s: float = 0.0,
        **options: Any,
    ) -> None:
        self.session = session
        self.camera, self.microphone = FakeCamera(), FakeMicrophone()
        self.view, self.stats, self.stop = Shown(show_s), Stats(), threading.Event()
        self.pipeline = Pipeline(session, fake_manifest(), **options)
        self.run = LiveRun(
            [self.camera, self.microphone],
            self.pipeline,
            self.view,
            self.stats,
            stop=self.stop,
            av_offset_s=av_offset_s,
        )

    def feed(self, seconds: float, fps: float = 100.0, answered: bool = False) -> None:
        """Give what so many seconds bring; `answered`, each when the one before was answered."""
        start_s = time.monotonic()
        wave_SC = np.full((round(16_000 / fps), 1), 0.5, dtype=np.float32)
        for index in range(round(seconds * fps)):
            due_s = start_s + index / fps
            time.sleep(max(0.0, due_s - time.monotonic()))
            self.camera.give(np.full_like(PICTURE, index % 250), time.monotonic())
            self.microphone.give(wave_SC, due_s)  # a microphone counts
            if answered:
                hops = 1 + (self.microphone.samples - TOKEN_SPAN_SAMPLES) // TOKEN_HOP_SAMPLES
                until(lambda shown=index: len(self.view.heatmaps) > shown)
                until(lambda due=hops: len(self.session.windows) >= due)

    def go(self, act: Callable[[], None]) -> dict[str, int]:
        """Run while `act` acts, then return the drops by cause."""

        def acting() -> None:
            until(lambda: bool(self.camera.receiver and self.microphone.receiver))
            act()
            self.camera.end()

        actor = threading.Thread(target=acting)
        actor.start()
        try:
            self.run.run()
        finally:
            actor.join()
        drops: dict[str, int] = self.report()["drops"]
        return drops

    def report(self) -> dict[str, Any]:
        return self.stats.report(backend="", precision="", model="", trained=False)


def test_nothing_is_dropped_when_everything_is_fast() -> None:
    rig = Rig(FakeSession())
    drops = rig.go(lambda: rig.feed(0.5, fps=20, answered=True))
    assert [heatmap.frame.index for heatmap in rig.view.heatmaps] == list(range(10))
    assert sum(drops.values()) == 0
    assert rig.report()["frames_in"] == 10
    assert rig.report()["audio_hops"] == 2
    assert any(heatmap.valid_K == (True, True) for heatmap in rig.view.heatmaps)


def test_a_slow_model_drops_frames_and_always_takes_the_newest() -> None:
    rig = Rig(FakeSession(image_s=0.1))
    drops = rig.go(lambda: rig.feed(1.5))
    shown = len(rig.view.heatmaps)
    assert 2 <= shown <= 75
    assert drops["model_busy"] + drops.get("sink_busy", 0) == 150 - shown
    waited_s = [heatmap.ready_s - heatmap.frame.capture_s for heatmap in rig.view.heatmaps]
    assert np.median(waited_s) < 0.18 + 0.1 + 0.1  # a hop, a frame of the slow stage, the machine's


def test_a_slow_sink_drops_heatmaps_and_always_takes_the_newest() -> None:
    rig = Rig(FakeSession(), show_s=0.1)
    drops = rig.go(lambda: rig.feed(1.5))
    shown = [heatmap.frame.index for heatmap in rig.view.heatmaps]
    assert shown == sorted(shown)
    assert drops["sink_busy"] + drops.get("model_busy", 0) == 150 - len(shown)
    assert len(shown) <= 75


@thrice
def test_a_slow_audio_pass_skips_hops_and_does_not_hold_frames_up() -> None:
    rig = Rig(FakeSession(audio_s=0.5))
    drops = rig.go(lambda: rig.feed(2.0, fps=50))
    assert len(rig.view.heatmaps) >= 30
    assert drops["hop_skipped"] == rig.pipeline.hops_skipped >= 2
    heard = [heatmap for heatmap in rig.view.heatmaps if heatmap.audio_end_s is not None]
    ages_s = [heatmap.frame.capture_s - heatmap.audio_end_s for heatmap in heard]
    assert np.median(ages_s) < 0.18 + 0.5 + 0.5 + 0.2


@thrice
def test_too_slow_for_frames_the_hop_gives_way_and_the_screen_says_so() -> None:
    rig = Rig(FakeSession(image_s=0.3, audio_s=0.12), hop_controller=HopController())
    rig.go(lambda: rig.feed(4.0, fps=50))
    snapshot = rig.stats.snapshot()
    rows = dict(hud_rows(snapshot))
    hop_ms = snapshot.gauges["hop_ms"]
    assert hop_ms in (360, 720)
    assert rows["frames"].endswith("fps, too slow for more")
    assert rows["sound"].endswith(f"every {hop_ms:.0f} ms: too slow for more")


@thrice
def test_fast_enough_nothing_gives_way_and_the_screen_says_how_far_sound_and_picture_are() -> None:
    rig = Rig(FakeSession(), hop_controller=HopController())
    rig.go(lambda: rig.feed(3.0, fps=20, answered=True))
    rows = dict(hud_rows(rig.stats.snapshot()))
    assert "too slow" not in f"{rows}"
    skew_ms = rig.report()["av_skew_ms"]
    assert -400 < skew_ms["p50"] < 0
    assert f"{rig.stats.snapshot().av_skew_ms:+.0f} ms to its picture" in rows["sound"]


@thrice
def test_exact_frames_meet_the_sound_of_their_own_moment_however_slow_the_audio_pass() -> None:
    rig = Rig(FakeSession(audio_s=0.25), sync=Sync(exact=True))
    rig.go(lambda: rig.feed(2.5, fps=30))
    heard = [h for h in rig.view.heatmaps if h.skew_s is not None]
    assert len(heard) > 10
    assert all(-0.002 <= heatmap.skew_s <= 0.187 for heatmap in heard)


@pytest.mark.parametrize("offset_s", [0.3, -0.1])
def test_a_known_offset_is_taken_off_the_times_of_sound(offset_s: float) -> None:
    rig = Rig(FakeSession(), av_offset_s=offset_s)
    rig.run.audio(AudioBlock(np.full((16_000, 1), 0.5, np.float32), 16_000, 0, 100.0))
    rig.pipeline.encode_audio()
    heatmap = rig.pipeline.heatmap(Frame(PICTURE, 0, 101.0))
    assert -0.181 <= heatmap.skew_s + offset_s <= 0
    assert [block.capture_s for block in rig.view.blocks] == [pytest.approx(100.0 - offset_s)]


def test_a_source_that_fails_ends_the_run_with_its_error() -> None:
    rig = Rig(FakeSession())
    with pytest.raises(SourceError, match="unplugged"):
        rig.go(lambda: rig.camera.end(SourceError("camera 0 was unplugged")))
    assert rig.camera.stops >= 1
    assert rig.microphone.stops >= 1


def test_a_model_that_fails_ends_the_run_with_its_error() -> None:
    session = FakeSession()
    session.failure = BundleError("out of memory")
    rig = Rig(session)
    with pytest.raises(BundleError, match="out of memory"):
        rig.go(lambda: rig.feed(0.2))
    assert rig.camera.stops >= 1


@pytest.mark.parametrize("failure", [RuntimeError("ORT: Fail"), MemoryError("no page left")])
def test_what_a_pass_raises_that_nobody_foresaw_is_one_line(failure: Exception) -> None:
    session = FakeSession()
    session.failure = failure
    rig = Rig(session)
    with pytest.raises(StreamError, match=rf"pass failed \({type(failure).__name__}: {failure}\)"):
        rig.go(lambda: rig.feed(0.2))
    assert rig.camera.stops >= 1


def test_stop_ends_the_run_at_once_and_leaves_no_thread() -> None:
    before = threading.enumerate()
    rig = Rig(FakeSession())

    def act() -> None:
        rig.feed(0.1)
        rig.stop.set()

    rig.go(act)
    until_threads(before)


def test_a_person_can_quit() -> None:
    rig = Rig(FakeSession())

    def act() -> None:
        rig.feed(0.1)
        rig.view.quit_asked = True
        rig.feed(0.3)

    rig.go(act)
    assert len(rig.view.heatmaps) < 40


def test_a_run_ends_after_its_seconds() -> None:
    rig = Rig(FakeSession())
    rig.run._seconds = 1.0
    rig.go(lambda: rig.feed(2.0))
    assert 0 < len(rig.view.heatmaps) < 180


def test_the_window_is_kept_alive_while_nothing_comes() -> None:
    rig = Rig(FakeSession())
    rig.go(lambda: until(lambda: rig.view.polls >= 3))


def test_readiness_is_asked_with_each_heatmap_until_it_is_there() -> None:
    rig = Rig(FakeSession())
    asked: list[Heatmap] = []

    def ready(heatmap: Heatmap) -> bool:
        asked.append(heatmap)
        return heatmap.audio_end_s is not None

    rig.run._ready = ready
    rig.go(lambda: rig.feed(0.6, fps=50, answered=True))
    assert [heatmap.audio_end_s is None for heatmap in asked[:-1]] == [True] * (len(asked) - 1)
    assert len(asked) > 1
    assert asked[-1].audio_end_s is not None
