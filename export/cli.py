"""`denseav-export`: parse, load, build, say what to run next."""

import argparse
import logging
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from denseav.export.builder.atomic_folder import rewritten, written_beside
from denseav.export.builder.trt_engine import (
    BUILDERS,
    RTX_CAPABILITIES,
    RTX_FURTHER,
    EngineTarget,
    compile_onnx,
    engine_target,
    engines_here,
    write_engines,
)
from denseav.export.command_line import (
    CompletionAction,
    ends_in_a_line,
    record,
    run,
    size,
    whole_number,
)
from denseav.export.hub import HUB, model_card, named_heads, push_bundle, require_name
from denseav.export.runtime.bundle import (
    AUDIO_STEP,
    GRAPHS,
    MANIFEST,
    SAMPLE_RATE_HZ,
    Bundle,
    BundleError,
    Manifest,
    default_folder,
    open_bundle,
    window_samples,
    write_manifest,
)
from denseav.export.runtime.engine_facts import engine_path, sidecar_path
from denseav.export.terminal_text import safe_console, safe_text
from denseav.export.version_report import VersionAction

if TYPE_CHECKING:
    from denseav.export.builder.build import Plan, Precision
    from denseav.models import DenseAV

_SOURCES = """\
SOURCE is demo (the small network in the package, which knows windows of 2 s), a checkpoint folder
of ours, a released .ckpt file, a folder in Hugging Face form, a hub id
(hf:mhamilton723/DenseAV-sound-language), or a configuration .json (random weights, and the bundle
says so).

--calibration FOLDER sets from which similarity on each head lights up. It holds pictures with
sound that does not belong to them: NAME.png or NAME.jpg beside NAME.wav, 16 kHz, one channel.
Names may begin with what is heard, silence-, noise-, offscreen_sound- or offscreen_speech-: then
at most 1, 3, 10 and 10 % of the picture lights up in such, by all heads together; 10 % under other
names. Pairs that begin with sound-, speech- or both-, whose picture does show what is heard, set
how strong a head at its brightest is.

--name-heads first=speech,second=sound gives heads other names; so does --name-heads FOLDER, whose
pairs are named after what is heard: speech-1.png beside speech-1.wav, sound-1.png and so on, three
or more of each. Manifest and card say how heads got their names.

Exit codes: 0 done, 2 usage, 4 the model, the bundle or the calibration folder is not usable."""


@dataclass(frozen=True)
class RebuildOptions:
    """A bundle whose ONNX graphs become engines, and for which cards."""

    rebuild_engines: Path
    trt_builder: str | None
    trt_for: tuple[str, ...]


@dataclass(frozen=True)
class ExportOptions:
    """A network to export, and what its bundle is to be."""

    source: str
    out: Path
    precision: "Precision"
    trt: str | None
    trt_builder: str | None
    trt_for: tuple[str, ...]
    frame_size: tuple[int, int] | None
    window: float
    stream_context: float | None
    revisit: int | None
    calibration: Path | None
    name_heads: dict[str, str] | Path | None
    dry_run: bool
    push: str | None


@ends_in_a_line("denseav-export")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _parse(arguments)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    logging.getLogger("torch_tensorrt").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")

    def act(console: Console) -> None:
        if isinstance(options, RebuildOptions):
            _rebuild(options, console)
        else:
            _export(options, console)

    console = safe_console(stderr=True)
    return run("denseav-export", act, console, errors=_errors, interrupted="nothing was written")


