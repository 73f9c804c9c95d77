"""Picture and sound of one stream: how far apart they arrive, and how soon they are back.

A film that flashes and clicks at once comes by RTSP, and its server is killed and started again,
many times: each time picture and sound must be found again, and be in sync. Then a real Chromium
gives flashes and clicks as its camera and microphone, many times anew. Without a model: what is
measured lies before it.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from rich.table import Table

from benchmarks.support.common import Check, at_most, finish, say
from denseav.stream.calibration.av_offset import Watcher, match, write_clip
from denseav.stream.options import SourceOptions
from denseav.stream.sources.open import open_sources, supervised
from denseav.stream.stats.source_health import SourceHealth, State
from denseav.stream.stats.stats import Stats
from denseav.stream.web.browser_camera import BrowserCamera
from tests.support.screen.browser import open_tab
from tests.support.screen.pages import FLASHES, page_server
from tests.support.servers import RtspServer, film

BACK_S = 3.0
APART_MS = 40.0
PAIRS = 4  # of flashes and clicks, for one measurement
BROWSER_S = 6.0
PATIENCE_S = 60.0
FILM_S = 60.0


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--browsers", type=int, default=5, help="default: %(default)s")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        record = _of_rtsp(Path(folder) / "flashes.mp4", options.kills)
        apart_ms = [
            asyncio.run(_of_a_browser(Path(folder) / f"profile{number}"))
            for number in range(options.browsers)
        ]
    record |= {"browser_apart_ms": apart_ms, "benchmark": "av_sync", "load_before": round(load, 2)}
    return finish([_table(record)], record, _checks(record))


def _of_rtsp(clip: Path, kills: int) -> dict[str, Any]:
    """Return how soon both were back after each kill, and how far apart before and after."""
    write_clip(clip, FILM_S)
    server, watcher, health = RtspServer(film(clip)), Watcher(), SourceHealth(say)
    options = SourceOptions(cameras=(f"rtsp://{server.address}/cam",), mic="camera")
    [source] = supervised(open_sources(options), health, Stats())

    def states() -> set[State]:
        return {each.state for each in health.states()}

    back_s: list[float] = []
    try:
        source.start(watcher)
        apart_ms = [_apart_ms(watcher)]
        for _ in range(kills):
            server.kill()
            _until(lambda: State.LOST in states())
            server.start()
            begun_s = monotonic()
            _until(lambda: states() == {State.RUNNING})
            back_s.append(round(monotonic() - begun_s, 2))
            apart_ms.append(_apart_ms(watcher))
    finally:
        source.stop()
        server.kill()
    return {"rtsp_back_s": back_s, "rtsp_apart_ms": apart_ms}


def _apart_ms(watcher: Watcher) -> float | None:
    """Wait for some flashes and clicks, and return how much later these arrive than those."""
    flashes, clicks = len(watcher.flashes()[0]), len(watcher.clicks())
    _until(
        lambda: (
            len(watcher.flashes()[0]) >= flashes + PAIRS and len(watcher.clicks()) >= clicks + PAIRS
        )
    )
    return _matched_ms(watcher, flashes, clicks)


def _matched_ms(watcher: Watcher, flashes: int = 0, clicks: int = 0) -> float | None:
    flash_F, frame_s = watcher.flashes()
    found = match(flash_F[flashes:], watcher.clicks()[clicks:], frame_s)
    return None if found is None else round(1000 * found.seconds, 1)


def _until(done: Callable[[], bool]) -> None:
    end_s = monotonic() + PATIENCE_S
    while not done():
        if monotonic() > end_s:
            raise TimeoutError(f"it did not come to that in {PATIENCE_S:g} s")
        sleep(0.02)


async def _of_a_browser(profile: Path) -> float | None:
    """Return how far apart what a new browser gives is, once its reports have come."""
    camera, watcher = BrowserCamera(SourceHealth(say)), Watcher()
    sounding = "--autoplay-policy=no-user-gesture-required"
    with page_server(camera=camera) as server:
        address = f"http://127.0.0.1:{server.port}/"
        async with open_tab(profile, address, sounding, script=FLASHES) as tab:
            await tab.until("document.getElementById('giving')?.hidden === false")
            await tab.value("document.getElementById('give').click()")
            async with asyncio.timeout(PATIENCE_S):
                while not _has_reports(camera):
                    await asyncio.sleep(0.05)
            camera.start(watcher)
            await asyncio.sleep(BROWSER_S)
    return _matched_ms(watcher)


def _has_reports(camera: BrowserCamera) -> bool:
    given = camera._given
    return given is not None and all(clock.has_report for clock in given._clocks.values())


def _table(record: dict[str, Any]) -> Table:
    table = Table("RTSP, found again in s", "sound later by, ms", title="picture and sound")
    for back_s, apart_ms in zip(
        ["-", *record["rtsp_back_s"]], record["rtsp_apart_ms"], strict=True
    ):
        table.add_row(str(back_s), str(apart_ms))
    table.add_row("by a browser", " ".join(map(str, record["browser_apart_ms"])))
    return table


def _furthest_ms(apart_ms: list[float | None]) -> float:
    return max((float("inf") if each is None else abs(each) for each in apart_ms), default=0.0)


def _checks(record: dict[str, Any]) -> list[Check]:
    return [
        at_most(
            "until an RTSP camera is found again, longest, s", max(record["rtsp_back_s"]), BACK_S
        ),
        at_most(
            "its sound and picture, furthest, ms", _furthest_ms(record["rtsp_apart_ms"]), APART_MS
        ),
        at_most("a browser's, furthest, ms", _furthest_ms(record["browser_apart_ms"]), APART_MS),
    ]


if __name__ == "__main__":
    sys.exit(main())
