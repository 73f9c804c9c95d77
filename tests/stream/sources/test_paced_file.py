import itertools
import time
from pathlib import Path

import numpy as np
import pytest

from denseav.stream.errors import SourceError
from denseav.stream.sources import paced_file as paced_module
from denseav.stream.sources.media_file import Clip, ready_s
from denseav.stream.sources.paced_file import PacedClip, endless
from denseav.stream.types import AudioBlock, Frame
from tests.support.fakes import Collector
from tests.support.media import LEVELS, cut

pytestmark = pytest.mark.realtime


def test_looping_goes_on_without_a_seam(exact: Path) -> None:
    items = list(itertools.islice(endless(Clip(exact)), 220))
    frames = [item for item in items if isinstance(item, Frame)]
    blocks = [item for item in items if isinstance(item, AudioBlock)]
    assert len(frames) > 60
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert [frame.capture_s for frame in frames] == pytest.approx(np.arange(len(frames)) / 25)
    assert all(block.capture_s == pytest.approx(block.first_sample / 48_000) for block in blocks)
    gaps = [
        later.first_sample - block.first_sample - len(block.samples_SC)
        for block, later in itertools.pairwise(blocks)
    ]
    assert [gap for gap in gaps if gap] == [4_800] * (len(frames) // 25)
    ready = [ready_s(item) for item in items]
    assert ready == sorted(ready)


def test_a_paced_clip_plays_in_real_time(exact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paced_module, "TOLERATED_LAG_S", 30.0)
    clip, collector = Clip(exact), Collector()
    paced = PacedClip(clip)
    assert paced.name == "exact.mov"
    before_s = time.monotonic()
    paced.start(collector)
    assert collector.wait_end() is None
    paced.stop()
    paced.stop()
    assert time.monotonic() - before_s >= 0.96
    assert [int(frame.image_HW3.mean()) for frame in collector.frames] == LEVELS
    start_s = collector.frames[0].capture_s
    assert before_s <= start_s
    spread = [item.capture_s - start_s for item in collector.frames]
    assert spread == pytest.approx(np.arange(25) / 25)
    came = zip(collector.order, collector.came_s, strict=True)
    assert all(came_s >= ready_s(item) - 0.001 for item, came_s in came)


def test_a_paced_clip_that_falls_behind_moves_both_streams_alike(exact: Path) -> None:
    class Slow(Collector):
        def frame(self, frame: Frame) -> None:
            super().frame(frame)
            if frame.index == 5:
                time.sleep(1.4)

    collector = Slow()
    paced = PacedClip(Clip(exact))
    paced.start(collector)
    collector.wait_end()
    first, last = collector.frames[0], collector.frames[-1]
    assert last.capture_s - first.capture_s > 0.96 + 1.0
    offset_s = last.capture_s - last.index / 25
    block = collector.blocks[-1]
    assert block.capture_s - block.first_sample / 48_000 == pytest.approx(offset_s)


def test_a_paced_clip_in_a_loop_goes_on_until_it_is_stopped(exact: Path) -> None:
    collector = Collector()
    paced = PacedClip(Clip(exact), loop=True)
    paced.start(collector)
    collector.wait_frames(30)
    paced.stop()
    count = len(collector.order)
    time.sleep(0.1)
    assert len(collector.order) == count
    assert collector.errors == []
    assert collector.frames[29].index == 29


def test_a_paced_clip_reports_damage_on_the_way(tmp_path: Path, common: Path) -> None:
    collector = Collector()
    paced = PacedClip(Clip(cut(common, tmp_path / "damaged.mp4", 0.35)))
    paced.start(collector)
    error = collector.wait_end()
    assert isinstance(error, SourceError)
    assert collector.frames
    assert len(collector.errors) == 1