def _parse(arguments: Sequence[str] | None) -> ExportOptions | RebuildOptions:
    parser = _parser()
    given = parser.parse_args(arguments)
    if (given.source is None) == (given.rebuild_engines is None):
        parser.error("name one thing to export: SOURCE, or --rebuild-engines DIR")
    if given.rebuild_engines and given.calibration:
        parser.error("--calibration goes with SOURCE; engines keep the scale that their bundle has")
    if given.rebuild_engines and given.name_heads:
        parser.error("--name-heads goes with SOURCE; engines keep the names that their bundle has")
    if given.rebuild_engines and given.trt:
        parser.error("--trt goes with SOURCE; engines have the precision of their bundle's graphs")
    if given.rebuild_engines and given.trt_builder == "torch-tensorrt":
        parser.error("--trt-builder torch-tensorrt goes with SOURCE: it builds from the network")
    if given.trt_for and given.trt_builder not in (None, "rtx"):
        parser.error("--trt-for goes with --trt-builder rtx: others build for this machine's GPU")
    given.precision = given.trt or given.precision
    if given.rebuild_engines:
        return record(RebuildOptions, given)
    return record(ExportOptions, given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="denseav-export",
        description="Make the bundle that denseav-live runs, and check it against PyTorch.",
        epilog=_SOURCES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=VersionAction)
    parser.add_argument("--print-completion", action=CompletionAction)
    parser.add_argument("source", nargs="?", metavar="SOURCE", help="a checkpoint, see below")
    parser.add_argument(
        "--out", type=Path, default=default_folder(), metavar="DIR", help="default: %(default)s"
    )
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="int8 is for CPUs: the image graph, and the audio step where its heatmaps stay near "
        "enough; default: %(default)s",
    )
    precision.add_argument(
        "--trt",
        choices=("fp32", "fp16"),
        help="as --precision, and TensorRT engines beside the ONNX graphs",
    )
    parser.add_argument(
        "--trt-builder",
        choices=BUILDERS,
        help="rtx: TensorRT-RTX, needs no GPU, for compute capabilities "
        f"{', '.join(RTX_CAPABILITIES)}; the others: TensorRT 10 or 11, on and for this machine's "
        "GPU; default: rtx, or tensorrt where that alone is installed",
    )
    parser.add_argument(
        "--trt-for",
        type=_capabilities,
        default=(),
        metavar="X.Y,…",
        help=f"compute capabilities to add to rtx's: {' or '.join(RTX_FURTHER)}",
    )
    parser.add_argument(
        "--frame-size",
        type=_frame_size,
        metavar="HxW",
        help="what the image graph takes: short side as trained (224), the camera's aspect ratio, "
        "multiples of the patch (8); default: 4:3",
    )
    parser.add_argument(
        "--window",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="how much audio one pass covers, rounded to tokens; default: %(default)s",
    )
    parser.add_argument(
        "--stream-context",
        type=_seconds,
        metavar="SECONDS",
        help="with --audio streaming: how much audio is remembered; default: 10",
    )
    parser.add_argument(
        "--revisit",
        type=whole_number,
        metavar="N",
        help="with --audio streaming: how many of the last tokens (180 ms each) are computed again "
        "with each new one; default: 1",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FOLDER",
        help="set the heads' scale with pictures and sounds that do not belong to them, see below",
    )
    parser.add_argument(
        "--name-heads",
        type=_head_names,
        metavar="HEAD=NAME,…|FOLDER",
        help="what heads are called, by hand or from a handful of clips, see below",
    )
    parser.add_argument(
        "--push",
        metavar="OWNER/NAME",
        help="put the bundle, the weights as safetensors and a card on a hub: in a repository of "
        "this name, which is made, and private, where there is none; log in with: hf auth login",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be built, and end")
    parser.add_argument(
        "--rebuild-engines",
        type=Path,
        metavar="DIR",
        help="build TensorRT engines from the ONNX graphs of the bundle in DIR, and keep the rest",
    )
    return parser


def _errors() -> tuple[type[Exception], ...]:
    # The network's own error is there only where the network is, which engines do not need.
    models = sys.modules.get("denseav.models")
    return (BundleError,) if models is None else (BundleError, models.CheckpointError)


def _require_network(extra: str) -> None:
    """See that what exports a network is installed, as it is not for who runs a bundle alone."""
    try:
        import denseav.export.builder.build  # noqa: F401
    except ModuleNotFoundError as error:
        raise BundleError(
            f"{error.name} is not installed; install it, in a clone of denseav, with: "
            f"pip install '.[{extra}]'"
        ) from None
    # Only now: PyTorch sets its loggers' levels as it is loaded.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)


def _export(options: ExportOptions, console: Console) -> None:
    _require_network("trt" if options.trt else "export")
    if options.dry_run:
        _load(options, None, console)
        return
    if options.push is not None:
        require_name(options.push)
    target = None
    if options.trt:
        target = engine_target(options.trt_builder, options.trt_for)
        if options.trt_builder == "torch-tensorrt":
            from denseav.export.builder.torch_trt_engine import require_torch_tensorrt

            require_torch_tensorrt()
    with written_beside(options.out) as folder:
        model, plan = _load(options, target, console)
        manifest = _build(model, plan, folder, console)
    _say_how_to_run(options.out, manifest, console)
    if options.push is not None:
        _push(model, manifest, options, console)


def _push(model: "DenseAV", manifest: Manifest, options: ExportOptions, console: Console) -> None:
    from denseav.models.checkpoints.checkpoint import CONFIG, WEIGHTS, save

    assert options.push is not None
    model.config = replace(model.config, heads=tuple(head.name for head in manifest.heads))
    with TemporaryDirectory() as name:
        save(model, Path(name))
        weights = {file: Path(name) / file for file in (CONFIG, WEIGHTS)}
        address = push_bundle(
            options.out, options.push, model_card(manifest, options.push), weights
        )
    console.print(f"pushed: {address}", highlight=False, markup=False)
    console.print(f"run it from there with: denseav-live --camera 0 --model {HUB}{options.push}")


def _rebuild(options: RebuildOptions, console: Console) -> None:
    """Build engines from a bundle's ONNX graphs, and put the folder with them in its place."""
    out = options.rebuild_engines
    old = open_bundle(out).manifest
    if old.precision not in ("fp32", "fp16"):
        raise BundleError(f"there are no TensorRT engines in {old.precision}")
    target = engine_target(options.trt_builder, options.trt_for)
    engines = [engine_path(out, graph) for graph in (*GRAPHS, AUDIO_STEP)]
    replaced = {path.name for engine in engines for path in (engine, sidecar_path(engine))}
    kept = {name: digest for name, digest in old.files.items() if name not in replaced}
    with rewritten(out) as folder, _progress(console) as step:
        for path in out.iterdir():  # the model's card and weights too
            if path.is_file() and path.name not in {*replaced, MANIFEST}:
                shutil.copy2(path, folder / path.name)

        def compile_graph(name: str) -> bytes:
            return compile_onnx(target, folder / f"{name}.onnx")

        manifest = replace(old, files=kept, engine_parity={})
        manifest = write_engines(
            target=target, compile_graph=compile_graph, manifest=manifest, folder=folder, step=step
        )
        engines_here(Bundle(folder=folder, manifest=manifest))
        write_manifest(folder, manifest)
    _say_how_to_run(out, manifest, console)


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str], None]]:
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console
    ) as progress:
        yield _stepper(progress)


