"""Checkpoint to bundle: graphs made, calibrated, compared with PyTorch, and only then kept.

A model enters, a folder that `open_bundle` accepts leaves. Whether that folder then takes its
final name is the caller's affair (`written_beside`).
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from denseav.export.builder import probe_inputs
from denseav.export.builder.graphs import Graph, Graphs, make_graphs
from denseav.export.builder.half_precision import half, spell_out_attention
from denseav.export.builder.head_names import Naming, with_names
from denseav.export.builder.head_scale import calibrate
from denseav.export.builder.int8 import LEAST_SHARE, quantize_products
from denseav.export.builder.shared_weights import borrow_weights
from denseav.export.builder.threshold_calibration import Pair, calibrate_on, provenance
from denseav.export.builder.torch_trt_engine import convert
from denseav.export.builder.trt_engine import (
    EngineTarget,
    compile_onnx,
    engines_here,
    write_engines,
)
from denseav.export.runtime.bundle import (
    AUDIO_STEP,
    SAMPLE_RATE_HZ,
    TOKEN_HOP_SAMPLES,
    TOKEN_SPAN_SAMPLES,
    AudioInput,
    AudioStep,
    Bundle,
    BundleError,
    ImageInput,
    Manifest,
    StateTensor,
    file_sha256,
    window_samples,
    write_manifest,
)
from denseav.export.runtime.onnx_session import OnnxSession
from denseav.export.runtime.proof import (
    TOLERANCES,
    Heats,
    Probes,
    failures,
    measure,
    reproduce,
    write_probes,
)
from denseav.export.runtime.session import HeatmapModel, Level, Session
from denseav.models import DenseAV, ModelConfig
from denseav.models.streaming_mask import StreamConfig

Precision = Literal["fp32", "fp16", "int8"]
Step = Callable[[str], None]
StepParity = dict[str, dict[str, dict[str, float]]]  # at each point of a run, of each head

OPSET = 20
ENERGY_FLOOR_DBFS = -60.0  # quieter than this is silence, whatever the model would say
DEFAULT_STREAM = StreamConfig(context_tokens=56, revisit=1)  # 10 s
AUDIO_MAX_S = 60.0
LONG_RUN = 3  # how many times over a stream's memory is replaced before it is compared again
PICTURES = 4
SOUNDS = 4

STEP_SHARES = {"all large products": LEAST_SHARE, "the largest products": 1.0}
"""How large a product is, as a share of the largest, to be tried in eight bits; quickest first."""

_ONE_FILE_BYTES = 500_000_000  # more goes beside the graph, where two graphs share it


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be built.

    `frame_size` is (height, width), multiples of the patch; `tokens` how many a window holds;
    `stream` what a stream remembers;
    `engines` what TensorRT's beside the ONNX graphs are built for, None for no engines, and
    `from_torch` whether torch-tensorrt builds them; `calibration` what the heads' scale is set
    with, nothing for the inputs that come with the program; `naming` how heads get other names,
    None where they keep theirs.
    """

    source: str
    precision: Precision
    frame_size: tuple[int, int]
    tokens: int
    stream: StreamConfig = DEFAULT_STREAM
    engines: EngineTarget | None = None
    from_torch: bool = False
    calibration: tuple[Pair, ...] = ()
    naming: Naming | None = None


def make_plan(
    config: ModelConfig,
    source: str,
    precision: Precision,
    frame_size: tuple[int, int] | None,
    window_s: float,
    stream_context_s: float | None = None,
    revisit: int | None = None,
) -> Plan:
    """Decide what to build for a model: the frame's size if none is asked for, whole tokens.

    Raises
    ------
    BundleError
        When the model has another token rate than live windows, a side of the frame is no
        multiple of the patch, or a stream would compute more tokens again than a window holds.
    """
    if config.audio.token_hop_samples != TOKEN_HOP_SAMPLES:
        raise BundleError(
            f"{source} gives a token every {config.audio.token_hop_samples} samples, and a live "
            f"window moves by {TOKEN_HOP_SAMPLES}; export a model whose aligner pools by nine"
        )
    patch, (height, width) = config.image.patch, frame_size or config.frame_size
    if height % patch or width % patch:
        raise BundleError(f"--frame-size {height}x{width}: both must be multiples of {patch}")
    beyond = window_s * SAMPLE_RATE_HZ - TOKEN_SPAN_SAMPLES
    tokens = max(1, round(beyond / TOKEN_HOP_SAMPLES) + 1)
    return Plan(
        source=source,
        precision=precision,
        frame_size=(height, width),
        tokens=tokens,
        stream=_stream_config(tokens, stream_context_s, revisit),
    )


