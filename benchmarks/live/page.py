"""The page for browsers in a real Chromium: how soon, how late, at what cost, whether it is right.

The demo is served: the first heat after opening, then 20 viewers of which one is stopped (SIGSTOP).
Then the browser is the camera, and shows the demo's film as its camera and microphone: the whole
way from capture in the browser to heat on its page, and whether heads are where the film's truth
says, by the maps that the page was sent.

Axes: N columns of time.
"""

import argparse
import asyncio
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp
import av
import numpy as np
from rich.table import Table

from benchmarks.support.common import (
    ROOT,
    Check,
    MemoryWatch,
    at_least,
    at_most,
    finish,
    program,
    say,
)
from tests.support.ports import free_port
from tests.support.screen.browser import Tab, open_tab

VIEWERS = 20
RATE_HZ, COLUMNS_HZ = 48_000, 64
MARGIN_PIXELS = 16
CLIP = ROOT / "stream" / "demo" / "clip.mp4"
HEADS = ("speech", "sound")

# Keeps where each head of every map that the page is sent is strongest, and how loud it was.
KEPT = """
window.kept = { maps: [], loud: [] };
window.WebSocket = class extends WebSocket {
  constructor(...given) {
    super(...given);
    this.addEventListener("message", ({ data }) => {
      if (typeof data === "string") return;
      const view = new DataView(data), kind = view.getUint8(0);
      if (kind === 1) {
        const heads = view.getUint8(1), valid = view.getUint16(2, true);
        const height = view.getUint16(4, true), width = view.getUint16(6, true);
        const floats = new Float32Array(data, 24), size = height * width;
        const peaks = Array.from({ length: heads }, (_, k) => {
          const heat = floats.subarray(2 * heads + k * size, 2 * heads + (k + 1) * size);
          const at = heat.indexOf(Math.max(...heat));
          const above = valid >> k & 1 ? heat[at] - floats[k] : 0;
          return [above, (at % width + 0.5) / width, (Math.floor(at / width) + 0.5) / height];
        });
        kept.maps.push([view.getFloat64(16, true), peaks]);
      } else if (kind === 3) {
        const begin = view.getFloat64(8, true);
        for (let i = 0; i < view.getUint32(4, true); i++) {
          kept.loud.push([begin + i / 64, view.getUint8(16 + i)]);
        }
      }
    });
  }
};
"""


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each part; default: 20")
    parser.add_argument("--viewer", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.viewer:
        asyncio.run(_view(*options.viewer))
        return 0
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        record = asyncio.run(_viewed(Path(folder) / "viewed", options.seconds))
        record |= asyncio.run(_given(Path(folder) / "given"))
    record |= {"benchmark": "page", "load_before": round(load, 2)}
    return finish([_table(record)], record, _checks(record))


@contextmanager
def _live(folder: Path, *arguments: str) -> Any:
    """Run `denseav-live` with a page; yield its process, its port, and what reads its last line."""
    folder.mkdir()
    port, stats = free_port(), folder / "stats.json"
    command = [program("denseav-live"), "--headless", "--device", "cpu", "--audio", "window"]
    command += [*arguments, "--serve", f"127.0.0.1:{port}", "--stats-json", str(stats)]
    say(" ".join(command))
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield process, port, lambda: _last(stats)
        finally:
            process.terminate()


def _last(stats: Path) -> dict[str, Any]:
    lines = stats.read_text().splitlines() if stats.exists() else []
    return dict(json.loads(lines[-1])) if lines else {}


async def _until_served(port: int) -> None:
    async with asyncio.timeout(60), aiohttp.ClientSession() as client:
        while True:
            try:
                async with client.get(f"http://127.0.0.1:{port}/"):
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)


