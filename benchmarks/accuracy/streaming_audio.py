"""The audio encoder a token at a time against whole windows: agreement, cost and drift.

PyTorch in float32 on one thread, so that every setting is the same code: full size with random
weights, and the demo network, on the demo clip's audio. A stream is compared with a window as long
as what it remembers, on heatmaps of four pictures with its newest token, and with its newest but
one (look-ahead 1). Cost is processor time, which other work on the machine changes little. Drift
is a stream of ten minutes against one that began a minute before its end.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
import torch
from rich.table import Table

from benchmarks.support.common import FULL_SIZE, ROOT, Check, at_least, finish, say
from denseav.export.builder import probe_inputs
from denseav.export.builder.graphs import Graphs, make_graphs
from denseav.export.runtime.bundle import (
    SAMPLE_RATE_HZ,
    TOKEN_HOP_SAMPLES,
    TOKEN_SPAN_SAMPLES,
    Bundle,
    open_bundle,
    window_samples,
)
from denseav.export.runtime.onnx_session import OnnxSession
from denseav.export.runtime.proof import Heats, measure
from denseav.export.runtime.session import Level
from denseav.models import DenseAV, load
from denseav.models.streaming_mask import StreamConfig

CONTEXTS = {2: 11, 4: 22, 10: 56}  # seconds, tokens
REVISITS = (0, 1, 3, 7)
POINTS = {"full": 6, "demo": 40}  # at which heatmaps are compared
APART = {"full": 3, "demo": 2}  # tokens
AUDIBLE_TOKENS = 154  # of the demo clip; after them nothing sounds
TEN_MINUTES, MINUTE = 3333, 333  # tokens
NETWORKS = {"full": (FULL_SIZE, (224, 296)), "demo": ("demo", (128, 168))}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One setting: agreement of heatmaps with the window's, and the time of a hop."""

    network: str
    context_s: int
    revisit: int
    cosine: float
    cosine_ahead: float | None
    argmax_agreement: float
    step_cpu_ms: float
    window_cpu_ms: float

    @property
    def times_less(self) -> float:
        """How many times less one step costs than one window."""
        return self.window_cpu_ms / self.step_cpu_ms


class Probe:
    """A network, its pictures, and a wave for all settings alike."""

    def __init__(self, name: str) -> None:
        source, self.frame_size = NETWORKS[name]
        self.name = name
        self.model = load(source)
        self.model.prepare_export(*self.frame_size)
        self.wave_S = _clip_audio()[: window_samples(AUDIBLE_TOKENS)]
        self.level = Level.of(self.wave_S)
        points = reversed(range(POINTS[name]))
        self.ends = [AUDIBLE_TOKENS - APART[name] * point for point in points]
        graphs = make_graphs(self.model)
        pictures = probe_inputs.frames(4, *self.frame_size, seed=4)
        self.images = [graphs.encode_image(picture) for picture in pictures]

    def heats(self, graphs: Graphs, audio: Any, token: int) -> list[np.ndarray]:
        """Return each picture's heatmap with one token."""
        return [graphs.heatmap(image, audio, token) for image in self.images]

    def token(self, index: int) -> np.ndarray:
        """Return the samples of one token of the wave."""
        return self.wave_S[index * TOKEN_HOP_SAMPLES :][:TOKEN_SPAN_SAMPLES]


def _clip_audio() -> np.ndarray:
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)
    with av.open(str(ROOT / "stream" / "demo" / "clip.mp4")) as container:
        blocks = [b for frame in container.decode(audio=0) for b in resampler.resample(frame)]
    return np.concatenate([block.to_ndarray()[0] for block in blocks]).astype(np.float32)