def _stream_config(tokens: int, context_s: float | None, revisit: int | None) -> StreamConfig:
    if revisit is not None and revisit >= tokens:
        raise BundleError(
            f"--revisit {revisit}: a window holds {tokens} tokens, of which one is new; "
            "give less, or a longer --window"
        )
    context_tokens, again = DEFAULT_STREAM.context_tokens, DEFAULT_STREAM.revisit
    if context_s is not None:
        context_tokens = max(1, round(context_s * SAMPLE_RATE_HZ / TOKEN_HOP_SAMPLES))
    again = min(again, tokens - 1) if revisit is None else revisit
    return StreamConfig(context_tokens=context_tokens, revisit=again)


@dataclass(frozen=True, eq=False)
class _Reference:
    """PyTorch's heatmaps `[N, K, H, W]` in float32: of sounds, and of silence and noise."""

    sounding: Heats
    negative: Heats


def build(model: DenseAV, plan: Plan, folder: Path, step: Step) -> Manifest:
    """Export `model` as planned into the empty `folder`; the model itself is changed.

    Parameters
    ----------
    step : called with the name of each step as it begins.

    Raises
    ------
    BundleError
        When the exported graphs differ from PyTorch by more than the precision's tolerance.
    """
    step("reference heatmaps from PyTorch")
    model.prepare_export(*plan.frame_size)
    exact = make_graphs(model, plan.stream, plan.tokens)
    reference = _reference(exact, plan)
    step(f"reference of the audio step: {LONG_RUN * plan.stream.tokens} steps by PyTorch")
    with _one_torch_thread():
        stream_reference = dict(_stream_heatmaps(exact, plan))
    step("probes, by which a device proves itself")
    write_probes(folder, _probes(exact, plan))
    spell_out_attention(model)
    network = half(model) if plan.precision == "fp16" else model
    graphs = make_graphs(network, plan.stream, plan.tokens)
    examples = graphs.examples(*plan.frame_size, window_samples(plan.tokens))
    for name, graph in graphs.named().items():
        step(f"the {name} graph")
        _export(graph, examples[name], folder / f"{name}.onnx")
    borrow_weights(folder / f"{AUDIO_STEP}.onnx", folder / "audio.onnx")
    if plan.precision == "int8":
        # It sets the frame rate. The audio graph's loss would be too large; the step's is measured.
        quantize_products(folder / "image.onnx")
    step("parity through the session that runs live")
    manifest = _manifest(
        config=model.config, plan=plan, reference=reference, graphs=graphs, folder=folder
    )
    bundle = Bundle(folder=folder, manifest=manifest)
    # Each session goes with its call: at full size it holds gigabytes, as building engines does.
    manifest = _with_parity(bundle, plan, reference, step)
    bundle = dataclasses.replace(bundle, manifest=manifest)
    manifest = _with_step(bundle, plan, stream_reference, step)
    if plan.engines is not None:
        manifest = _with_engines(
            target=plan.engines,
            plan=plan,
            graphs=graphs,
            manifest=manifest,
            folder=folder,
            step=step,
        )
        if engines := engines_here(Bundle(folder=folder, manifest=manifest)):
            step("parity of the engines")
            heads = tuple(head.name for head in manifest.heads)
            parity = _parity(engines, plan, heads, reference)
            manifest = dataclasses.replace(manifest, engine_parity=parity)
    write_manifest(folder, manifest)
    return manifest


def _with_step(bundle: Bundle, plan: Plan, reference: dict[str, Heats], step: Step) -> Manifest:
    """Return the manifest with the audio step's parity; in eight bits if that is near enough."""
    manifest, path = bundle.manifest, bundle.graph(AUDIO_STEP)
    precision: Precision | None = None
    if plan.precision == "int8":
        precision, parity = _step_in_int8(bundle, plan, reference, step)
    else:
        parity = _step_parity(bundle, plan, reference)
    return dataclasses.replace(
        manifest,
        files={**manifest.files, path.name: file_sha256(path)},
        step_parity=parity,
        step_precision=precision,
    )


