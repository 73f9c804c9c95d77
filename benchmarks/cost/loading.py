"""How many clips a core loads in a second, with all changes, at full size.

The clips are made: 10 pictures of 340x256 pixels and 10 s of sound, half a megabyte, on this
machine's disk in several shards, so that splices, quarters and partners come from others too. Time
is that of the processor, so that other work does not count. The last line is JSON.

    python -m benchmarks.cost.loading [--seconds 8] [--wanted 120]
"""

import argparse
import io
import json
import os
import platform
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from PIL import Image

from denseav.models.audio_encoder import SAMPLE_RATE_HZ as RATE_HZ
from denseav.train.data.dataset import DataSettings, Mixing
from denseav.train.data.decode import flac
from denseav.train.data.loader import make_loader
from denseav.train.data.shards import Clip, Shards, save_clips

CLIPS = 1024


def made_clip(number: int, random: Generator) -> Clip:
    """Return a clip as large as those of AudioSet."""
    frames = []
    for _ in range(10):
        coarse = random.integers(0, 256, (32, 42, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(coarse).resize((340, 256)).save(file, "JPEG", quality=90)
        frames.append(file.getvalue())
    noise_S = (0.1 * random.standard_normal(10 * RATE_HZ)).astype(np.float32)
    kind = "speech" if number % 2 else "sound"
    return Clip(key=str(number), kind=kind, frames=tuple(frames), audio=flac(noise_S))


def clips_per_second(settings: DataSettings, seconds: float) -> float:
    """Load in this process alone; a mixture counts as its two clips."""
    batches = make_loader(settings, rank=0, world_size=1, seed=0).endless()
    for _ in islice(batches, 1):
        pass
    clips, start_s = 0, time.perf_counter()
    cpu_s = time.process_time()
    while time.perf_counter() - start_s < seconds:
        batch = next(batches)
        clips += len(batch) * (1 if batch.partner is None else 2)
    return clips / (time.process_time() - cpu_s)


def main() -> None:
    """Measure both papers' loading, and print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each is measured")
    parser.add_argument("--wanted", type=float, default=120.0, help="clips/s that all GPUs take")
    options = parser.parse_args()
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        save_clips(Path(folder) / "shards", (made_clip(n, random) for n in range(CLIPS)))
        shards = str(Path(folder) / "shards")
        sizes = Shards(shards).sizes
        runs = {
            "DenseAV": DataSettings(shards=shards, workers=0),
            "mix and separate": DataSettings(
                shards=shards, others=shards, mixing=Mixing(), workers=0
            ),
        }
        found = {name: clips_per_second(run, options.seconds) for name, run in runs.items()}
    for name, rate in found.items():
        print(f"{name:18} {rate:6.1f} clips/s per core   {options.wanted / rate:4.1f} cores")
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    print(
        json.dumps(
            {"clips_per_second_per_core": found, "clips_of_each_shard": sizes, "machine": machine}
        )
    )


if __name__ == "__main__":
    main()
