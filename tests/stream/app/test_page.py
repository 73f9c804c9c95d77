"""The page for browsers, from options: its extra, and what it says of a run."""

import sys
from time import monotonic

import pytest

from denseav.stream.app.page import RunState, browser_camera, open_page
from denseav.stream.display.hud import Hud
from denseav.stream.errors import StreamError
from denseav.stream.options import PageOptions
from denseav.stream.stats.source_health import SourceHealth, SourceState, State
from denseav.stream.stats.stats import Stats


@pytest.mark.parametrize("missing", ["aiohttp", "aiortc", "segno"])
def test_without_the_extra_it_is_one_line(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("denseav.stream.web")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(StreamError, match=r"--serve needs the extra `web`.*'\.\[web\]'"):
        open_page(PageOptions(serve=("127.0.0.1", 1)), None)
    if missing == "aiortc":
        with pytest.raises(StreamError, match="extra `web`"):
            browser_camera(SourceHealth(lambda _: None), Stats())


def test_it_says_how_each_source_does() -> None:
    health, stats = SourceHealth(lambda _: None), Stats()
    state = RunState(Hud("fake", "fp32", ["door"], health.states), stats, health)
    since_s = monotonic()
    for kind, how in (("camera", State.LOST), ("microphone", State.RUNNING)):
        health.enter(SourceState(kind=kind, name="door", state=how, since_s=since_s))
    said = state()
    assert [(each["kind"], each["state"]) for each in said["sources"]] == [
        ("camera", "lost"),
        ("microphone", "running"),
    ]
    assert said["sources"][0]["words"].startswith("door: lost for ")
    assert ("runs on", "fake, fp32") in said["rows"]
    state.viewed(1.0, 1.25)
    assert stats.latencies_ms()["capture_to_viewer"] == [250.0]