def _step_in_int8(
    bundle: Bundle, plan: Plan, reference: dict[str, Heats], step: Step
) -> tuple[Precision, StepParity]:
    """Rewrite as much of the audio step in eight bits as its heatmaps bear."""
    path = bundle.graph(AUDIO_STEP)
    exact = path.read_bytes()
    for what, least_share in STEP_SHARES.items():
        step(f"the audio step in eight bits: {what}")
        path.write_bytes(exact)
        quantize_products(path, least_share)
        with suppress(BundleError):
            return "int8", _step_parity(bundle, plan, reference)
    step("the audio step in float32, as its heatmaps differ too much in eight bits")
    path.write_bytes(exact)
    return "fp32", _step_parity(bundle, plan, reference)


def _with_parity(bundle: Bundle, plan: Plan, reference: _Reference, step: Step) -> Manifest:
    """Measure the graphs for windows; set the heads' scale, and name them, as planned."""
    manifest = bundle.manifest
    session = OnnxSession(bundle, threads=2)
    heads = tuple(head.name for head in manifest.heads)
    manifest = dataclasses.replace(manifest, parity=_parity(session, plan, heads, reference))
    if plan.calibration:
        step(f"the heads' scale, on {len(plan.calibration)} pairs of picture and sound")
        scaled = calibrate_on(session, manifest, plan.calibration)
        origin = provenance(plan.calibration, manifest.heads)
        manifest = dataclasses.replace(manifest, heads=scaled, calibration=origin)
    if plan.naming is not None:
        step("the heads' names")
        manifest = with_names(manifest, plan.naming, session)
    return manifest


def _with_engines(
    target: EngineTarget, plan: Plan, graphs: Graphs, manifest: Manifest, folder: Path, step: Step
) -> Manifest:
    examples = graphs.examples(*plan.frame_size, window_samples(plan.tokens))

    def compile_graph(name: str) -> bytes:
        if plan.from_torch:
            return convert(name, graphs.named()[name], examples[name])
        return compile_onnx(target, folder / f"{name}.onnx")

    return write_engines(
        target=target, compile_graph=compile_graph, manifest=manifest, folder=folder, step=step
    )


def _probes(network: Graphs, plan: Plan) -> Probes:
    """Return what a device has to reproduce, as PyTorch computes it in float32."""
    probes = probe_inputs.probes(*plan.frame_size, plan.tokens)
    heats, _ = reproduce(network, probes, *plan.frame_size, window_samples(plan.tokens))
    return dataclasses.replace(probes, heat_NKHW=heats)


def _reference(network: Graphs, plan: Plan) -> _Reference:
    samples = window_samples(plan.tokens)
    negatives = probe_inputs.negatives(samples)
    return _Reference(_probe_heatmaps(network, plan), _window_heatmaps(network, plan, negatives))


def _probe_heatmaps(session: HeatmapModel, plan: Plan) -> Heats:
    sounds = probe_inputs.sounds(SOUNDS, window_samples(plan.tokens))
    return _window_heatmaps(session, plan, sounds)


def _window_heatmaps(session: HeatmapModel, plan: Plan, waves_NS: NDArray[np.float32]) -> Heats:
    pictures = [session.encode_image(p) for p in probe_inputs.frames(PICTURES, *plan.frame_size)]
    sounds = [session.encode_audio(wave_S) for wave_S in waves_NS]
    newest = plan.tokens - 1
    return np.stack([session.heatmap(p, s, newest) for p in pictures for s in sounds])


