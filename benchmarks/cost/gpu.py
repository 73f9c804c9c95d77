"""Everything this project claims about GPUs, in one run of under ten minutes, offline.

    python -m benchmarks.cost.gpu [--work DIR] [--seconds 8]
    python -m benchmarks.cost.gpu --device cpu --small        the same run where there is no GPU

Each device's proof; full-size frames a second and milliseconds from a picture to its heatmap, with
audio passes beside them, in windows and as a stream, in both precisions, CUDA graphs on and off;
the released way (one picture and the whole window for every heatmap, PyTorch in half precision);
similarities of many pairs and training steps, plain, chunked and by the fused kernel, float32 and
bfloat16, and with compiled layers; FSDP with one process; the tests marked `gpu`. What cannot run
here is in the record with its reason. Without TensorRT's library the bundles have no engines; with
`--work` a second run finds the bundles that the first one exported.
"""

import argparse
import copy
import gc
import importlib.util
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import register_fsdp_forward_method

from benchmarks.support.bundles import workplace
from benchmarks.support.common import Check, at_least, at_most, finish, say
from denseav.export.builder import probe_inputs
from denseav.export.builder.trt_engine import RTX_CAPABILITIES
from denseav.export.runtime.bundle import (
    TOKEN_HOP_SAMPLES,
    TOKEN_SPAN_SAMPLES,
    Bundle,
    demo_folder,
    open_bundle,
)
from denseav.export.runtime.open_session import open_proven
from denseav.export.runtime.proof import prove
from denseav.export.runtime.session import AudioWay, Level, Session
from denseav.models import DenseAV, load
from denseav.models.similarity import aggregate, all_volumes, similarity_slice
from denseav.train.distributed.fabric import compile_layers
from denseav.train.distributed.fsdp import shard
from denseav.train.loss.chunked_similarity import dense_similarity, use_fused
from denseav.train.loss.info_nce import info_nce

ROOT = Path(__file__).resolve().parents[2]
HOP_S = TOKEN_HOP_SAMPLES / 16_000
LEAST_FPS, MOST_P99_MS, LEAST_TIMES = 200.0, 8.0, 30.0
GPU_DEVICES = ("trt", "cuda", "webgpu")
LARGEST_BATCH = 320
WAYS = ("plain", "chunked", "fused")
PAIRED = 64
"""So many clips are compared with as many pictures; all volumes of them have 1.4 GB."""
LARGER_UNTIL_S = 480.0  # after that no larger batches are tried: the run is to end in ten minutes
_STARTED_S = time.monotonic()


