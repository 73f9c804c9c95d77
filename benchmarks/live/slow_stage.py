"""Make one stage of the live run ten times too slow, and look whether anything piles up.

Real threads, mailboxes, graphs and recording; the demo clip at 30 frames a second. A frame has
33 ms and a hop 180 ms, so the slow stage is made to take 333 ms a frame, or 1.8 s a hop.
"""

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.support.common import Check, MemoryWatch, at_least, at_most, finish, say
from denseav.export.runtime.bundle import (
    SAMPLE_RATE_HZ,
    TOKEN_HOP_SAMPLES,
    demo_folder,
    open_bundle,
)
from denseav.export.runtime.open_session import open_session
from denseav.export.runtime.session import Features, Session
from denseav.stream.app.live_loop import LiveRun
from denseav.stream.app.view import View
from denseav.stream.display.hud import Hud
from denseav.stream.display.overlay import Overlay
from denseav.stream.inference.pipeline import Pipeline
from denseav.stream.sources.media_file import Clip
from denseav.stream.sources.open import DEMO_CLIP
from denseav.stream.sources.paced_file import PacedClip
from denseav.stream.stats.stats import Stats
from denseav.stream.types import Heatmap

FRAME_MS = 1000 / 30
HOP_MS = 1000 * TOKEN_HOP_SAMPLES / SAMPLE_RATE_HZ
TOO_SLOW = 10
CAUSES = {"image": "model_busy", "audio": "hop_skipped", "sink": "sink_busy"}


class SlowSession:
    """A session two of whose passes last at least so many seconds."""

    def __init__(self, session: Session, image_s: float, audio_s: float) -> None:
        self.backend, self.precision = session.backend, session.precision
        self._session, self._image_s, self._audio_s = session, image_s, audio_s

    def encode_image(self, image_HW3: NDArray[np.uint8]) -> Features:
        """As `Session.encode_image`."""
        with _lasting(self._image_s):
            return self._session.encode_image(image_HW3)

    def encode_audio(self, wave_S: NDArray[np.float32], least_deviation: float = 0.0) -> Features:
        """As `Session.encode_audio`."""
        with _lasting(self._audio_s):
            return self._session.encode_audio(wave_S, least_deviation)

    def heatmap(self, image: Features, audio: Features, token: int) -> NDArray[np.float32]:
        """As `Session.heatmap`."""
        return self._session.heatmap(image, audio, token)

    def dense(self, image: Features) -> NDArray[np.float32]:
        """As `Session.dense`."""
        return self._session.dense(image)

    def interrupt(self) -> None:
        """As `Session.interrupt`."""
        self._session.interrupt()


class SlowView(View):
    """Sinks that last at least `show_s` seconds a heatmap, and count them."""

    show_s = 0.0
    shown = 0

    def show(self, *heatmaps: Heatmap) -> None:
        """As `View.show`."""
        with _lasting(self.show_s):
            super().show(*heatmaps)
        self.shown += 1


@contextmanager
def _lasting(seconds: float) -> Iterator[None]:
    end_s = time.monotonic() + seconds
    yield
    time.sleep(max(0.0, end_s - time.monotonic()))


def main() -> int:
    """Parse, run each stage, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="a stage; default: 20")
    options = parser.parse_args()
    load = round(os.getloadavg()[0], 2)
    table = Table(
        "slow stage",
        "shown a second",
        "heatmap p99",
        "sink p99",
        "audio age p95",
        "drops",
        "growth",
    )
    checks: list[Check] = []
    record: dict[str, Any] = {"benchmark": "slow_stage", "load_before": load}
    for stage in ("none", *CAUSES):
        figures = _run(stage, options.seconds)
        table.add_row(stage, *_row(figures, options.seconds))
        checks += _checks(stage, figures)
        record[stage] = figures
    return finish([table], record, checks)


def _run(stage: str, seconds: float) -> dict[str, Any]:
    say(f"slow stage: {stage}, {seconds:g} s")
    bundle = open_bundle(demo_folder())
    manifest, stats = bundle.manifest, Stats()
    frame_s, hop_s = TOO_SLOW * FRAME_MS / 1000, TOO_SLOW * HOP_MS / 1000
    image_s, audio_s = frame_s * (stage == "image"), hop_s * (stage == "audio")
    session = SlowSession(open_session(bundle, "cpu"), image_s, audio_s)
    hud = Hud(session.backend, session.precision, [DEMO_CLIP.name])
    overlay = Overlay(manifest.heads, manifest.trained)
    source = PacedClip(Clip(DEMO_CLIP), loop=True)
    with tempfile.TemporaryDirectory() as folder:
        # A slow sink is a real one: a recording, on a disk that takes its time.
        record = Path(folder) / "out.mp4" if stage == "sink" else None
        with closing(SlowView(overlay, hud, stats, say=say, record=record)) as view:
            view.show_s = frame_s * (stage == "sink")
            pipeline, stop = Pipeline(session, manifest), threading.Event()
            memory = MemoryWatch(os.getpid())
            LiveRun([source], pipeline, view, stats, stop=stop, seconds=seconds).run()
            memory.stop()
    report = stats.report(
        backend=session.backend,
        precision=session.precision,
        model=manifest.model,
        trained=manifest.trained,
    )
    growth_mb = memory.growth_mb(min(10.0, seconds / 2))
    return report | {"shown": view.shown, "memory_growth_mb": growth_mb}


def _row(figures: dict[str, Any], seconds: float) -> list[str]:
    latency_ms = figures["latency_ms"]
    return [
        f"{figures['shown'] / seconds:.1f}",
        f"{latency_ms['capture_to_heatmap']['p99']:.0f} ms",
        f"{latency_ms['capture_to_sink']['p99']:.0f} ms",
        f"{figures['audio_age_ms']['p95']:.0f} ms",
        ", ".join(f"{count} {cause}" for cause, count in figures["drops"].items() if count) or "0",
        f"{figures['memory_growth_mb']} MB",
    ]


def _checks(stage: str, figures: dict[str, Any]) -> list[Check]:
    if stage == "none":
        return []
    drops = figures["drops"]
    way = "capture_to_sink" if stage == "sink" else "capture_to_heatmap"
    # A slow audio pass holds no frame up; a slow image pass or sink holds up one.
    frame_ms = FRAME_MS if stage == "audio" else TOO_SLOW * FRAME_MS
    unseen = figures["frames_in"] - figures["shown"]
    lost = unseen - drops.get("model_busy", 0) - drops.get("sink_busy", 0)
    checks = [
        at_most(f"{stage}: {way}, p99 ms", figures["latency_ms"][way]["p99"], HOP_MS + frame_ms),
        at_least(f"{stage}: {CAUSES[stage]} drops", drops.get(CAUSES[stage], 0), 1),
        at_most(f"{stage}: frames neither shown, dropped nor in hand", lost, 3),
        at_most(f"{stage}: memory growth, MB", figures["memory_growth_mb"], 5),
    ]
    if stage == "audio":
        # A token waits for its pass, and then serves until the next pass is done.
        most_ms = HOP_MS + 2 * TOO_SLOW * HOP_MS
        checks.append(at_most("audio: audio age, p95 ms", figures["audio_age_ms"]["p95"], most_ms))
    return checks


if __name__ == "__main__":
    raise SystemExit(main())
