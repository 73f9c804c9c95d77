"""Thresholds and the energy floor of a run, set and learned while it goes on."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from denseav.stream.app.tuning import LEARNING_S, Tuning
from denseav.stream.display.heat_scale import Scale
from denseav.stream.inference.pipeline import Pipeline
from denseav.stream.types import Frame, Heatmap
from tests.support.fake_session import FakeSession, fake_manifest

MANIFEST = fake_manifest()
NAME = MANIFEST.heads[1].name


class Rig:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.pipeline = Pipeline(FakeSession(), MANIFEST)
        self.scale = Scale(MANIFEST.heads)
        self.tuning = Tuning(MANIFEST, self.pipeline, [self.scale.settle], self.said.append)

    def shown(self, time_s: float, rms_dbfs: float, heat: float) -> None:
        frame = Frame(np.zeros((4, 4, 3), np.uint8), 0, time_s)
        heat_KHW = np.full((2, 3, 4), heat, np.float32)
        self.tuning.heatmap(
            Heatmap(frame, heat_KHW, (True, True), time_s - 0.2, time_s, rms_dbfs, time_s)
        )


def test_a_threshold_and_the_floor_are_set_at_once_and_the_ceiling_moves_along() -> None:
    rig = Rig()
    apart_K = rig.scale.ceilings - rig.scale.thresholds
    rig.tuning.wish({"threshold": {"head": NAME, "heat": 2.5}})
    rig.tuning.wish({"floor_dbfs": -33})
    assert rig.scale.thresholds.tolist() == [np.float32(MANIFEST.heads[0].threshold), 2.5]
    assert rig.scale.ceilings - rig.scale.thresholds == pytest.approx(apart_K)
    assert rig.pipeline.energy_floor_dbfs == -33
    state = rig.tuning.state()
    assert state["thresholds"][1] == 2.5
    assert state["floor_dbfs"] == -33
    rig.tuning.wish({"do": "reset"})
    assert rig.pipeline.energy_floor_dbfs == MANIFEST.audio.energy_floor_dbfs
    assert rig.scale.thresholds[1] == np.float32(MANIFEST.heads[1].threshold)


def test_the_room_is_learned_while_it_is_shown() -> None:
    rig = Rig()
    rig.shown(0.0, -10.0, 90.0)  # before it was asked for
    rig.tuning.wish({"do": "learn"})
    for step in range(int(LEARNING_S * 10) + 1):
        assert rig.tuning.state()["learning"]
        rig.shown(1 + step / 10, -40.0, 20.0)
    state = rig.tuning.state()
    assert not state["learning"]
    assert state["floor_dbfs"] == pytest.approx(-34.0)
    assert state["thresholds"] == [20.0, 20.0]
    assert "noise is -40.0 dBFS" in state["room"]
    assert rig.said == [state["room"]]
    rig.shown(9.0, -10.0, 90.0)  # nothing more is learned
    assert rig.tuning.state() == state


@pytest.mark.parametrize(
    "wish",
    [
        {},
        {"do": "quit"},
        {"threshold": {"head": "none", "heat": 1.0}},
        {"threshold": {"head": NAME, "heat": float("nan")}},
        {"threshold": {"head": NAME, "heat": "1"}},
        {"threshold": 1},
        {"floor_dbfs": 1},
        {"floor_dbfs": float("nan")},
        {"floor_dbfs": None},
    ],
)
def test_what_cannot_be_set_changes_nothing(wish: Mapping[str, Any]) -> None:
    rig = Rig()
    before = rig.tuning.state()
    rig.tuning.wish(wish)
    assert rig.tuning.state() == before
    assert len(rig.said) == 1
