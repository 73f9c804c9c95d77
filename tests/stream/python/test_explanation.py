"""`denseav.explain`: a figure of what a run found, and one line where it cannot be had."""

import sys
from pathlib import Path

import numpy as np
import pytest

import denseav
from denseav.export.runtime.bundle import demo_folder
from denseav.stream.python.explanation import _Found
from denseav.stream.types import Frame, Heatmap
from tests.support.fake_session import fake_manifest
from tests.support.media import grey


def test_a_clip_becomes_a_figure_of_its_moments_heads_and_audio(
    exact: Path, tmp_path: Path
) -> None:
    figure = denseav.explain(exact, model=demo_folder(), device="cpu", moments=3)
    *pictures, time = figure.axes
    assert len(pictures) == 3 * (1 + 2)
    assert [axes.get_ylabel() for axes in pictures if axes.get_ylabel()] == [
        "frame",
        "speech",
        "sound",
    ]
    moments_s = [float(axes.get_title().removesuffix(" s")) for axes in pictures[::3]]
    assert moments_s == sorted(moments_s)
    labels = [text.get_text() for text in time.get_legend().get_texts()]
    assert labels == ["audio", "speech", "sound"]
    speech, sound = (line.get_ydata() for line in time.lines[:2])
    assert len(speech) == len(sound) == 25
    out = tmp_path / "clip.png"
    figure.savefig(out)
    assert out.stat().st_size > 5_000


def test_the_brightest_of_each_part_is_shown_however_long_it_lasts() -> None:
    found = _Found(8)
    found.begin(fake_manifest())
    bright = {100, 900}
    for index in range(1000):
        heat_KHW = np.full((2, 2, 3), 0.9 if index in bright else 0.1, np.float32)
        frame = Frame(grey(0), index, index / 25)
        found.heatmap(Heatmap(frame, heat_KHW, (True, True), 0.0, 0.1, -20.0, 0.0))
        assert len(found.kept) <= 8
    shown = [kept.heatmap.frame.index for kept in found.moments(4)]
    assert len(shown) == 4
    assert shown == sorted(shown)
    assert bright <= set(shown)
    assert len(found.levels_K) == 1000


def test_without_matplotlib_it_is_one_line(monkeypatch: pytest.MonkeyPatch, exact: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(denseav.StreamError, match=r"needs Matplotlib .*: pip install '\.\[plot\]'"):
        denseav.explain(exact)


def test_bad_input_is_told(tmp_path: Path) -> None:
    with pytest.raises(denseav.SourceError, match="no such file"):
        denseav.explain(tmp_path / "missing.mp4")
    with pytest.raises(denseav.UsageError, match="moments is from 2 to 24, not 0"):
        denseav.explain(tmp_path / "missing.mp4", moments=0)