def _stream_heatmaps(session: Session | Graphs, plan: Plan) -> Iterator[tuple[str, Heats]]:
    """Yield heatmaps of the newest token, once a stream's memory is full and long after."""
    pictures = [session.encode_image(p) for p in probe_inputs.frames(PICTURES, *plan.frame_size)]
    memory = plan.stream.tokens
    ends = {memory: "filled", LONG_RUN * memory: "long"}
    wave_S = probe_inputs.sounds(1, window_samples(LONG_RUN * memory))[0]
    stream, level = session.audio_stream(), Level.of(wave_S)
    heats: deque[NDArray[np.float32]] = deque(maxlen=PICTURES * SOUNDS)
    for token in range(LONG_RUN * memory):
        start = token * TOKEN_HOP_SAMPLES
        sound = stream.step(wave_S[start : start + TOKEN_SPAN_SAMPLES], level)
        heats.extend(session.heatmap(p, sound, plan.tokens - 1) for p in pictures)
        if name := ends.get(token + 1):
            yield name, np.stack(heats)


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Let PyTorch compute on this thread alone.

    A step's products are small, and threads wait for each other at each of them: on a busy machine
    ten times as long as the products take.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _export(graph: Graph, example: tuple[Tensor, ...], path: Path) -> None:
    weights_bytes = sum(tensor.nbytes for tensor in graph.state_dict().values())
    torch.onnx.export(
        graph,
        example,
        path,
        input_names=list(graph.inputs),
        output_names=list(graph.outputs),
        opset_version=OPSET,
        dynamo=True,
        external_data=weights_bytes > _ONE_FILE_BYTES,
        verbose=False,
    )
    # What torch notes of each node, the exporting machine's paths among it, stays at home.
    model = onnx.load(path, load_external_data=False)
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info):
        del part.metadata_props[:]
    onnx.save(model, path)


def _manifest(
    config: ModelConfig, plan: Plan, reference: _Reference, graphs: Graphs, folder: Path
) -> Manifest:
    (height, width), (grid_height, grid_width) = plan.frame_size, reference.sounding.shape[2:]
    return Manifest(
        model=config.name,
        trained=config.trained,
        source=plan.source,
        precision=plan.precision,
        opset=OPSET,
        heads=calibrate(config.heads, reference.sounding, reference.negative),
        image=ImageInput(
            height=height, width=width, grid_height=grid_height, grid_width=grid_width
        ),
        audio=AudioInput(
            window_samples=window_samples(plan.tokens),
            tokens=plan.tokens,
            energy_floor_dbfs=ENERGY_FLOOR_DBFS,
            takes_normalized=True,
        ),
        audio_step=_audio_step(graphs),
        parity={},
        files={path.name: file_sha256(path) for path in sorted(folder.iterdir())},
    )


def _audio_step(graphs: Graphs) -> AudioStep:
    assert graphs.step_graph is not None
    stream = graphs.step_graph.stream
    states = {
        name: StateTensor(shape=tuple(tensor.shape), dtype=str(tensor.dtype).removeprefix("torch."))
        for name, tensor in stream.start().named().items()
    }
    return AudioStep(
        context_tokens=stream.config.context_tokens,
        revisit=stream.config.revisit,
        states=states,
        in_place=tuple(name for name in states if name.startswith(("keys_", "values_"))),
    )


def _step_parity(bundle: Bundle, plan: Plan, reference: dict[str, Heats]) -> StepParity:
    session = OnnxSession(bundle, threads=2, audio="streaming")
    heads = tuple(head.name for head in bundle.manifest.heads)
    return {  # the first that is too far off ends it: the rest of the run is long
        name: _agreement(session, plan, heads, reference[name], heats, f"streaming, {name}: ")
        for name, heats in _stream_heatmaps(session, plan)
    }


def _parity(
    session: Session, plan: Plan, heads: tuple[str, ...], reference: _Reference
) -> dict[str, dict[str, float]]:
    measured = _probe_heatmaps(session, plan)
    return _agreement(
        session=session, plan=plan, heads=heads, reference=reference.sounding, measured=measured
    )


def _agreement(
    session: Session,
    plan: Plan,
    heads: tuple[str, ...],
    reference: Heats,
    measured: Heats,
    what: str = "",
) -> dict[str, dict[str, float]]:
    parity = measure(reference, measured, heads)
    if failed := failures(parity, TOLERANCES[plan.precision]):
        raise BundleError(
            f"the {plan.precision} graphs on {session.backend} differ too much from PyTorch "
            f"({what}{'; '.join(failed)}); nothing was written"
        )
    return {name: asdict(figures) for name, figures in parity.items()}
