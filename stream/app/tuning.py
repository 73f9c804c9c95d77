"""Thresholds and energy floor of a run, set while it runs: wishes and heatmaps in, settings out.

The room can be learned too: some seconds in which nobody makes a sound, seen as they are shown. A
room only ever makes a run more careful than it began. What is set counts for all that is shown and
recorded and published, and for which heads are valid. Called on the thread that shows; `state` from
any.
"""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

from denseav.export.runtime.bundle import Head, Manifest
from denseav.stream.app.sinks import Say
from denseav.stream.calibration.room_noise import RoomNoise, with_settings, words_of_room
from denseav.stream.inference.pipeline import Pipeline
from denseav.stream.types import Heatmap

LEARNING_S = 5.0
FLOOR_DBFS = (-120.0, 0.0)
HEAT_MAX = 1e6


class Tuning:
    """What may be set of a run while it runs.

    Parameters
    ----------
    manifest : with what the run began.
    pipeline : whose energy floor is set.
    settle : are called with the heads, when their thresholds have been set.
    say : called with one line for people.
    """

    def __init__(
        self,
        manifest: Manifest,
        pipeline: Pipeline,
        settle: Sequence[Callable[[Sequence[Head]], None]],
        say: Say,
    ) -> None:
        self._before = self._now = manifest
        self._pipeline = pipeline
        self._settle_heads = settle
        self._say = say
        self._noise: RoomNoise | None = None
        self._until_s = 0.0
        self._words = ""

    def wish(self, wish: Mapping[str, Any]) -> None:
        """Do what was asked for; say what cannot be."""
        match wish:
            case {"threshold": {"head": str(name), "heat": int() | float() as heat}} if (
                name in self._names and abs(heat) <= HEAT_MAX
            ):
                self._settle(with_settings(self._now, None, {name: float(heat)}))
            case {"floor_dbfs": int() | float() as floor_dbfs} if (
                isfinite(floor_dbfs) and FLOOR_DBFS[0] <= floor_dbfs <= FLOOR_DBFS[1]
            ):
                self._settle(with_settings(self._now, float(floor_dbfs), {}))
            case {"do": "learn"}:
                self._noise, self._until_s, self._words = RoomNoise(), float("inf"), ""
            case {"do": "reset"}:
                self._settle(self._before)
            case _:
                self._say("a viewer asked for what cannot be set; nothing was changed")

    def heatmap(self, heatmap: Heatmap) -> None:
        """Take a heatmap that is shown."""
        noise = self._noise
        if noise is None or heatmap.audio_end_s is None:
            return
        now_s = heatmap.frame.capture_s
        self._until_s = min(self._until_s, now_s + LEARNING_S)
        noise.add(heatmap)
        if now_s < self._until_s:
            return
        self._noise, room = None, noise.room()
        self._words = words_of_room(self._before, room)
        self._say(self._words)
        self._settle(room.settle(self._before))

    def state(self) -> dict[str, Any]:
        """Return what is set, as JSON takes it."""
        now = self._now
        return {
            "floor_dbfs": now.audio.energy_floor_dbfs,
            "thresholds": [round(head.threshold, 4) for head in now.heads],
            "learning": self._noise is not None,
            "room": self._words,
        }

    @property
    def _names(self) -> list[str]:
        return [head.name for head in self._now.heads]

    def _settle(self, manifest: Manifest) -> None:
        self._now = manifest
        self._pipeline.energy_floor_dbfs = manifest.audio.energy_floor_dbfs
        for settle in self._settle_heads:
            settle(manifest.heads)
