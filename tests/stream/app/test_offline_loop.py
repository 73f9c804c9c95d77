"""The offline loop: every frame once, in order, and with the sound that was asked for."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from denseav.stream.app.offline_loop import run_offline
from denseav.stream.inference.hop_controller import HOP_TOKENS_MAX, HopController
from denseav.stream.inference.pipeline import Pipeline
from denseav.stream.inference.sync_policy import Sync
from denseav.stream.sources.media_file import Clip
from denseav.stream.stats.stats import Stats
from denseav.stream.types import AudioBlock, Frame, Heatmap
from tests.support.fake_session import FakeSession, fake_manifest
from tests.support.live_command import live
from tests.support.media import grey, tone, write_clip


class Shown:
    """A view that keeps all."""

    quit_asked = wants_features = False

    def __init__(self) -> None:
        self.heatmaps: list[Heatmap] = []
        self.blocks: list[AudioBlock] = []

    def audio(self, block: AudioBlock) -> None:
        self.blocks.append(block)

    def show(self, heatmap: Heatmap) -> None:
        self.heatmaps.append(heatmap)

    def poll(self, fault: str | None = None) -> None:
        """Look away."""


def images(count: int) -> Iterator[np.ndarray]:
    return (grey(index % 250) for index in range(count))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """Three seconds at 25 frames a second."""
    path = tmp_path_factory.mktemp("clips") / "clip.mov"
    return Clip(write_clip(path, images(75), tone(48_000, 3.0)))


def run(clip: Clip, exact: bool, av_offset_s: float = 0.0, **options: int) -> Shown:
    view, stats = Shown(), Stats()
    sync = Sync(exact=exact, **options)
    manifest = fake_manifest(tokens=sync.lookahead + HOP_TOKENS_MAX)
    pipeline = Pipeline(FakeSession(), manifest, sync=sync)
    run_offline(clip, pipeline, view, stats, stop=threading.Event(), av_offset_s=av_offset_s)
    assert [heatmap.frame.index for heatmap in view.heatmaps] == list(range(len(view.heatmaps)))
    return view


def skews_s(view: Shown) -> list[float]:
    return [h.skew_s for h in view.heatmaps if h.skew_s is not None]


def test_latest_takes_the_sound_before_each_frame(clip: Clip) -> None:
    view = run(clip, exact=False)
    assert len(view.heatmaps) == 75
    assert all(-0.24 < skew_s <= 0 for skew_s in skews_s(view))
    assert len(skews_s(view)) >= 68


@pytest.mark.parametrize("lookahead", [0, 2])
def test_exact_takes_the_sound_around_each_frame(clip: Clip, lookahead: int) -> None:
    view = run(clip, exact=True, lookahead=lookahead)
    assert len(view.heatmaps) == 75
    assert all(-1e-3 <= skew_s <= 0.186 for skew_s in skews_s(view))
    # Only the clip's end lacks the tokens that would cover its last frames.
    unheard = [h.frame.index for h in view.heatmaps if h.skew_s is None]
    assert unheard == list(range(75 - len(unheard), 75))
    assert len(unheard) <= 25 * 0.18 * (1 + lookahead) + 2


def test_an_offset_is_taken_off_the_sound_and_its_recording(clip: Clip) -> None:
    plain, moved = run(clip, exact=False), run(clip, exact=False, av_offset_s=0.3)
    assert np.median(skews_s(moved)) - np.median(skews_s(plain)) == pytest.approx(-0.3, abs=1e-3)
    assert moved.blocks[0].capture_s == pytest.approx(plain.blocks[0].capture_s - 0.3)


@pytest.mark.parametrize(("fps", "lookahead"), [(60, 6), (30, 11), (120, 0)])
def test_exact_compares_every_frame_whatever_the_rate_and_the_look_ahead(
    tmp_path: Path, fps: int, lookahead: int
) -> None:
    path = write_clip(tmp_path / "clip.mov", images(4 * fps), tone(48_000, 4.0), fps=fps)
    view, sync = Shown(), Sync(exact=True, lookahead=lookahead)
    manifest = fake_manifest(tokens=lookahead + HOP_TOKENS_MAX)
    pipeline = Pipeline(FakeSession(), manifest, sync=sync)
    run_offline(Clip(path), pipeline, view, Stats(), stop=threading.Event())
    assert [h.frame.index for h in view.heatmaps] == list(range(4 * fps))
    compared = [h.frame.index for h in view.heatmaps if h.skew_s is not None]
    assert compared == list(range(len(compared)))
    assert len(compared) >= fps * (4 - 0.18 * (1 + lookahead) - 0.2)


@pytest.mark.parametrize("exact", [False, True])
def test_frames_after_the_sounds_end_do_not_pile_up(tmp_path: Path, exact: bool) -> None:
    clip = Clip(write_clip(tmp_path / "clip.mov", images(250), tone(48_000, 1.0)))
    held, view = [], Shown()
    pipeline = Pipeline(FakeSession(), fake_manifest(), sync=Sync(exact=exact))

    class Counting(Stats):
        def frame_in(self) -> None:
            super().frame_in()
            held.append(len(held) - len(view.heatmaps))

    run_offline(clip, pipeline, view, Counting(), stop=threading.Event())
    assert len(view.heatmaps) == 250
    assert set(held) == {0}


class EveryToken(HopController):
    """However slow this machine is."""

    def note_audio_pass(self, seconds: float, microphone: int = 0) -> None:
        pass


def test_offline_gives_the_very_heat_that_live_gives(clip: Clip) -> None:
    """The same file through the live pipeline, each token encoded, and through the command's."""
    session, offline = FakeSession(), FakeSession()
    live = Pipeline(session, fake_manifest(), hop_controller=EveryToken())
    heats = []
    for item in clip:
        if isinstance(item, Frame):
            heats.append(live.heatmap(item).heat_KHW)
        else:
            live.push(item)
            live.encode_audio()
    view = Shown()
    plain = Pipeline(offline, fake_manifest())
    run_offline(clip, plain, view, Stats(), stop=threading.Event())
    np.testing.assert_array_equal([h.heat_KHW for h in view.heatmaps], heats)
    assert offline.deviations == session.deviations
    assert min(offline.deviations) >= 10 ** (-40 / 20)  # 20 dB above the floor: as live


def test_the_command_reports_the_skew(tmp_path: Path, clip: Clip) -> None:
    arguments = ("--offline", "--headless", "--source", clip.path, "--sync", "exact")
    ran = live(tmp_path, *arguments, "--stats-json", "stats.json")
    assert ran.returncode == 0, ran.stderr
    report = json.loads((tmp_path / "stats.json").read_text().splitlines()[-1])
    assert report["frames_out"] == 75
    assert 0 <= report["av_skew_ms"]["p5"] < report["av_skew_ms"]["p95"] <= 186
