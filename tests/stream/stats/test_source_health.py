"""What is said of sources, and since when what they give is good."""

from dataclasses import replace

import numpy as np
import pytest

from denseav.stream.display.hud import Hud, marked_stale
from denseav.stream.stats.source_health import Kind, SourceHealth, SourceState, State
from denseav.stream.stats.stats import Stats


def state(kind: Kind, now: State, since_s: float, reason: str = "") -> SourceState:
    return SourceState(kind=kind, name="x", state=now, since_s=since_s, reason=reason)


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


def test_a_source_is_back_no_earlier_than_it_was_lost() -> None:
    lines: list[str] = []
    health = SourceHealth(lines.append)
    health.enter(state("microphone", State.LOST, 20.0, "microphone x gives nothing"))
    health.enter(state("microphone", State.RUNNING, 7.4))  # what had waited was captured before
    assert lines[-1] == "microphone x is back after 0.0 s"
    assert health.running_since_s("microphone") == 20.0


def test_a_source_that_never_began_is_told() -> None:
    lines: list[str] = []
    health = SourceHealth(lines.append)
    health.enter(state("microphone", State.OPENING, 1.0))
    health.enter(state("microphone", State.LOST, 4.0, "microphone x gives nothing"))
    assert lines == ["microphone x gives nothing"]


def test_without_devices_all_has_been_good_for_ever() -> None:
    assert SourceHealth(print).running_since_s("camera") == float("-inf")


@pytest.mark.parametrize("kind", ["camera", "microphone"])
@pytest.mark.parametrize("fault", [State.OPENING, State.STALLED, State.LOST, State.MUTED])
def test_nothing_is_good_while_a_source_is_at_fault_nor_from_before(
    kind: Kind, fault: State
) -> None:
    health = SourceHealth(lambda _: None)
    health.enter(state(kind, State.RUNNING, 1.0))
    assert health.running_since_s(kind) == 1.0
    health.enter(state(kind, fault, 5.9))
    assert health.running_since_s(kind) is None
    health.enter(state(kind, State.RUNNING, 8.0))
    assert health.running_since_s(kind) == 8.0


def test_words_and_report_say_for_how_long() -> None:
    health = SourceHealth(lambda _: None)
    lost = replace(state("camera", State.LOST, 5.0), losses=2)
    health.enter(lost)
    assert lost.words(8.2) == "x: lost for 3 s"
    assert state("camera", State.RUNNING, 5.0).words(9.0) == "x"
    (found,) = health.report()
    assert (found["source"], found["state"], found["losses"]) == ("camera", "lost", 2)


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