def _build(model: "DenseAV", plan: "Plan", folder: Path, console: Console) -> Manifest:
    from denseav.export.builder.build import build

    with _progress(console) as step:
        return build(model, plan, folder, step)


def _say_how_to_run(out: Path, manifest: Manifest, console: Console) -> None:
    console.print(_parity_table("ONNX graphs", manifest.parity))
    for when, parity in manifest.step_parity.items():
        step = f"audio step{f' in {manifest.step_precision}' if manifest.step_precision else ''}"
        console.print(_parity_table(f"{step}, memory {when}", parity))
    if manifest.naming:
        console.print(named_heads(manifest), highlight=False, markup=False)
    device = ""
    if manifest.engine_parity:
        console.print(_parity_table("TensorRT engines", manifest.engine_parity))
    if engine_path(out, "image").name in manifest.files:
        device = " --device trt"
        if not manifest.engine_parity:
            console.print("the engines prove themselves at their first start, on the GPU they fit")
    console.print(f"run it with: denseav-live --camera 0 --model {out}{device}", highlight=False)


def _load(
    options: ExportOptions, target: EngineTarget | None, console: Console
) -> tuple["DenseAV", "Plan"]:
    from denseav.export.builder.build import make_plan
    from denseav.export.builder.head_names import check_naming, find_clips
    from denseav.export.builder.threshold_calibration import find_pairs
    from denseav.models import load

    pairs = find_pairs(options.calibration) if options.calibration else ()
    naming = find_clips(asked) if isinstance(asked := options.name_heads, Path) else asked
    with console.status(Text(safe_text(f"loading {options.source}"))):
        model = load(options.source)
    plan = make_plan(
        config=model.config,
        source=options.source,
        precision=options.precision,
        frame_size=options.frame_size,
        window_s=options.window,
        stream_context_s=options.stream_context,
        revisit=options.revisit,
    )
    from_torch = options.trt_builder == "torch-tensorrt"
    plan = replace(plan, engines=target, from_torch=from_torch, calibration=pairs, naming=naming)
    if naming is not None:
        check_naming(naming, model.config.heads)
    height, width = plan.frame_size
    window_s = window_samples(plan.tokens) / SAMPLE_RATE_HZ
    console.print(
        f"{model.config.name}{'' if model.config.trained else ' (UNTRAINED: random weights)'}, "
        f"heads {', '.join(model.config.heads)}; {plan.precision}, frames of {height}x{width}, "
        f"windows of {window_s:.2f} s ({plan.tokens} tokens), streams of "
        f"{plan.stream.context_tokens}+{plan.stream.active_tokens} tokens"
        f"{', with TensorRT engines' if options.trt else ''}"
        f"{f', calibrated on {len(pairs)} pairs' if pairs else ''}; into {options.out}",
        highlight=False,
        soft_wrap=True,
    )
    return model, plan