def main() -> int:
    """Parse, measure part by part, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--small", action="store_true", help="the demo's bundle and network, in one precision"
    )
    parser.add_argument("--work", type=Path, help="keep the exported bundles here, and use them")
    parser.add_argument("--seconds", type=float, default=8.0, help="each live measurement")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("PyTorch finds no NVIDIA GPU; use --device cpu --small")
    rows: list[dict[str, Any]] = []
    source = str(ROOT / "configs" / "models" / ("demo.json" if options.small else "denseav.json"))
    with workplace(options.work) as work:
        precisions = ("fp32",) if options.small else ("fp32", "fp16")
        failed = {} if options.small else _export(source, work, precisions, options.device)
        for precision in precisions:
            with _row(rows, "bundle", precision) as row:
                if precision in failed:
                    raise RuntimeError(failed[precision])
                bundle = open_bundle(demo_folder() if options.small else work / f"gpu-{precision}")
                row["megabytes"] = sum(p.stat().st_size for p in bundle.folder.iterdir()) / 1e6
                _devices(rows, bundle, precision, options)
    with _row(rows, "released way", options.device) as row:
        row |= _released(load(source), options)
    _training(rows, source, options)
    with _row(rows, "tests", "marked gpu") as row:
        files = [str(f) for f in ROOT.glob("tests/**/test_*.py") if "mark.gpu" in f.read_text()]
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "gpu", "-rs", *files]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        row["result"] = done.stdout.strip().splitlines()[-1]
    record = {"benchmark": "gpu", "gpu": _gpu(options.device), "rows": rows}
    return finish([_table(rows)], record, _checks(rows, options))


def _gpu(device: str) -> dict[str, str]:
    """Return what the figures depend on, beside the machine."""
    facts = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
    if device == "cuda":
        capability = ".".join(map(str, torch.cuda.get_device_capability()))
        facts |= {"gpu": torch.cuda.get_device_name(), "compute_capability": capability}
    return facts


class _Warnings(logging.Handler):
    """What the program warned of, such as a device without CUDA graphs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one message."""
        self.said.append(record.getMessage())


@contextmanager
def _row(rows: list[dict[str, Any]], part: str, case: str) -> Iterator[dict[str, Any]]:
    """Give a row of the record; what fails has its reason there, and the others go on."""
    say(f"{part}: {case}")
    row: dict[str, Any] = {"part": part, "case": case}
    warnings = _Warnings()
    logging.getLogger("denseav").addHandler(warnings)
    begin_s = time.perf_counter()
    try:
        yield row
    except Exception as error:  # noqa: BLE001 - whatever fails on a GPU, the table is to be whole
        row["skipped"] = (str(error).splitlines() or [type(error).__name__])[0]
    finally:
        logging.getLogger("denseav").removeHandler(warnings)
    if warnings.said:
        row["warned"] = "; ".join(warnings.said)
    row["took_s"] = round(time.perf_counter() - begin_s, 1)
    rows.append(row)


def _export(source: str, work: Path, precisions: tuple[str, ...], device: str) -> dict[str, str]:
    """Export what `work` does not hold yet, all at once; return what failed and why."""
    main = "from denseav.export.cli import main; exit(main())"
    exports = {}
    for precision in precisions:
        if not (folder := work / f"gpu-{precision}").exists():
            options = [source, "--out", str(folder), *_engine_options(precision, device)]
            command = [sys.executable, "-c", main, *options]
            exports[precision] = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    said = {precision: export.communicate()[1] for precision, export in exports.items()}
    return {
        precision: said[precision].strip().splitlines()[-1]
        for precision, export in exports.items()
        if export.returncode
    }


def _engine_options(precision: str, device: str) -> tuple[str, ...]:
    """Return how engines are asked for that fit the card, where a library here builds any."""
    card = ".".join(map(str, torch.cuda.get_device_capability())) if device == "cuda" else None
    if importlib.util.find_spec("tensorrt_rtx") and card in (None, *RTX_CAPABILITIES):
        return "--trt", precision
    if importlib.util.find_spec("tensorrt") and card is not None:
        return "--trt", precision, "--trt-builder", "tensorrt"
    return "--precision", precision


def _devices(
    rows: list[dict[str, Any]], bundle: Bundle, precision: str, options: argparse.Namespace
) -> None:
    devices = GPU_DEVICES if options.device == "cuda" else ("cpu", "openvino:CPU")
    for device in devices:
        graphs = ("1", "0") if device in ("trt", "cuda") else ("",)
        for recorded in graphs:
            os.environ["DENSEAV_CUDA_GRAPHS"] = recorded or "1"
            case = f"{device} {precision}{'' if recorded != '0' else ', no CUDA graphs'}"
            ways: tuple[AudioWay, ...] = ("window",) if recorded == "0" else ("window", "streaming")
            for audio in ways:
                with _row(rows, f"live, {audio}", case) as row:
                    row |= _live(bundle, device, audio, options)


def _live(
    bundle: Bundle, device: str, way: AudioWay, options: argparse.Namespace
) -> dict[str, Any]:
    """Encode pictures one after another, with an audio pass in each hop on a thread of its own."""
    before_mb = _gpu_mb(options.device)
    session, proof = open_proven(bundle, device, audio=way)
    proof = proof or prove(session, bundle, way)
    image, audio = bundle.manifest.image, bundle.manifest.audio
    pictures = probe_inputs.frames(4, image.height, image.width)
    wave_S = probe_inputs.sounds(1, audio.window_samples)[0]
    hear = _listener(session, wave_S, way)
    latest, stop = [hear()], threading.Event()

    def listen() -> list[float]:
        audio_ms: list[float] = []
        while not (audio_ms and stop.is_set()):
            begin_s = time.perf_counter()
            latest[0] = hear()
            took_s = time.perf_counter() - begin_s
            audio_ms.append(1000 * took_s)
            stop.wait(max(0.0, HOP_S - took_s))
        return audio_ms

    times_ms: list[float] = []
    with ThreadPoolExecutor(1) as thread:
        listening = thread.submit(listen)
        begin_s = time.perf_counter()
        try:
            while time.perf_counter() - begin_s < options.seconds:
                start_s = time.perf_counter()
                features = session.encode_image(pictures[len(times_ms) % 4])
                session.heatmap(features, latest[0], audio.tokens - 1)
                times_ms.append(1000 * (time.perf_counter() - start_s))
        finally:
            took_s = time.perf_counter() - begin_s
            stop.set()
    figures = {"cosine": proof.least_cosine, "fps": len(times_ms) / took_s}
    figures["audio_ms"] = float(np.median(listening.result()))
    return figures | _percentiles(times_ms) | _used_mb(options.device, before_mb)


def _listener(session: Session, wave_S: NDArray[np.float32], way: AudioWay) -> Callable[[], Any]:
    if way == "window":
        return lambda: session.encode_audio(wave_S)
    stream, level = session.audio_stream(), Level.of(wave_S)
    return lambda: stream.step(wave_S[:TOKEN_SPAN_SAMPLES], level)


def _percentiles(times_ms: list[float]) -> dict[str, float]:
    return {f"p{p}_ms": float(np.percentile(times_ms, p)) for p in (50, 95, 99)}


def _gpu_mb(device: str) -> float:
    """Return what the GPU holds, of this process and any other, once nothing is kept for later."""
    if device == "cpu":
        return 0.0
    gc.collect()
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 1e6


def _used_mb(device: str, before_mb: float) -> dict[str, float]:
    if device == "cpu":
        return {}
    free, total = torch.cuda.mem_get_info()
    return {"gpu_mb": (total - free) / 1e6 - before_mb}


@torch.no_grad()
def _released(model: DenseAV, options: argparse.Namespace) -> dict[str, Any]:
    """Encode one picture and the whole window for every heatmap."""
    device, before_mb = torch.device(options.device), _gpu_mb(options.device)
    half = options.device == "cuda"  # PyTorch computes halves on a CPU ten times slower
    dtype = torch.float16 if half else torch.float32
    model = model.to(device, dtype).eval()
    height, width = model.config.frame_size
    window_s = 2 if options.small else 10
    pixels_13HW = torch.rand(1, 3, height, width, device=device, dtype=dtype)
    wave_1S = torch.randn(1, window_s * 16_000, device=device, dtype=dtype)
    times_ms: list[float] = []
    begin_s = time.perf_counter()
    while len(times_ms) < 3 or time.perf_counter() - begin_s < options.seconds:
        start_s = time.perf_counter()
        image, audio = model.encode_image(pixels_13HW), model.encode_audio(wave_1S)
        similarity_slice(image[0], audio[0, :, :, -1]).cpu()
        times_ms.append(1000 * (time.perf_counter() - start_s))
    figures = _percentiles(times_ms[1:]) | _used_mb(options.device, before_mb)
    return figures | {"fps": 1000 / float(np.mean(times_ms[1:])), "precision": str(dtype)}


def _training(rows: list[dict[str, Any]], source: str, options: argparse.Namespace) -> None:
    batch = 2 if options.small else 10
    model = load(source).to(options.device)
    for way in WAYS:
        with _row(rows, "similarities", f"{way}, {_paired(options)} clips and pictures") as row:
            row |= _aggregation(model, way, options)
    for dtype in (torch.float32, torch.bfloat16):
        for way in WAYS:
            name = f"{way}, {str(dtype).removeprefix('torch.')}"
            with _row(rows, "training step", f"{name}, batch {batch}") as row:
                row |= _step(model=model, batch=batch, way=way, dtype=dtype, options=options)
            if options.device == "cuda":
                with _row(rows, "training step", f"{name}, the largest that fits") as row:
                    row |= _largest_step(model, batch, way, dtype, options)
    with _row(rows, "training step", f"chunked, bfloat16, compiled, batch {batch}") as row:
        compiled = copy.deepcopy(model)
        compile_layers(compiled)
        row |= _step(compiled, batch, "chunked", torch.bfloat16, options)
        del compiled
    with _row(rows, "FSDP, one process", "chunked, float32") as row, _process_group(options):
        mesh = init_device_mesh(options.device, (1,), mesh_dim_names=("data_parallel",))
        model = shard(model, mesh)
        for method in ("encode_image", "encode_audio"):  # weights are gathered as these are called
            register_fsdp_forward_method(model, method)
        row |= _step(model=model, batch=batch, way="chunked", dtype=torch.float32, options=options)


def _paired(options: argparse.Namespace) -> int:
    return 2 if options.small else PAIRED


def _aggregation(model: DenseAV, way: str, options: argparse.Namespace) -> dict[str, Any]:
    """Time similarities and their gradients, and hold them to the chunked ones."""
    count, heads, channels = _paired(options), len(model.config.heads), model.config.channels
    generator = torch.Generator().manual_seed(0)
    shapes = (count, heads, channels, 28, 28), (count, heads, channels, 10 if options.small else 55)
    leaves = [torch.randn(s, generator=generator).to(options.device) for s in shapes]
    grad_AV = torch.randn(count, count, generator=generator).to(options.device)

    def compute(by: str) -> list[Tensor]:
        image, audio = (leaf.clone().requires_grad_() for leaf in leaves)
        sims_AV = _similarities(model, image, audio, by)
        sims_AV.backward(grad_AV)
        assert image.grad is not None
        assert audio.grad is not None
        return [sims_AV.detach().cpu(), image.grad.cpu(), audio.grad.cpu()]

    expected = compute("chunked")
    compute(way)  # the kernel is compiled, memory is there
    _gpu_mb(options.device)
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    begin_s = time.perf_counter()
    found = compute(way)
    figures = {"step_ms": 1000 * (time.perf_counter() - begin_s)}
    if options.device == "cuda":
        figures["gpu_mb"] = torch.cuda.max_memory_allocated() / 1e6
    off = max(
        float((one - other).abs().max() / other.abs().max())
        for one, other in zip(found, expected, strict=True)
    )
    return figures | {"result": f"off by {off:.1e} of the largest"}


def _largest_step(
    model: DenseAV, batch: int, way: str, dtype: torch.dtype, options: argparse.Namespace
) -> dict[str, Any]:
    """Double the batch until it no longer fits, or there is no time."""
    largest: dict[str, Any] = {}
    while (batch := batch * 2) <= LARGEST_BATCH:
        if time.monotonic() - _STARTED_S > LARGER_UNTIL_S:
            return largest | {"result": f"batch {largest.get('batch')}; no time for more"}
        try:
            step = _step(model=model, batch=batch, way=way, dtype=dtype, options=options)
        except torch.OutOfMemoryError:
            return largest | {"result": f"batch {largest.get('batch')}; {batch} does not fit"}
        largest = step | {"batch": batch, "result": f"batch {batch}; no larger was tried"}
    return largest


@contextmanager
def _process_group(options: argparse.Namespace) -> Iterator[None]:
    backend = "nccl" if options.device == "cuda" else "gloo"
    with tempfile.TemporaryDirectory() as folder:
        torch.distributed.init_process_group(
            backend, init_method=f"file://{folder}/store", rank=0, world_size=1
        )
        try:
            yield
        finally:
            torch.distributed.destroy_process_group()


def _step(
    model: DenseAV, batch: int, way: str, dtype: torch.dtype, options: argparse.Namespace
) -> dict[str, Any]:
    """Time the second of two training steps: the first one fills caches."""
    device = options.device
    _gpu_mb(device)  # what the step before left goes first
    model.train().zero_grad()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    height, width = model.config.frame_size
    image_B3HW = torch.rand(batch, 3, height, width, device=device)
    wave_BS = torch.randn(batch, (2 if options.small else 10) * 16_000, device=device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    step_s = 0.0
    for _ in range(2):
        begin_s = time.perf_counter()
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            image, audio = model.encode_image(image_B3HW), model.encode_audio(wave_BS)
        loss = info_nce(_similarities(model, image.float(), audio.float(), way), slice(0, batch))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        step_s = time.perf_counter() - begin_s
    figures = {"step_ms": 1000 * step_s}
    if device == "cuda":
        figures["gpu_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return figures


def _similarities(model: DenseAV, image: Tensor, audio: Tensor, way: str) -> Tensor:
    mask_AT = torch.ones(len(audio), audio.shape[-1], dtype=torch.bool, device=audio.device)
    use_fused(way == "fused")
    if way != "plain":
        return dense_similarity(image, audio, mask_AT)
    return aggregate(all_volumes(image, audio), mask_AT, model.config.aggregation, join_heads=True)


def _checks(rows: list[dict[str, Any]], options: argparse.Namespace) -> list[Check]:
    if options.device == "cpu":
        return []
    live = [row for row in rows if row["part"].startswith("live") and "fps" in row]
    best = max(live, key=lambda row: row["fps"], default={})
    released = next((row for row in rows if row["part"] == "released way"), {})
    times = best["fps"] / released["fps"] if best and "fps" in released else None
    return [
        at_least("frames a second, best", best.get("fps"), LEAST_FPS),
        at_most("p99 of it, ms", best.get("p99_ms"), MOST_P99_MS),
        at_least("times the released way", times, LEAST_TIMES),
    ]


def _table(rows: list[dict[str, Any]]) -> Table:
    names = ("cosine", "fps", "audio_ms", "step_ms", "gpu_mb")
    table = Table("part, case", "p50, p95, p99 ms", *names, "note", title="GPU")
    for row in rows:
        times = " ".join(f"{row[f'p{p}_ms']:.1f}" for p in (50, 95, 99) if f"p{p}_ms" in row)
        cells = (times, *(f"{row[name]:.4g}" if name in row else "" for name in names))
        notes = (row[name] for name in ("skipped", "result", "warned", "precision") if name in row)
        note = "; ".join(map(str, notes))
        table.add_row(f"{row['part']}: {row['case']}", *cells, note)
    return table


if __name__ == "__main__":
    raise SystemExit(main())