def main() -> int:
    """Parse, measure network by network, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--plot", type=Path, help="write accuracy against cost to this PNG")
    parser.add_argument(
        "--records",
        nargs="+",
        type=Path,
        default=[],
        metavar="JSON",
        help="what this benchmark and `hearing` printed before: drawn by --plot, not measured",
    )
    parser.add_argument(
        "--bundles", nargs="+", type=Path, default=[], metavar="DIR", help="exported: cost alone"
    )
    parser.add_argument("--drift", action="store_true", help="ten minutes of audio as well")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.records and options.plot:
        records = [json.loads(path.read_text()) for path in options.records]
        own = [r for r in records if r["benchmark"] == "streaming_audio"]
        rows = [Row(**row) for record in own for row in record["rows"]]
        _plot(rows, options.plot, [r for r in records if r["benchmark"] == "hearing"])
        return 0
    if options.bundles:
        costs = [_bundle_cost(folder) for folder in options.bundles]
        record = {"benchmark": "streaming_audio", "bundles": [asdict(cost) for cost in costs]}
        return finish([_cost_table(costs)], record, [])
    rows = [row for name in options.networks for row in _settings(Probe(name))]
    drifts = [_drift(name) for name in options.networks] if options.drift else []
    if options.plot:
        _plot(rows, options.plot)
    record = {"benchmark": "streaming_audio", "rows": [asdict(row) for row in rows]}
    checks = [check for drift in drifts for check in drift]
    return finish([_table(rows)], record, checks)


def _settings(probe: Probe) -> list[Row]:
    rows = []
    for context_s, context_tokens in CONTEXTS.items():
        window_heats, window_ms = _windows(probe, context_tokens + 1)
        for revisit in REVISITS:
            config = StreamConfig(context_tokens=context_tokens, revisit=revisit)
            heats, step_ms = _stream(probe, config)
            agreed = _agreement(window_heats[0], heats[0])
            ahead = None if revisit == 0 else _agreement(window_heats[1], heats[1])["cosine"]
            rows.append(
                Row(
                    network=probe.name,
                    context_s=context_s,
                    revisit=revisit,
                    cosine=agreed["cosine"],
                    cosine_ahead=ahead,
                    argmax_agreement=agreed["argmax_agreement"],
                    step_cpu_ms=step_ms,
                    window_cpu_ms=window_ms,
                )
            )
            say(f"{rows[-1]}")
    return rows


def _windows(probe: Probe, tokens: int) -> tuple[tuple[Heats, Heats], float]:
    """Return heatmaps of the newest and the newest but one token of windows, and their time."""
    graphs, newest, ahead, times_ms = make_graphs(probe.model), [], [], []
    for end in probe.ends:
        stop = window_samples(end)
        wave_S = probe.wave_S[stop - window_samples(tokens) : stop]
        normed_S = torch.from_numpy(probe.level.normalized(wave_S))
        audio, cpu_ms = _timed(lambda normed_S=normed_S: _encode(graphs, normed_S))
        newest += probe.heats(graphs, audio, tokens - 1)
        ahead += probe.heats(graphs, audio, tokens - 2)
        times_ms.append(cpu_ms)
    return (np.stack(newest), np.stack(ahead)), median(times_ms)


@torch.no_grad()
def _encode(graphs: Graphs, normed_S: torch.Tensor) -> torch.Tensor:
    features: torch.Tensor = graphs.audio_graph(normed_S)
    return features


def _stream(probe: Probe, config: StreamConfig) -> tuple[tuple[Heats, Heats], float]:
    """Return the same of a stream that has filled its memory before, and a step's time."""
    graphs = make_graphs(probe.model, config, tokens=max(2, config.active_tokens))
    last = max(2, config.active_tokens) - 1
    stream, newest, ahead, times_ms = graphs.audio_stream(), [], [], []
    for index in range(probe.ends[0] - config.tokens, probe.ends[-1]):
        samples_S = probe.token(index)
        audio, cpu_ms = _timed(lambda samples_S=samples_S: stream.step(samples_S, probe.level))
        if index + 1 in probe.ends:
            newest += probe.heats(graphs, audio, last)
            ahead += probe.heats(graphs, audio, last - 1)
            times_ms.append(cpu_ms)
    return (np.stack(newest), np.stack(ahead)), median(times_ms)


