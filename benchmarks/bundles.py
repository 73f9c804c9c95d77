"""Bundles of the full-size architecture, with random weights, for benchmarks to run.

They come from `denseav-export`, each through its parity gate. int8 is not among its precisions:
it is made here, by ONNX Runtime's dynamic quantisation of the fp32 graphs (matrix products only,
a scale for each channel).
"""

import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common import export, say
from onnxruntime.quantization import QuantType, quantize_dynamic

from denseav.export.bundle import Bundle, file_sha256, open_bundle, write_manifest


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
        quantize_dynamic(
            fp32.graph(name),
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
