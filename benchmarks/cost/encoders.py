"""Speed and parity of the full-size encoders, with random weights: PyTorch against ONNX Runtime.

Everything runs through the session that runs live. Parity is measured on heatmaps (four pictures
times four sounds, the newest token), against PyTorch in float32. PyTorch in half precision is left
out: on a CPU it is ten times slower than in float32.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from benchmarks.support.bundles import Case, Probe, full_size, workplace
from benchmarks.support.common import FULL_SIZE, finish, say
from denseav.export.builder.graphs import make_graphs
from denseav.export.runtime.open_session import open_session
from denseav.export.runtime.proof import TOLERANCES, measure
from denseav.export.runtime.session import Session
from denseav.models import load

# Together they have every frame size and window that is asked about.
CASES = (
    Case(frame_size=(224, 296), window_s=10),
    Case(frame_size=(224, 224), window_s=4),
    Case(frame_size=(224, 296), window_s=2),
)
PRECISIONS = ("fp32", "fp16", "int8")
THREADS = (1, 2)
INT8 = {"int8": "", "int8 image only": "image", "int8 audio only": "audio"}  # and what it quickens
WORTH_IT = 1.5  # int8 must be so much faster than fp32 to be an option


class Mixed:
    """Pictures encoded by one session, sounds by another; both give float32 features."""

    backend, precision = "onnxruntime-cpu", "mixed"

    def __init__(self, pictures: Session, sounds: Session) -> None:
        self.image, self.audio, self.heatmap = pictures.image, sounds.audio, sounds.heatmap


def main() -> int:
    """Parse, measure case by case, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, help="keep the exported bundles here, and use them")
    parser.add_argument("--seconds", type=float, default=5.0, help="a measurement; default: 5")
    parser.add_argument("--cases", type=int, default=len(CASES), help="only the first so many")
    options = parser.parse_args()
    speed: list[dict[str, Any]] = []
    parity: list[dict[str, Any]] = []
    load_before = round(os.getloadavg()[0], 2)
    with workplace(options.work) as work:
        for case in CASES[: options.cases]:
            _measure(case=case, work=work, seconds=options.seconds, speed=speed, parity=parity)
    record = {"load_before": load_before, "speed": speed, "parity": parity}
    record |= {"benchmark": "encoders", "int8": _int8(speed, parity)}
    return finish([_speed_table(speed), _parity_table(parity)], record, [])


def _measure(
    case: Case,
    work: Path,
    seconds: float,
    speed: list[dict[str, Any]],
    parity: list[dict[str, Any]],
) -> None:
    """Add one case's figures."""
    bundles = {precision: full_size(work, case, precision) for precision in PRECISIONS}
    manifest = bundles["fp32"].manifest
    probes = Probe.of(manifest)
    network = load(FULL_SIZE)
    network.prepare_export(manifest.image.height, manifest.image.width)
    torch_session = make_graphs(network)
    say(f"{case}: PyTorch's heatmaps")
    reference = probes.heatmaps(torch_session)
    for threads in THREADS:
        torch.set_num_threads(threads)
        speed += _times("PyTorch fp32", torch_session, case, threads, probes, seconds)
        opened = {p: open_session(bundle, "cpu", threads) for p, bundle in bundles.items()}
        for precision, session in opened.items():
            speed += _times(f"ONNX Runtime {precision}", session, case, threads, probes, seconds)
    mixed = {
        "int8 image only": Mixed(opened["int8"], opened["fp32"]),
        "int8 audio only": Mixed(opened["fp32"], opened["int8"]),
    }
    names = [head.name for head in manifest.heads]
    for what, session in (opened | mixed).items():
        say(f"{case}: parity of {what}")
        for head, figures in measure(reference, probes.heatmaps(session), names).items():
            parity.append({"case": str(case), "what": what, "head": head} | asdict(figures))