async def _viewed(folder: Path, seconds: float) -> dict[str, Any]:
    with _live(folder, "--demo") as (process, port, last):
        await _until_served(port)
        await asyncio.sleep(12)  # what the last ten seconds say is then of a run that has settled
        async with open_tab(folder / "profile", "about:blank") as tab:
            first_s = await _first_heat_s(tab, port)
        alone = last()
        me = [sys.executable, "-m", "benchmarks.live.page", "--viewer", str(port)]
        many = subprocess.Popen([*me, str(VIEWERS - 1)], cwd=ROOT)
        stopped = subprocess.Popen([*me, "1"], cwd=ROOT)
        await asyncio.sleep(3)
        stopped.send_signal(signal.SIGSTOP)
        memory = MemoryWatch(process.pid)
        await asyncio.sleep(seconds)
        memory.stop()
        crowded = last()
        for viewer in (many, stopped):
            viewer.kill()
            viewer.wait()
    return {
        "first_heat_s": first_s,
        "fps_alone": alone["fps"],
        "fps_viewers": crowded["fps"],
        "p95_ms_alone": alone["latency_ms"]["capture_to_heatmap"]["p95"],
        "p95_ms_viewers": crowded["latency_ms"]["capture_to_heatmap"]["p95"],
        "viewers_ms": crowded["latency_ms"]["capture_to_viewer"],
        "memory_growth_mb": memory.growth_mb(0.0),
        "memory_mb": memory.series_mb,
    }


async def _first_heat_s(tab: Tab, port: int) -> float:
    begun_s = monotonic()
    await tab.call("Page.navigate", url=f"http://127.0.0.1:{port}/")
    await tab.until("document.getElementById('picture')?.width > 300")
    return round(monotonic() - begun_s, 2)


async def _view(port: int, viewers: int) -> None:
    """Look, as the page does, as so many viewers."""
    origin = f"http://127.0.0.1:{port}"

    async def look(client: aiohttp.ClientSession) -> None:
        async with client.ws_connect(f"{origin}/live", headers={"Origin": origin}) as socket:
            async for message in socket:
                if message.type is aiohttp.WSMsgType.BINARY and message.data[0] == 1:
                    await socket.send_json({"drawn": struct.unpack_from("<8xI", message.data)[0]})

    async with aiohttp.ClientSession() as client:
        await asyncio.gather(*(look(client) for _ in range(viewers)))


async def _given(folder: Path) -> dict[str, Any]:
    picture, sound, sound_S = _as_devices(folder)
    flags = (
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={picture}",
        f"--use-file-for-fake-audio-capture={sound}",
    )
    truth = json.loads(CLIP.with_suffix(".json").read_text())
    with _live(folder / "run", "--camera", "browser") as (_, port, last):
        await _until_served(port)
        address = f"http://127.0.0.1:{port}/"
        async with open_tab(folder / "profile", address, *flags, script=KEPT) as tab:
            await tab.until("document.getElementById('giving')?.hidden === false")
            begun_s = monotonic()
            await tab.value("document.getElementById('give').click()")
            await tab.until("document.getElementById('picture').width > 300")
            first_s = round(monotonic() - begun_s, 2)
            await asyncio.sleep(truth["duration_s"] + 3)
            kept, report = await tab.value("kept"), last()
    found = _found(kept, truth, sound_S)
    return {
        "given_to_first_heat_s": first_s,
        "given_fps": report["fps"],
        "given_fps_in": report["fps_in"],
        "given_viewer_ms": report["latency_ms"]["capture_to_viewer"],
        "found": found,
    }


def _as_devices(folder: Path) -> tuple[Path, Path, np.ndarray[Any, Any]]:
    """Write the demo's film as Chromium's fake devices take it; return its sound too."""
    folder.mkdir()
    picture, sound = folder / "film.y4m", folder / "film.wav"
    quiet = ["ffmpeg", "-v", "error", "-y", "-i", str(CLIP)]
    subprocess.run([*quiet, "-pix_fmt", "yuv420p", str(picture)], check=True)
    subprocess.run([*quiet, "-ac", "1", "-ar", str(RATE_HZ), str(sound)], check=True)
    with av.open(str(sound)) as container:
        parts = [frame.to_ndarray().ravel() for frame in container.decode(audio=0)]
    return picture, sound, np.concatenate(parts).astype(np.float64) / 32768


