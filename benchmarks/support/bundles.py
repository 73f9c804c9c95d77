"""Bundles of the full-size architecture, with random weights, for benchmarks to run.

They come from `denseav-export`, each through its parity gate. int8 is not among its precisions:
it is made here, by ONNX Runtime's dynamic quantisation of the fp32 graphs (matrix products only,
a scale for each channel). Axes: N items, K heads, H W pixels or grid, S samples at 16 kHz.
"""

import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic

from benchmarks.support.common import export, say
from denseav.export.builder import probe_inputs
from denseav.export.runtime.bundle import Bundle, Manifest, file_sha256, open_bundle, write_manifest
from denseav.export.runtime.proof import Heats
from denseav.export.runtime.session import Session


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a bundle is made for: frames of (height, width), and a window."""

    frame_size: tuple[int, int]
    window_s: float

    def __str__(self) -> str:
        return f"{self.frame_size[0]}x{self.frame_size[1]}-{self.window_s:g}s"


@contextmanager
def workplace(asked: Path | None) -> Iterator[Path]:
    """Give the folder asked for, which stays, or a temporary one, which does not."""
    if asked is not None:
        asked.mkdir(parents=True, exist_ok=True)
        yield asked.resolve()
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def full_size(work: Path, case: Case, precision: str) -> Bundle:
    """Return a bundle in `fp32`, `fp16` or `int8`, made now unless `work` holds it already."""
    folder = work / f"{precision}-{case}"
    if not folder.exists() and precision == "int8":
        _quantise(full_size(work, case, "fp32"), folder)
    elif not folder.exists():
        ended = export(folder, precision, case.frame_size, case.window_s)
        if ended.code:
            raise SystemExit(f"the export of {folder.name} ended with code {ended.code}")
    return open_bundle(folder)


def _quantise(fp32: Bundle, folder: Path) -> None:
    say(f"quantising into {folder.name}")
    part = folder.with_name(f".{folder.name}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    for name in ("image", "audio"):
        model = onnx.load(fp32.graph(name))
        # The shapes noted for weights would contradict those that are transposed on the way.
        del model.graph.value_info[:]
        quantize_dynamic(
            model,
            part / f"{name}.onnx",
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
    shutil.copy(fp32.graph("heatmap"), part)
    files = {path.name: file_sha256(path) for path in sorted(part.iterdir())}
    manifest = dataclasses.replace(fp32.manifest, precision="int8", files=files, parity={})
    write_manifest(part, manifest)
    part.rename(folder)


@dataclass(frozen=True, eq=False)
class Probe:
    """Pictures `uint8 [N, H, W, 3]`, sounds `float32 [N, S]`, and the token that is looked at."""

    pictures_NHW3: NDArray[np.uint8]
    sounds_NS: NDArray[np.float32]
    newest: int

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """Make what a bundle takes: four pictures and four sounds."""
        pictures_NHW3 = probe_inputs.frames(4, manifest.image.height, manifest.image.width)
        sounds_NS = probe_inputs.sounds(4, manifest.audio.window_samples)
        return cls(pictures_NHW3, sounds_NS, manifest.audio.tokens - 1)

    def heatmaps(self, session: Session) -> Heats:
        """Return each picture's heatmap `[N, K, H, W]` with each sound."""
        pictures = [session.encode_image(picture) for picture in self.pictures_NHW3]
        sounds = [session.encode_audio(sound) for sound in self.sounds_NS]
        return np.stack([session.heatmap(p, s, self.newest) for p in pictures for s in sounds])
