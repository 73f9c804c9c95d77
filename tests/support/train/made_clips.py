"""Made clips: clip N has a flat picture of grey 10 N and a flat sound of level N / 100."""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from denseav.train.data.shards import Clip, close_shards, write_shards

RATE_HZ = 16_000


def jpeg_file(grey: int, width: int = 32, height: int = 24) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (grey,) * 3).save(file, "JPEG", quality=95)
    return file.getvalue()


def flac_file(level: float, seconds: float) -> bytes:
    file = io.BytesIO()
    wave_S = np.full(round(seconds * RATE_HZ), level, np.float32)
    soundfile.write(file, wave_S, RATE_HZ, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def made_clip(number: int, *, kind: str = "sound", seconds: float = 2.0, frames: int = 1) -> Clip:
    return Clip(
        key=f"clip{number}",
        kind=kind,
        frames=tuple(jpeg_file(10 * number + 3 * index) for index in range(frames)),
        audio=flac_file(number / 100, seconds),
        notes={"number": number},
    )


def made_shards(folder: Path, clips: Iterable[Clip], *, each: int = 4) -> Path:
    """Write clips into shards of so many each, as `denseav-data prepare` lays them out."""
    listed = list(clips)
    indices = []
    for part, at in enumerate(range(0, len(listed), each)):
        index = write_shards(folder / "part", listed[at : at + each])
        for chunk in index["chunks"]:
            name = f"shard-{part:06d}-0.bin"
            (folder / "part" / chunk["filename"]).replace(folder / name)
            chunk["filename"] = name
        indices.append(index)
    (folder / "part").rmdir()
    close_shards(folder, indices)
    return folder