@dataclass(frozen=True, kw_only=True)
class BundleCost:
    """Processor time of a bundle's passes, by ONNX Runtime on one thread."""

    bundle: str
    precision: str
    revisit: int
    image_cpu_ms: float
    step_cpu_ms: float
    window_cpu_ms: float


def _bundle_cost(folder: Path) -> BundleCost:
    bundle = open_bundle(folder)
    manifest = bundle.manifest
    assert manifest.audio_step is not None
    wave_S = probe_inputs.sounds(1, manifest.audio.window_samples)[0]
    image_ms, step_ms = _streaming_ms(bundle, wave_S)  # both ways at once would be much memory
    windowed = OnnxSession(bundle)
    return BundleCost(
        bundle=folder.name,
        precision=manifest.step_precision or manifest.precision,
        revisit=manifest.audio_step.revisit,
        image_cpu_ms=image_ms,
        step_cpu_ms=step_ms,
        window_cpu_ms=_median_ms(lambda: windowed.encode_audio(wave_S), 3),
    )


def _streaming_ms(bundle: Bundle, wave_S: np.ndarray) -> tuple[float, float]:
    """Return how long a picture and a step take."""
    session, size = OnnxSession(bundle, audio="streaming"), bundle.manifest.image
    picture_HW3 = probe_inputs.frames(1, size.height, size.width)[0]
    stream, samples_S, level = session.audio_stream(), wave_S[:TOKEN_SPAN_SAMPLES], Level.of(wave_S)
    image_ms = _median_ms(lambda: session.encode_image(picture_HW3), 5)
    return image_ms, _median_ms(lambda: stream.step(samples_S, level), 15)


def _median_ms(call: Callable[[], Any], times: int) -> float:
    return median(_timed(call)[1] for _ in range(times))


def _cost_table(costs: list[BundleCost]) -> Table:
    table = Table("bundle", "step in", "revisit", title="ONNX Runtime, one thread")
    for column in ("image, CPU ms", "step, CPU ms", "window, CPU ms", "times less"):
        table.add_column(column, justify="right")
    for cost in costs:
        table.add_row(
            cost.bundle,
            cost.precision,
            f"{cost.revisit}",
            f"{cost.image_cpu_ms:.0f}",
            f"{cost.step_cpu_ms:.1f}",
            f"{cost.window_cpu_ms:.0f}",
            f"{cost.window_cpu_ms / cost.step_cpu_ms:.1f}",
        )
    return table


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    started_s = time.process_time()
    result = call()
    return result, 1000 * (time.process_time() - started_s)


def _agreement(reference: Heats, measured: Heats) -> dict[str, float]:
    """Return each figure of agreement, the mean over heads."""
    heads = [str(head) for head in range(reference.shape[1])]
    figures = [asdict(parity) for parity in measure(reference, measured, heads).values()]
    return {name: float(np.mean([f[name] for f in figures])) for name in figures[0]}


def _drift(name: str) -> list[Check]:
    """Compare a stream of ten minutes with one of its last minute.

    At full size with two layers: drift is rounding that adds up, and a layer's depth.
    """
    probe = Probe(name)
    model = probe.model if name == "demo" else _two_layers(probe.model)
    config = StreamConfig(context_tokens=CONTEXTS[2], revisit=1)
    graphs = make_graphs(model, config, tokens=2)
    long, fresh = graphs.audio_stream(), graphs.audio_stream()
    wave_S = probe_inputs.sounds(1, window_samples(TEN_MINUTES), seed=5)[0]
    level = Level.of(wave_S)
    for index in range(TEN_MINUTES):
        samples_S = wave_S[index * TOKEN_HOP_SAMPLES :][:TOKEN_SPAN_SAMPLES]
        audio = long.step(samples_S, level)
        if index >= TEN_MINUTES - MINUTE:
            fresh_audio = fresh.step(samples_S, level)
    a = np.stack(probe.heats(graphs, fresh_audio, 1))
    b = np.stack(probe.heats(graphs, audio, 1))
    cosine = _agreement(a, b)["cosine"]
    return [at_least(f"{name}: heatmap cosine after ten minutes", cosine, 0.9999)]


