"""What a second of live audio costs: whole windows against a stream, each as it runs live.

Blocks of 50 ms go through the rolling window, the level and the pass of a real session on one
thread. Processor time, of each way by turns in stretches of three seconds; the tenth that other
work on the machine disturbed least, and the median. With `--cold` a picture is encoded between
two passes, as in a live run, so that each finds other things in the caches.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from rich.table import Table

from benchmarks.support.common import at_least, finish
from denseav.export.builder import probe_inputs
from denseav.export.runtime.bundle import (
    SAMPLE_RATE_HZ,
    TOKEN_HOP_SAMPLES,
    Bundle,
    demo_folder,
    open_bundle,
)
from denseav.export.runtime.onnx_session import OnnxSession
from denseav.export.runtime.session import AudioWay
from denseav.stream.inference.pipeline import Pipeline
from denseav.stream.types import AudioBlock

BLOCK_SAMPLES = 800
STRETCH_S = 3.0
WAYS: tuple[AudioWay, AudioWay] = ("window", "streaming")
TIMES_LESS = 4.0


class LiveAudio:
    """One way of encoding a bundle's audio, and what its passes took."""

    def __init__(self, bundle: Bundle, way: AudioWay, *, cold: bool) -> None:
        self.took_ms: list[float] = []
        self._session = OnnxSession(bundle, audio=way)
        self._pipeline = Pipeline(self._session, bundle.manifest, audio=way)
        size = bundle.manifest.image
        self._image_HW3 = probe_inputs.frames(1, size.height, size.width)[0] if cold else None
        self._wave_S = probe_inputs.sounds(1, round(STRETCH_S * SAMPLE_RATE_HZ), seed=3)[0]
        self._samples = 0

    def run(self, *, keep: bool) -> None:
        """Take one stretch of audio; `keep` what its passes took."""
        for at in range(0, len(self._wave_S), BLOCK_SAMPLES):
            samples_SC = self._wave_S[at : at + BLOCK_SAMPLES, None]
            first = self._samples
            self._pipeline.push(
                AudioBlock(samples_SC, SAMPLE_RATE_HZ, first, first / SAMPLE_RATE_HZ)
            )
            self._samples += len(samples_SC)
            if self._image_HW3 is not None:
                self._session.encode_image(self._image_HW3)
            begun_s = time.process_time()
            if self._pipeline.encode_audio() and keep:
                self.took_ms.append(1000 * (time.process_time() - begun_s))


def main() -> int:
    """Parse, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=demo_folder(), help="default: the demo's")
    parser.add_argument("--seconds", type=float, default=60.0, help="of audio; default: 60")
    parser.add_argument("--cold", action="store_true", help="pictures are encoded in between")
    options = parser.parse_args()
    bundle = open_bundle(options.model)
    ways = {way: LiveAudio(bundle, way, cold=options.cold) for way in WAYS}
    for stretch in range(1 + round(options.seconds / STRETCH_S)):
        for audio in ways.values():
            audio.run(keep=stretch > 0)
    per_second = SAMPLE_RATE_HZ / TOKEN_HOP_SAMPLES
    table = Table("audio", "passes", "least tenth, ms a hop", "median", "median, ms a second")
    figures = {}
    for way, audio in ways.items():
        p10, p50 = np.percentile(audio.took_ms, (10, 50))
        figures[way] = {"p10_ms": float(p10), "p50_ms": float(p50)}
        table.add_row(
            way, f"{len(audio.took_ms)}", f"{p10:.2f}", f"{p50:.2f}", f"{per_second * p50:.1f}"
        )
    window, stream = figures["window"], figures["streaming"]
    checks = [
        at_least(f"times less, {name}", window[key] / stream[key], TIMES_LESS)
        for name, key in (("least tenth", "p10_ms"), ("median", "p50_ms"))
    ]
    record = {"benchmark": "audio_hop", "model": bundle.manifest.model, "cold": options.cold}
    return finish([table], record | figures, checks)


if __name__ == "__main__":
    raise SystemExit(main())
