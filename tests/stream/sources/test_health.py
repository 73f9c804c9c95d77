"""What is said of sources, and what a heatmap is worth while one is at fault."""

from dataclasses import replace

import numpy as np
import pytest

from denseav.stream.display.hud import Hud, marked_stale
from denseav.stream.errors import without_secrets
from denseav.stream.sources.health import Kind, SourceHealth, SourceState, State
from denseav.stream.stats.stats import Stats
from denseav.stream.types import Frame, Heatmap


def state(kind: Kind, now: State, since_s: float, reason: str = "") -> SourceState:
    return SourceState(kind=kind, name="x", state=now, since_s=since_s, reason=reason)


def heatmap(capture_s: float, audio_start_s: float | None) -> Heatmap:
    frame = Frame(np.zeros((4, 4, 3), np.uint8), 0, capture_s)
    end_s = None if audio_start_s is None else audio_start_s + 0.4
    heat_KHW = np.ones((2, 2, 2), np.float32)
    return Heatmap(frame, heat_KHW, (True, False), audio_start_s, end_s, -20.0, capture_s)


def test_each_change_is_one_line_and_a_beginning_none() -> None:
    lines: list[str] = []
    health = SourceHealth(lines.append)
    health.enter(state("camera", State.OPENING, 1.0))
    health.enter(state("camera", State.RUNNING, 2.0))
    assert lines == []
    health.enter(state("camera", State.STALLED, 3.0, "camera x has stalled"))
    health.enter(state("camera", State.LOST, 4.0, "camera x gives nothing"))
    health.enter(state("camera", State.RUNNING, 6.5))
    assert lines == [
        "camera x has stalled",
        "camera x gives nothing",
        "camera x is back after 2.5 s",
    ]


def test_a_source_that_never_began_is_told() -> None:
    lines: list[str] = []
    health = SourceHealth(lines.append)
    health.enter(state("microphone", State.OPENING, 1.0))
    health.enter(state("microphone", State.LOST, 4.0, "microphone x gives nothing"))
    assert lines == ["microphone x gives nothing"]


def test_without_devices_every_heatmap_is_honest() -> None:
    asked = heatmap(1.0, 0.5)
    assert SourceHealth(print).honest(asked) is asked


@pytest.mark.parametrize("fault", [State.OPENING, State.STALLED, State.LOST])
def test_no_heatmap_while_the_camera_is_at_fault_nor_from_before(fault: State) -> None:
    health = SourceHealth(lambda _: None)
    health.enter(state("camera", fault, 5.0))
    assert health.honest(heatmap(6.0, 5.5)) is None
    health.enter(state("camera", State.RUNNING, 7.0))
    assert health.honest(heatmap(6.9, 6.0)) is None
    assert health.honest(heatmap(7.0, 6.0)) is not None


@pytest.mark.parametrize("fault", [State.STALLED, State.LOST, State.MUTED])
def test_no_head_is_valid_while_the_microphone_is_at_fault_nor_from_before(fault: State) -> None:
    health = SourceHealth(lambda _: None)
    health.enter(state("microphone", State.RUNNING, 1.0))
    asked = heatmap(6.0, 5.5)
    assert health.honest(asked) is asked
    health.enter(state("microphone", fault, 5.9))
    shown = health.honest(asked)
    assert shown is not None
    assert shown.valid_K == (False, False)
    assert shown.heat_KHW is asked.heat_KHW
    health.enter(state("microphone", State.RUNNING, 8.0))
    before, after = health.honest(heatmap(8.3, 7.95)), health.honest(heatmap(8.5, 8.0))
    assert before is not None
    assert after is not None
    assert (before.valid_K, after.valid_K) == ((False, False), (True, False))


def test_a_constant_offset_of_the_sound_is_thought_of() -> None:
    health = SourceHealth(lambda _: None)
    health.enter(state("microphone", State.RUNNING, 8.0))
    shown = health.honest(heatmap(8.5, 7.9), av_offset_s=0.1)
    assert shown is not None
    assert shown.valid_K == (True, False)


def test_words_and_report_say_for_how_long() -> None:
    health = SourceHealth(lambda _: None)
    lost = replace(state("camera", State.LOST, 5.0), losses=2)
    health.enter(lost)
    assert lost.words(8.2) == "x: lost for 3 s"
    assert state("camera", State.RUNNING, 5.0).words(9.0) == "x"
    (found,) = health.report()
    assert (found["source"], found["state"], found["losses"]) == ("camera", "lost", 2)


@pytest.mark.parametrize(
    "text",
    [
        "camera rtsp://me:s3cret@cam/live cannot",
        "unrecognized arguments: rtsp://me:a s3cret@cam/live",
        "http://a:p@s3cret@cam/v?key=s3cret#s3cret (no)",
        "rtsp://me:s3cret@cam/1 and rtsp://me:s3cret@cam/2",
    ],
)
def test_no_message_keeps_a_secret(text: str) -> None:
    shown = without_secrets(text)
    assert "s3cret" not in shown
    assert "cam" in shown


def test_a_message_without_secrets_stays() -> None:
    text = "publishing heatmaps at tcp://127.0.0.1:5557; see: denseav-live --help"
    assert without_secrets(text) == text


def test_the_hud_begins_with_what_is_wrong() -> None:
    states = [state("camera", State.RUNNING, 1.0), state("microphone", State.MUTED, 1.0)]
    stats = Stats()
    faulty, well = np.zeros((2, 480, 640, 3), np.uint8)
    Hud("cpu", "fp32", ["x", "x"], lambda: states).draw(faulty, stats.snapshot())
    Hud("cpu", "fp32", ["x", "x"], lambda: states[:1]).draw(well, stats.snapshot())
    assert np.count_nonzero(faulty) > np.count_nonzero(well) > 0


def test_a_stale_picture_is_dark_and_the_canvas_stays() -> None:
    canvas = np.full((480, 640, 3), 240, np.uint8)
    stale = marked_stale(canvas, "camera 0: lost for 3 s")
    assert (canvas == 240).all()
    assert np.median(stale) == 80
    assert (stale > 200).sum() > 100  # the words
