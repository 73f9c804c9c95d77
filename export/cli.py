"""`denseav-export`: parse, load, build, say what to run next."""

import argparse
import logging
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from denseav.export.builder.atomic_folder import rewritten, written_beside
from denseav.export.builder.build import (
    STREAM_CONTEXT_MAX_S,
    Plan,
    build,
    make_plan,
    remake_plan,
    require_same_model,
)
from denseav.export.builder.threshold_calibration import find_pairs
from denseav.export.builder.trt_engine import require_tools
from denseav.export.runtime.bundle import (
    SAMPLE_RATE_HZ,
    BundleError,
    Manifest,
    default_folder,
    open_bundle,
    window_samples,
    write_manifest,
)
from denseav.models import CheckpointError, DenseAV, load

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

Exit codes: 0 done, 2 usage, 4 the model, the bundle or the calibration folder is not usable."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _parse(arguments)
    console = Console(stderr=True)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    logging.getLogger("torch_tensorrt").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    try:
        if options.rebuild_engines:
            _rebuild(options.rebuild_engines, console)
        else:
            _export(options, console)
    except (CheckpointError, BundleError) as error:
        console.print(f"denseav-export: error: {error}", style="red", soft_wrap=True, markup=False)
        return 4
    except KeyboardInterrupt:
        console.print("denseav-export: interrupted; nothing was written")
        return 130
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(arguments)
    if (options.source is None) == (options.rebuild_engines is None):
        parser.error("name one thing to export: SOURCE, or --rebuild-engines DIR")
    if options.rebuild_engines and options.calibration:
        parser.error("--calibration goes with SOURCE; engines keep the scale that their bundle has")
    options.precision = options.trt or options.precision
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="denseav-export",
        description="Make the bundle that denseav-live runs, and check it against PyTorch.",
        epilog=_SOURCES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("source", nargs="?", metavar="SOURCE", help="a checkpoint, see below")
    parser.add_argument(
        "--out", type=Path, default=default_folder(), metavar="DIR", help="default: %(default)s"
    )
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="int8 is for CPUs, and of the image graph alone; default: %(default)s",
    )
    precision.add_argument(
        "--trt",
        choices=("fp32", "fp16"),
        help="as --precision, and TensorRT engines for this machine's GPU beside the ONNX graphs",
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
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="how much sound one audio pass hears, rounded to tokens; default: %(default)s",
    )
    parser.add_argument(
        "--stream-context",
        type=_seconds,
        metavar="SECONDS",
        help="with --audio streaming: how much audio is remembered; default: 10",
    )
    parser.add_argument(
        "--revisit",
        type=_count,
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
    parser.add_argument("--dry-run", action="store_true", help="say what would be built, and end")
    parser.add_argument(
        "--rebuild-engines",
        type=Path,
        metavar="DIR",
        help="export the bundle in DIR again, as it was, with engines for this machine's GPU",
    )
    return parser


def _export(options: argparse.Namespace, console: Console) -> None:
    if options.dry_run:
        _load(options, console)
        return
    if options.trt:
        require_tools()
    with written_beside(options.out) as folder:
        model, plan = _load(options, console)
        manifest = _build(model, plan, folder, console)
    _say_how_to_run(options.out, manifest, console)


def _rebuild(out: Path, console: Console) -> None:
    """Export the bundle in `out` again from its own source, and put it in the old one's place."""
    old = open_bundle(out).manifest
    require_tools()
    with rewritten(out) as folder:
        with console.status(f"loading {old.source}"):
            model = load(old.source)
        manifest = _build(model, remake_plan(old), folder, console)
        require_same_model(old, manifest)
        if old.calibration:
            manifest = replace(manifest, heads=old.heads, calibration=old.calibration)
            write_manifest(folder, manifest)
        _keep_the_rest(out, old, folder)
    _say_how_to_run(out, manifest, console)


def _keep_the_rest(out: Path, old: Manifest, folder: Path) -> None:
    """Copy what lies in the old folder beside the bundle: the model's card and weights."""
    for path in out.iterdir():
        if path.is_file() and path.name not in old.files and not (folder / path.name).exists():
            shutil.copy2(path, folder / path.name)


def _build(model: DenseAV, plan: Plan, folder: Path, console: Console) -> Manifest:
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console
    ) as progress:
        return build(model, plan, folder, _stepper(progress))


def _say_how_to_run(out: Path, manifest: Manifest, console: Console) -> None:
    console.print(_parity_table("ONNX graphs", manifest.parity))
    for when, parity in manifest.step_parity.items():
        console.print(_parity_table(f"audio step, memory {when}", parity))
    device = ""
    if manifest.engine_parity:
        console.print(_parity_table("TensorRT engines", manifest.engine_parity))
        device = " --device trt"
    console.print(f"run it with: denseav-live --camera 0 --model {out}{device}", highlight=False)


def _load(options: argparse.Namespace, console: Console) -> tuple[DenseAV, Plan]:
    pairs = find_pairs(options.calibration) if options.calibration else ()
    with console.status(f"loading {options.source}"):
        model = load(options.source)
    plan = make_plan(
        model.config,
        options.source,
        options.precision,
        options.frame_size,
        options.window,
        options.stream_context,
        options.revisit,
    )
    plan = replace(plan, engines=options.trt is not None, calibration=pairs)
    height, width = plan.frame_size
    window_s = window_samples(plan.tokens) / SAMPLE_RATE_HZ
    console.print(
        f"{model.config.name}{'' if model.config.trained else ' (UNTRAINED: random weights)'}, "
        f"heads {', '.join(model.config.heads)}; {plan.precision}, frames of {height}x{width}, "
        f"windows of {window_s:.2f} s ({plan.tokens} tokens), streams of "
        f"{plan.stream.context_tokens}+{plan.stream.active_tokens} tokens"
        f"{', with TensorRT engines' if plan.engines else ''}"
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


def _frame_size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, as in 224x296")
    return int(height), int(width)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= STREAM_CONTEXT_MAX_S:
        raise argparse.ArgumentTypeError(
            f"{text} is not above 0 and at most {STREAM_CONTEXT_MAX_S:g}"
        )
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value
