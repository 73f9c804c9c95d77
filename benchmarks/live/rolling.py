"""The rolling path against the released way of doing it, live, on the same machine and weights.

The released way encodes, for every frame, the frame and the whole audio window. The rolling path
encodes each frame once, and the window once a hop on a thread of its own. Both run in the same
live loop (30 frames a second come in, the newest wins) and through the same graphs.
"""

import argparse
import os
import threading
import time
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from benchmarks.support.bundles import Case, full_size, workplace
from benchmarks.support.common import FULL_SIZE, ROOT, at_least, finish, say
from denseav.export.builder.graphs import make_graphs
from denseav.export.runtime.bundle import Bundle, Manifest, demo_folder, open_bundle
from denseav.export.runtime.open_session import open_session
from denseav.export.runtime.session import Session
from denseav.models import load
from denseav.stream.app.live_loop import LiveRun
from denseav.stream.app.view import View
from denseav.stream.display.hud import Hud
from denseav.stream.display.overlay import Overlay
from denseav.stream.inference.pipeline import Pipeline
from denseav.stream.sources.media_file import Clip
from denseav.stream.sources.open import DEMO_CLIP
from denseav.stream.sources.paced_file import PacedClip
from denseav.stream.stats.stats import Stats
from denseav.stream.types import Frame, Heatmap

CASE = Case(frame_size=(224, 224), window_s=10)  # what the released code looks at
DEMO_SIZE = ROOT / "configs" / "models" / "demo.json"
TARGET = 8.0


class ReleasedWay(Pipeline):
    """For every frame one image pass and one pass over the whole window, in turn."""

    def encode_audio(self, timeout_s: float = 0.0) -> bool:
        """Encode nothing on a thread of its own."""
        time.sleep(timeout_s)
        return False

    def heatmap(self, frame: Frame, features: bool = False) -> Heatmap:
        """Encode the newest window, whether new sound came or not, and then the frame."""
        self.audio[0].newest = None
        super().encode_audio()
        return super().heatmap(frame, features)


class Shown(View):
    """Sinks without a window or a file, and the times of the heatmaps that knew sound."""

    def __init__(self, manifest: Manifest, stats: Stats) -> None:
        overlay, hud = Overlay(manifest.heads, manifest.trained), Hud("cpu", "fp32", ["clip"])
        super().__init__(overlay, hud, stats, say=say)
        self.times_s: list[float] = []

    def show(self, *heatmaps: Heatmap) -> None:
        """As `View.show`."""
        super().show(*heatmaps)
        if heatmaps[-1].audio_end_s is not None:
            self.times_s.append(time.monotonic())

    @property
    def fps(self) -> float | None:
        """Heatmaps a second from the first to the last; None for fewer than two."""
        if len(self.times_s) < 2:
            return None
        return (len(self.times_s) - 1) / (self.times_s[-1] - self.times_s[0])


def main() -> int:
    """Parse, run each way, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=("full", "demo"), default="full")
    parser.add_argument("--work", type=Path, help="keep the exported bundle here, and use it")
    parser.add_argument("--seconds", type=float, default=60.0, help="each way; default: 60")
    parser.add_argument("--threads", type=int, default=1, help="for each pass; default: 1")
    parser.add_argument("--torch", action="store_true", help="the released way in PyTorch too")
    options = parser.parse_args()
    load_before = round(os.getloadavg()[0], 2)
    with workplace(options.work) as work:
        full = options.size == "full"
        bundle = full_size(work, CASE, "fp32") if full else open_bundle(demo_folder())
        ways = _ways(bundle, options)
    rolling = ways["rolling"]["fps"]
    for figures in ways.values():
        both = rolling and figures["fps"]
        figures["rolling_is_faster_by"] = round(rolling / figures["fps"], 2) if both else None
    name, ratio = "rolling over released way, shown", ways["released"]["rolling_is_faster_by"]
    # The demo size is faster than the clip in either way, so there the ratio says nothing.
    checks = [at_least(name, ratio, TARGET)] if full else []
    record = {"benchmark": "rolling", "size": options.size, "threads": options.threads}
    return finish([_table(ways, options)], record | {"load_before": load_before} | ways, checks)


def _ways(bundle: Bundle, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    session, manifest = open_session(bundle, "cpu", options.threads), bundle.manifest
    seconds = options.seconds
    ways = {
        "rolling": _run(
            name="rolling", way=Pipeline, session=session, manifest=manifest, seconds=seconds
        ),
        "released": _run(
            name="released way",
            way=ReleasedWay,
            session=session,
            manifest=manifest,
            seconds=seconds,
        ),
    }
    if options.torch:
        slow = _torch_session(bundle, options)
        ways["released_torch"] = _run(
            name="released, PyTorch",
            way=ReleasedWay,
            session=slow,
            manifest=manifest,
            seconds=seconds,
        )
    return ways


def _torch_session(bundle: Bundle, options: argparse.Namespace) -> Session:
    torch.set_num_threads(options.threads)
    model = load(FULL_SIZE if options.size == "full" else DEMO_SIZE)
    model.prepare_export(bundle.manifest.image.height, bundle.manifest.image.width)
    return make_graphs(model)


def _run(
    name: str, way: type[Pipeline], session: Session, manifest: Manifest, seconds: float
) -> dict[str, Any]:
    say(f"{name}, {seconds:g} s")
    stats, stop = Stats(), threading.Event()
    shown = Shown(manifest, stats)
    source = PacedClip(Clip(DEMO_CLIP), loop=True)
    pipeline = way(session, manifest)
    LiveRun([source], pipeline, shown, stats, stop=stop, seconds=seconds).run()
    report = stats.report(backend="", precision="", model="", trained=False)
    return {
        "fps": None if shown.fps is None else round(shown.fps, 3),
        "shown": len(shown.times_s),
        "latency_p50_ms": report["latency_ms"]["capture_to_heatmap"]["p50"],
        "audio_age_p50_ms": report["audio_age_ms"]["p50"],
        "audio_passes": report["audio_hops"],
    }


def _table(ways: dict[str, dict[str, Any]], options: argparse.Namespace) -> Table:
    title = f"{options.size} size, {options.threads} thread(s) a pass, {options.seconds:g} s each"
    table = Table("way", "shown a second", "latency p50", "audio age p50", "ratio", title=title)
    for name, figures in ways.items():
        values = (figures[key] for key in ("fps", "latency_p50_ms", "audio_age_p50_ms"))
        ratio = f"{figures['rolling_is_faster_by']}x"
        table.add_row(name.replace("_", " "), *(f"{value or 0:.2f}" for value in values), ratio)
    return table


if __name__ == "__main__":
    raise SystemExit(main())
