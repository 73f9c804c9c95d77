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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundles import Case, full_size, workplace
from common import FULL_SIZE, finish, say
from numpy.typing import NDArray
from rich.table import Table

from denseav.export import probe
from denseav.export.bundle import Manifest
from denseav.export.graphs import make_graphs
from denseav.export.parity import TOLERANCES, Heats, measure
from denseav.export.session import Session, open_session
from denseav.models import load

# Together they have every frame size and window that is asked about.
CASES = (
    Case(frame_size=(224, 296), window_s=10),
    Case(frame_size=(224, 224), window_s=4),
    Case(frame_size=(224, 296), window_s=2),
)
PRECISIONS = ("fp32", "fp16", "int8")
THREADS = (1, 2)
WORTH_IT = 1.5  # int8 must be so much faster than fp32 to be an option


class Mixed:
    """Pictures encoded by one session, sounds by another; both give float32 features."""

    backend, precision = "onnxruntime-cpu", "mixed"

    def __init__(self, pictures: Session, sounds: Session) -> None:
        self.image, self.audio, self.heatmap = pictures.image, sounds.audio, sounds.heatmap


@dataclass(frozen=True, eq=False)
class Probe:
    """Pictures `uint8 [N, H, W, 3]` and sounds `float32 [N, S]`, and which token is asked for."""

    pictures_NHW3: NDArray[np.uint8]
    sounds_NS: NDArray[np.float32]
    newest: int

    def heatmaps(self, session: Session) -> Heats:
        """Return each picture's heatmap `[N, K, H, W]` with each sound."""
        pictures = [session.image(picture) for picture in self.pictures_NHW3]
        sounds = [session.audio(sound) for sound in self.sounds_NS]
        return np.stack([session.heatmap(p, s, self.newest) for p in pictures for s in sounds])


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
            _measure(case, work, options.seconds, speed, parity)
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
    probes = _probe(manifest)
    network = load(FULL_SIZE)
    network.prepare_export(*case.frame_size)
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
        "int8 image, fp32 audio": Mixed(opened["int8"], opened["fp32"]),
        "fp32 image, int8 audio": Mixed(opened["fp32"], opened["int8"]),
    }
    names = [head.name for head in manifest.heads]
    for what, session in (opened | mixed).items():
        say(f"{case}: parity of {what}")
        for head, figures in measure(reference, probes.heatmaps(session), names).items():
            parity.append({"case": str(case), "what": what, "head": head} | asdict(figures))


def _probe(manifest: Manifest) -> Probe:
    pictures_NHW3 = probe.frames(4, manifest.image.height, manifest.image.width)
    sounds_NS = probe.sounds(4, manifest.audio.window_samples)
    return Probe(pictures_NHW3, sounds_NS, manifest.audio.tokens - 1)


def _times(
    what: str, session: Session, case: Case, threads: int, probes: Probe, seconds: float
) -> list[dict[str, Any]]:
    (height, width), picture, sound = case.frame_size, probes.pictures_NHW3[0], probes.sounds_NS[0]
    calls: dict[str, Callable[[], object]] = {
        f"image {height}x{width}": lambda: session.image(picture),
        f"audio {case.window_s:g} s": lambda: session.audio(sound),
    }
    found = []
    for graph, call in calls.items():
        ms = _median_ms(call, seconds)
        say(f"{case}: {graph}, {what}, {threads} threads: {ms:.0f} ms")
        found.append({"graph": graph, "what": what, "threads": threads, "ms": round(ms, 1)})
    return found


def _median_ms(call: Callable[[], object], seconds: float) -> float:
    """Return the median of at least three calls and of `seconds` of them, after one uncounted."""
    call()
    times_ms: list[float] = []
    while len(times_ms) < 3 or sum(times_ms) < 1000 * seconds:
        started_s = time.perf_counter()
        call()
        times_ms.append(1000 * (time.perf_counter() - started_s))
    return statistics.median(times_ms)


def _by_graph(speed: list[dict[str, Any]]) -> dict[tuple[str, str], dict[int, float]]:
    """Return the milliseconds by (graph, what) and threads; the best where measured twice."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for row in speed:
        times_ms = found.setdefault((row["graph"], row["what"]), {})
        times_ms[row["threads"]] = min(row["ms"], times_ms.get(row["threads"], row["ms"]))
    return dict(sorted(found.items(), key=lambda item: item[0][0], reverse=True))


def _int8(speed: list[dict[str, Any]], parity: list[dict[str, Any]]) -> dict[str, Any]:
    """Say whether int8 is within fp16's tolerance, and how much faster than fp32 at the least."""
    times = _by_graph(speed)
    ratios = {
        f"{graph}, {threads} threads": round(ms / times[graph, "ONNX Runtime int8"][threads], 2)
        for (graph, what), by_threads in times.items()
        if what == "ONNX Runtime fp32"
        for threads, ms in by_threads.items()
    }
    cosine = min(row["cosine"] for row in parity if row["what"] == "int8")
    rank = min(row["rank_correlation"] for row in parity if row["what"] == "int8")
    least = TOLERANCES["fp16"]
    within = cosine >= least.cosine and rank >= least.rank_correlation
    return {
        "faster_than_fp32": ratios,
        "lowest_cosine": cosine,
        "lowest_rank_correlation": rank,
        "within_tolerance": within,
        "worth_offering": within and min(ratios.values()) >= WORTH_IT,
    }


def _speed_table(speed: list[dict[str, Any]]) -> Table:
    columns = [f"{threads} thread{'s'[: threads - 1]}, ms" for threads in THREADS]
    table = Table("graph", "runs on", *columns, title="time of one pass (median)")
    for (graph, what), times_ms in _by_graph(speed).items():
        table.add_row(graph, what, *(f"{times_ms[threads]:.0f}" for threads in THREADS))
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
