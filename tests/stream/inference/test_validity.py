"""One function says whether a head is valid, and everything that shows heat keeps to it."""

import threading
from pathlib import Path

import numpy as np
import pytest

from denseav.export.runtime.bundle import Head
from denseav.stream.app.build import _audio_good_since
from denseav.stream.app.live_loop import LiveRun
from denseav.stream.display.heat_scale import Scale
from denseav.stream.feed.message import Origin, heat_fields
from denseav.stream.inference.pipeline import Pipeline
from denseav.stream.inference.validity import AUDIO_AGE_MAX_S, TokenAudio, valid_heads
from denseav.stream.stats.source_health import SourceHealth, SourceState, State
from denseav.stream.stats.stats import Stats
from denseav.stream.types import AudioBlock, Frame, Heatmap
from tests.support.fake_session import FakeSession, fake_manifest

PICTURE = np.full((48, 64, 3), 200, np.uint8)
ALL_GOOD = {
    "start_s": 9.6,
    "end_s": 9.8,
    "rms_dbfs": -20.0,
    "capture_s": 10.0,
    "good_since_s": float("-inf"),
}


def valid(heat_KHW: np.ndarray | None = None, **changes: float | None) -> tuple[bool, ...]:
    case = ALL_GOOD | changes
    audio = TokenAudio(**{name: case.pop(name) for name in ("start_s", "end_s", "rms_dbfs")})
    heat_KHW = np.ones((2, 2, 3), np.float32) if heat_KHW is None else heat_KHW
    return valid_heads(heat_KHW, audio, energy_floor_dbfs=-60.0, **case)


def test_with_loud_fresh_unbroken_audio_and_finite_heat_every_head_is_valid() -> None:
    assert valid() == (True, True)


@pytest.mark.parametrize(
    "changes",
    [
        {"rms_dbfs": -60.0},
        {"rms_dbfs": float("nan")},
        {"capture_s": 9.8 + AUDIO_AGE_MAX_S + 0.01},
        {"good_since_s": None},
        {"good_since_s": 9.61},
    ],
    ids=["quiet", "no loudness", "old", "no microphone", "from before a fault"],
)
def test_each_reason_alone_makes_no_head_valid(changes: dict[str, float | None]) -> None:
    assert valid(**changes) == (False, False)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_head_whose_heat_is_not_finite_is_not_valid_and_the_other_is(broken: float) -> None:
    heat_KHW = np.ones((2, 2, 3), np.float32)
    heat_KHW[1, 0, 2] = broken
    assert valid(heat_KHW) == (True, False)


class Broken(FakeSession):
    """Gives heat that is no number."""

    def heatmap(self, image: float, audio: np.ndarray, token: int) -> np.ndarray:
        return super().heatmap(image, audio, token) * np.float32(np.nan)


def made(session: FakeSession, audio_age_s: float) -> Heatmap:
    pipeline = Pipeline(session, fake_manifest())
    pipeline.push(AudioBlock(np.full((16_000, 1), 0.5, np.float32), 16_000, 0, 100.0))
    assert pipeline.encode_audio()
    newest = pipeline.audio[0].newest
    assert newest is not None
    end_s = pipeline.audio[0].time_of(185 * 16 + (newest.stop - 1) * 2880)
    return pipeline.heatmap(Frame(PICTURE, 0, end_s + audio_age_s))


@pytest.mark.parametrize(
    ("session", "audio_age_s", "shown"),
    [(FakeSession(), 0.5, True), (FakeSession(), 1.5, False), (Broken(), 0.5, False)],
    ids=["fresh", "old", "no number"],
)
def test_screen_recording_and_feed_agree(
    session: FakeSession, audio_age_s: float, shown: bool
) -> None:
    """What is drawn is the scale's strength, on the screen and in a recording alike."""
    heads = tuple(Head(name=name, threshold=0.1, ceiling=1.0) for name in ("speech", "sound"))
    heatmap = made(session, audio_age_s)
    strength_KHW = Scale(heads).strength(heatmap)
    origin = Origin(camera_id="c", heads=heads, model="m", backend="b", precision="p")
    fields, _ = heat_fields(origin, heatmap, {})
    assert strength_KHW.any() == shown
    assert [head["valid"] for head in fields["heads"]] == [shown, shown]


def test_a_constant_offset_of_the_audio_is_taken_off_the_fault_too() -> None:
    health = SourceHealth(lambda _: None)
    assert _audio_good_since(health, 0.1, 0) == float("-inf")
    for now, since_s in ((State.RUNNING, 7.9), (State.LOST, None)):
        health.enter(SourceState(kind="microphone", name="x", state=now, since_s=8.0))
        found_s = _audio_good_since(health, 0.1, 0)
        assert found_s == (None if since_s is None else pytest.approx(since_s))


class Shown:
    """A view that keeps all."""

    quit_asked = wants_features = False

    def __init__(self) -> None:
        self.heatmaps: list[Heatmap] = []

    def show(self, heatmap: Heatmap) -> None:
        self.heatmaps.append(heatmap)

    def poll(self, fault: str | None = None) -> None:
        """Look away."""


class Lost:
    """A camera that gives a frame from before its fault, and one from after it."""

    name = "camera"

    def start(self, receiver: LiveRun) -> None:
        def give() -> None:
            for capture_s in (4.9, 5.0):
                receiver.frame(Frame(PICTURE, 0, capture_s))
                threading.Event().wait(0.3)
            receiver.ended(None)

        threading.Thread(target=give).start()

    def stop(self) -> None:
        """Be gone."""


@pytest.mark.parametrize("fault", [State.OPENING, State.STALLED, State.LOST, None])
def test_no_heatmap_of_a_frame_from_before_the_cameras_fault_or_while_it_is(
    fault: State | None, tmp_path: Path
) -> None:
    health, view, stats = SourceHealth(lambda _: None), Shown(), Stats()
    now = State.RUNNING if fault is None else fault
    health.enter(SourceState(kind="camera", name="x", state=now, since_s=5.0))
    pipeline = Pipeline(FakeSession(), fake_manifest())
    stop = threading.Event()
    LiveRun([Lost()], pipeline, view, stats, stop=stop, health=health).run()  # type: ignore[arg-type,list-item]
    assert [h.frame.capture_s for h in view.heatmaps] == ([5.0] if fault is None else [])
    assert stats.snapshot().drops["camera_lost"] == (1 if fault is None else 2)