def _times(
    what: str, session: Session, case: Case, threads: int, probes: Probe, seconds: float
) -> list[dict[str, Any]]:
    (height, width), picture, sound = case.frame_size, probes.pictures_NHW3[0], probes.sounds_NS[0]
    calls: dict[str, Callable[[], object]] = {
        f"image {height}x{width}": lambda: session.encode_image(picture),
        f"audio {case.window_s:g} s": lambda: session.encode_audio(sound),
    }
    found = []
    for graph, call in calls.items():
        ms, cpu_ms = _median_ms(call, seconds)
        say(f"{case}: {graph}, {what}, {threads} threads: {ms:.0f} ms")
        row = {"graph": graph, "what": what, "threads": threads}
        found.append(row | {"ms": round(ms, 1), "cpu_ms": round(cpu_ms, 1)})
    return found


def _median_ms(call: Callable[[], object], seconds: float) -> tuple[float, float]:
    """Time at least three calls, and `seconds` of them, after one uncounted.

    Returns the medians of the time on the wall and of the time of all threads together, which
    says more when other programs keep the machine busy.
    """
    call()
    wall_ms: list[float] = []
    cpu_ms: list[float] = []
    while len(wall_ms) < 3 or sum(wall_ms) < 1000 * seconds:
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        call()
        wall_ms.append(1000 * (time.perf_counter() - started_s))
        cpu_ms.append(1000 * (time.process_time() - started_cpu_s))
    return statistics.median(wall_ms), statistics.median(cpu_ms)


def _by_graph(speed: list[dict[str, Any]], kind: str) -> dict[tuple[str, str], dict[int, float]]:
    """Return `ms` or `cpu_ms` by (graph, what) and threads; the best where measured twice."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for row in speed:
        times_ms = found.setdefault((row["graph"], row["what"]), {})
        times_ms[row["threads"]] = min(row[kind], times_ms.get(row["threads"], row[kind]))
    return dict(sorted(found.items(), key=lambda item: item[0][0], reverse=True))


def _int8(speed: list[dict[str, Any]], parity: list[dict[str, Any]]) -> dict[str, Any]:
    """Say of each way to use int8 how near it is to PyTorch, and how much faster than fp32."""
    least, found = TOLERANCES["fp16"], {}
    for what, graphs in INT8.items():
        rows = [row for row in parity if row["what"] == what]
        cosine = min(row["cosine"] for row in rows)
        rank = min(row["rank_correlation"] for row in rows)
        faster = _faster(speed, graphs, "ms")
        within = cosine >= least.cosine and rank >= least.rank_correlation
        found[what] = {
            "lowest_cosine": cosine,
            "lowest_rank_correlation": rank,
            "faster": faster,
            "faster_by_cpu_time": _faster(speed, graphs, "cpu_ms"),
            "within_tolerance": within,
            "worth_offering": within and min(faster.values()) >= WORTH_IT,
        }
    return found


def _faster(speed: list[dict[str, Any]], graphs: str, kind: str) -> dict[str, float]:
    times = _by_graph(speed, kind)
    return {
        f"{graph}, {threads} threads": round(ms / times[graph, "ONNX Runtime int8"][threads], 2)
        for (graph, what), by_threads in times.items()
        if what == "ONNX Runtime fp32" and graph.startswith(graphs)
        for threads, ms in by_threads.items()
    }


def _speed_table(speed: list[dict[str, Any]]) -> Table:
    columns = [f"{threads} thread(s), ms" for threads in THREADS]
    table = Table("graph", "runs on", *columns, "CPU ms of 1", title="time of one pass (median)")
    cpu = _by_graph(speed, "cpu_ms")
    for name, times_ms in _by_graph(speed, "ms").items():
        values = [*(times_ms[threads] for threads in THREADS), cpu[name][THREADS[0]]]
        table.add_row(*name, *(f"{value:.0f}" for value in values))
    return table


def _parity_table(parity: list[dict[str, Any]]) -> Table:
    figures = ("cosine", "max_abs", "argmax_agreement", "rank_correlation")
    headers = [figure.replace("_", " ") for figure in figures]
    table = Table("case", "graphs", "head", *headers, title="heatmaps against PyTorch fp32")
    for row in parity:
        values = [f"{row[figure]:.6f}" for figure in figures]
        table.add_row(row["case"], row["what"], row["head"], *values)
    return table


if __name__ == "__main__":
    raise SystemExit(main())