def _stepper(progress: Progress) -> Callable[[str], None]:
    """Show each step with its time: a step that begins ends the one before."""

    def step(name: str) -> None:
        for task in progress.tasks:
            progress.stop_task(task.id)
        progress.add_task(name, total=None)

    return step


def _parity_table(what: str, parity: Mapping[str, Any]) -> Table:
    table = Table(title=f"{what}: heatmaps against PyTorch float32")
    table.add_column("head")
    for figure in ("cosine", "max_abs", "argmax_agreement", "rank_correlation"):
        table.add_column(figure.replace("_", " "), justify="right")
    for head, figures in parity.items():
        table.add_row(head, *(f"{value:.6f}" for value in figures.values()))
    return table


def _capabilities(text: str) -> tuple[str, ...]:
    asked = tuple(text.split(","))
    for capability in asked:
        if capability in RTX_CAPABILITIES or capability not in RTX_FURTHER:
            raise argparse.ArgumentTypeError(
                f"{capability!r} is none of {', '.join(RTX_FURTHER)}, which TensorRT-RTX can add; "
                "GPUs of data centres take --trt-builder tensorrt"
            )
    return asked


def _head_names(text: str) -> dict[str, str] | Path:
    if "=" not in text:
        return Path(text)
    pairs = [part.partition("=") for part in text.split(",")]
    names = {head: name for head, _, name in pairs}
    if len(names) < len(pairs) or not all(head and name for head, _, name in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is not as in first=speech,second=sound")
    return names


def _frame_size(text: str) -> tuple[int, int]:
    return size(text, "HEIGHTxWIDTH, as in 224x296")


def _seconds(text: str) -> float:
    from denseav.export.builder.build import AUDIO_MAX_S

    value = float(text)
    if not 0 < value <= AUDIO_MAX_S:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most {AUDIO_MAX_S:g}")
    return value