def _two_layers(model: DenseAV) -> DenseAV:
    audio = dataclasses.replace(model.config.audio, layers=2)
    model.config = dataclasses.replace(model.config, audio=audio)
    del model.audio_encoder.hubert.encoder.layers[2:]
    return model


def _table(rows: list[Row]) -> Table:
    table = Table("network", "context, s", "revisit", "cosine", "one ahead", "same peak, %")
    for column in ("step, CPU ms", "window, CPU ms", "times less"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row.network,
            f"{row.context_s}",
            f"{row.revisit}",
            f"{row.cosine:.4f}",
            "" if row.cosine_ahead is None else f"{row.cosine_ahead:.4f}",
            f"{100 * row.argmax_agreement:.0f}",
            f"{row.step_cpu_ms:.1f}",
            f"{row.window_cpu_ms:.0f}",
            f"{row.times_less:.1f}",
        )
    return table


def _plot(rows: list[Row], path: Path, heard: Sequence[Any] = ()) -> None:
    """Draw agreement with the window against cost; and the demo's pointing, where it was heard."""
    from matplotlib.figure import Figure

    networks = list(dict.fromkeys(row.network for row in rows))
    figure = Figure(figsize=(4.2 * (len(networks) + bool(heard)), 3.4), layout="constrained")
    panels = list(np.atleast_1d(figure.subplots(1, len(networks) + bool(heard))))
    for axes, network in zip(panels, networks, strict=False):
        of_network = [row for row in rows if row.network == network]
        _panel(axes, [(100 / row.times_less, row.cosine, row) for row in of_network])
        axes.set(title=network, ylabel="heatmap cosine with the window")
        axes.set(xlabel="a step's share of a window's CPU time, %")
    if heard:
        pointing = _pointing(heard)
        of_demo = [row for row in rows if row.network == "demo"]
        keyed = [(row, pointing.get((CONTEXTS[row.context_s], row.revisit))) for row in of_demo]
        drawn = [(row.step_cpu_ms, points, row) for row, points in keyed if points is not None]
        _panel(panels[-1], drawn)
        panels[-1].axhline(0, color="grey", linewidth=0.8)
        panels[-1].set(title="demo", ylabel="pointing against the window of 2 s, points")
        panels[-1].set(xlabel="a step, CPU ms")
    figure.savefig(path, dpi=90)


def _panel(axes: Any, drawn: list[tuple[float, float, Row]]) -> None:
    for context_s in CONTEXTS:
        line = [point for point in drawn if point[2].context_s == context_s]
        line.sort(key=lambda point: point[2].revisit)
        axes.plot([x for x, _, _ in line], [y for _, y, _ in line], "o-", label=f"{context_s} s")
        for x, y, row in line:
            axes.annotate(
                f"{row.revisit}", (x, y), xytext=(3, 4), textcoords="offset points", fontsize=7
            )
    axes.legend(title="remembered", fontsize=7, title_fontsize=7)


def _pointing(heard: Sequence[Any]) -> dict[tuple[int, int], float]:
    """Return by how many points streams point better than the window, of `hearing`'s records.

    The mean over records, heads and the tokens of look-ahead, 0 and 1, that a stream has.
    """
    found: dict[tuple[int, int], list[float]] = {}
    for record in heard:
        rows = [row for row in record["rows"] if row["normalised_by"] == "recent"]
        (window,) = (row["figures"] for row in rows if row["streamed"] is None)
        for row in rows:
            if row["streamed"] is None:
                continue
            setting = row["streamed"]["context_tokens"], row["streamed"]["revisit"]
            for head in ("sound", "speech"):
                for name in (f"pointing {head} {ahead}" for ahead in (0, 1)):
                    if name in row["figures"]:
                        better = row["figures"][name]["percent"] - window[name]["percent"]
                        found.setdefault(setting, []).append(better)
    return {setting: float(np.mean(points)) for setting, points in found.items()}


if __name__ == "__main__":
    raise SystemExit(main())