def _found(
    kept: dict[str, Any], truth: dict[str, Any], sound_S: np.ndarray[Any, Any]
) -> dict[str, list[int]]:
    """Return, for each head, how many of the film's events were found, and how many there are."""
    film_s = _film_clock(kept, sound_S)
    maps = [(film_s(capture_s), peaks) for capture_s, peaks in kept["maps"]]
    found = {head: [0, 0] for head in HEADS}
    for event in truth["events"]:
        k = HEADS.index(event["head"])
        during = [
            (*peaks[k], time_s)
            for time_s, peaks in maps
            if event["start_s"] + 0.2 <= time_s <= event["stop_s"] + 0.3
        ]
        above, x, y, time_s = max(during, default=(0.0, 0.0, 0.0, 0.0))
        boxes = np.array(event["boxes"])
        left, top, right, bottom = boxes[np.abs(boxes[:, 0] - time_s).argmin(), 1:]
        x, y = x * truth["width"], y * truth["height"]
        inside = left <= x + MARGIN_PIXELS and x - MARGIN_PIXELS <= right
        inside = inside and top <= y + MARGIN_PIXELS and y - MARGIN_PIXELS <= bottom
        found[event["head"]][0] += bool(above > 0 and inside)
        found[event["head"]][1] += 1
    return found


def _film_clock(kept: dict[str, Any], sound_S: np.ndarray[Any, Any]) -> Callable[[float], float]:
    """Return what tells where the film was at a time: by how loud it was, then and there."""
    columns = len(sound_S) * COLUMNS_HZ // RATE_HZ
    film_N = np.abs(sound_S[: columns * RATE_HZ // COLUMNS_HZ]).reshape(columns, -1).max(axis=1)
    film_N = np.sqrt(film_N) - np.sqrt(film_N).mean()
    loud = np.array(kept["loud"])
    begin_s = float(loud[0, 0])
    at_N = np.rint((loud[:, 0] - begin_s) * COLUMNS_HZ).astype(int)
    heard_N = np.zeros(at_N.max() + 1)
    heard_N[at_N] = loud[:, 1]
    heard_N -= heard_N.mean()
    index_N = np.arange(len(heard_N))
    fits = [heard_N @ film_N[(index_N + shift) % columns] for shift in range(columns)]
    shift = int(np.argmax(fits))
    return lambda time_s: (((time_s - begin_s) * COLUMNS_HZ + shift) % columns) / COLUMNS_HZ


def _table(record: dict[str, Any]) -> Table:
    table = Table("figure", "value", title="the page")
    for name, value in record.items():
        if name not in ("memory_mb", "benchmark"):
            table.add_row(name.replace("_", " "), str(value))
    return table


def _checks(record: dict[str, Any]) -> list[Check]:
    viewer_ms = record["given_viewer_ms"]
    found = [sum(part) for part in zip(*record["found"].values(), strict=True)]
    fps_kept = record["fps_viewers"] / record["fps_alone"]
    return [
        at_most("first heat after opening, s", record["first_heat_s"], 2.0),
        at_least("fps with 20 viewers, one stopped, of those without", fps_kept, 0.98),
        at_most("memory growth with them, MB", record["memory_growth_mb"], 5.0),
        at_most("browser to its page, p50, ms", viewer_ms["p50"], 150.0),
        at_most("browser to its page, p95, ms", viewer_ms["p95"], 300.0),
        at_least("heatmaps a second of a browser's camera", record["given_fps"], 25.0),
        at_least("of sounds and phrases found on the page", found[0] / found[1], 0.8),
    ]


if __name__ == "__main__":
    sys.exit(main())
