"""`denseav-eval`: parse, find the data, load, evaluate, show."""

import argparse
import hashlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import torch
from rich.console import Console
from rich.progress import track as rich_track
from rich.text import Text

from denseav.export.command_line import (
    CompletionAction,
    count,
    ends_in_a_line,
    record,
    run,
    whole_number,
)
from denseav.export.terminal_text import safe_console, safe_text
from denseav.export.version_report import VersionAction
from denseav.models import CheckpointError, DenseAV, load
from denseav.stream.media.sound import Channel
from denseav.train.cli.data import share
from denseav.train.data.preparation.folder_lock import WHOLE, Share
from denseav.train.errors import DataError
from denseav.train.eval import public_sets
from denseav.train.eval.avatar import avatar
from denseav.train.eval.evaluate import RETRIEVAL_ITEMS, Variants, audible, evaluate, subset
from denseav.train.eval.exported_model import DEMO
from denseav.train.eval.from_shards import shards
from denseav.train.eval.items import EvalSet, own_folder, with_channel, with_files
from denseav.train.eval.model import TorchModel
from denseav.train.eval.negative_audio import SEEDS
from denseav.train.eval.pieces import Pieces, T
from denseav.train.eval.report import Row, tables, write_json
from denseav.train.eval.world import run as world_eval
from denseav.train.eval.world.run import CLIPS

Layout = Callable[[Path], list[EvalSet]]

LAYOUTS: Mapping[str, tuple[Layout, str]] = {
    "speech-prompted": (public_sets.speech_prompted, "ADE20KSpeechPrompted: mAP, mIoU"),
    "sound-prompted": (public_sets.sound_prompted, "ADE20KSoundPrompted: mAP, mIoU"),
    "places": (public_sets.places, "PlacesAudio_400k_distro: retrieval"),
    "audioset": (public_sets.audioset, "audioset-eval: retrieval"),
    "vggss": (public_sets.vggss, "VGG-SS: cIoU, AUC"),
    "is3": (public_sets.is3, "IS3: cIoU, AUC, IIoU, IAUC; with speech/ also Extended IS3"),
    "avatar": (
        avatar,
        "AVATAR: cIoU, AUC of each scenario, and of off-screen sources",
    ),
    "items": (own_folder, "a folder of your own with items.csv: whatever its columns allow"),
}

OF_DATA = (
    "shards",
    "allow-missing",
    "channel",
    "retrieval-items",
    "mixed",
    "snr",
    "negative-audio",
    "work",
    "part",
    "batch-size",
)
OF_WORLD = ("seed", "model", "clips")

GPU_BATCH_SIZE = 16

UNTRAINED = " (UNTRAINED: random weights)"

EPILOG = """\
SOURCE is whatever denseav-export takes: a checkpoint folder, a released .ckpt, a hub id, or a
configuration .json (random weights). With Places and AudioSet together, PredDis and ActDis are
measured too.

    denseav-eval --world --seed 7                  the demo model on scenes nobody has seen
    denseav-eval --world --model runs/demo/model   a checkpoint on the synthetic world

Exit codes: 0 done, 2 usage, 3 the data is not usable, 4 the model is not."""


@dataclass(frozen=True)
class WorldOptions:
    """A model, and the test split of the world that it is measured on."""

    model: str
    device: str
    seed: int
    clips: int
    json: Path | None


@dataclass(frozen=True)
class EvalOptions:
    """A network, the data it is measured on, and what is asked of it."""

    source: str
    device: str
    folders: Sequence[tuple[Layout, Path]]
    shards: Sequence[str]
    allow_missing: bool
    channel: Channel | None
    retrieval_items: int
    mixed: Path | None
    snr: Sequence[float]
    negative_audio: bool
    json: Path | None
    work: Path | None
    part: Share
    batch_size: int | None


@ends_in_a_line("denseav-eval")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _parse(arguments)
    warnings.simplefilter("ignore")

    def act(console: Console) -> None:
        if options.json is not None and not options.json.parent.is_dir():
            raise DataError(f"{options.json.parent} does not exist; name another file with --json")
        if isinstance(options, WorldOptions):
            world_eval.run(
                options.model,
                device=options.device,
                seed=options.seed,
                clips=options.clips,
                json_path=options.json,
                console=console,
                track=_Tracker(console),
            )
            return
        with TemporaryDirectory() as unpacked:
            _evaluate(options, _data(options, Path(unpacked)), console)

    world = isinstance(options, WorldOptions)
    kept = "run the same command again" if world else "what is above is done"
    console = safe_console(stderr=True)
    return run(
        "denseav-eval",
        act,
        console,
        errors=lambda: (CheckpointError, DataError),
        interrupted=kept,
    )


def _parse(arguments: Sequence[str] | None) -> EvalOptions | WorldOptions:
    parser = _parser()
    given = parser.parse_args(arguments)
    _check_world(parser, given)
    given.folders = _folders(given)
    if not (given.world or given.folders or given.shards):
        names = ", --".join((*LAYOUTS, "shards", "world"))
        parser.error(f"nothing to evaluate; name data with --{names}")
    # Defaults come late: a value that was given is an error where it does not belong.
    given.model, given.seed = given.model or DEMO, given.seed or 0
    given.clips = given.clips or CLIPS
    if not given.part.whole and (given.work is None or given.json is not None):
        parser.error("--part goes with --work and without --json: what it computes is kept there")
    given.retrieval_items = given.retrieval_items or RETRIEVAL_ITEMS
    given.snr = given.snr or (0.0,)
    if given.world:
        return record(WorldOptions, given)
    return record(EvalOptions, given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="denseav-eval",
        description="Measure a model as the papers do.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=VersionAction)
    parser.add_argument("--print-completion", action=CompletionAction)
    parser.add_argument("source", metavar="SOURCE", nargs="?", help="a checkpoint, see below")
    data = parser.add_argument_group("data", "each may be given several times")
    for name, (_, what) in LAYOUTS.items():
        data.add_argument(
            f"--{name}", type=Path, action="append", default=[], metavar="DIR", help=what
        )
    data.add_argument(
        "--shards",
        action="append",
        default=[],
        metavar="DIR",
        help="made by denseav-data, or their address (s3://…): retrieval",
    )
    data.add_argument(
        "--allow-missing",
        action="store_true",
        help="leave items out whose files are not there, or "
        "which are silent so that nothing can be mixed with them",
    )
    parser.add_argument(
        "--channel",
        choices=get_args(Channel),
        help="of audio with several; default: the mix, or the left where left and right cancel, as "
        "in training and live; the released evaluation takes the left",
    )
    parser.add_argument(
        "--retrieval-items",
        type=count,
        metavar="N",
        help=f"how many items of a retrieval set are drawn; default: {RETRIEVAL_ITEMS}",
    )
    parser.add_argument(
        "--mixed",
        type=Path,
        metavar="DIR",
        help="ask again with the other kind of audio mixed in; the lists of pairs and gains are "
        "read from DIR, or drawn and written there",
    )
    parser.add_argument(
        "--snr",
        type=float,
        nargs="+",
        metavar="DB",
        help="signal-to-noise ratios of mixtures; default: 0",
    )
    parser.add_argument(
        "--negative-audio",
        action="store_true",
        help="also hear pictures with boxes with silence (once), noise and off-screen sounds "
        f"({len(SEEDS)} draws each); threshold U is the third quartile of all their maps' maxima, "
        f"of which silence is one in {2 * len(SEEDS) + 1}",
    )
    parser.add_argument(
        "--batch-size",
        type=count,
        metavar="N",
        help="pictures, and sounds, that are encoded at a time; default: "
        f"{GPU_BATCH_SIZE} on a GPU, 1 on a CPU, where more are hardly faster",
    )
    parser.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        help="keep what the model makes of each item, in pieces, so that the same command goes on "
        "where it was stopped",
    )
    parser.add_argument(
        "--part",
        type=share,
        default=WHOLE,
        metavar="I/N",
        help="with --work: compute only the Ith of N equal parts of the pieces, beside others that "
        "do the rest, each on a device or machine of its own; when all are done, the same command "
        "without --part measures",
    )
    world = parser.add_argument_group("the synthetic world", "instead of SOURCE and data")
    world.add_argument(
        "--world", action="store_true", help="make a test split from a seed, and measure everything"
    )
    world.add_argument("--seed", type=whole_number, metavar="N", help="of the split; default: 0")
    world.add_argument(
        "--model", help="demo (the default), an exported bundle's folder, or a checkpoint"
    )
    world.add_argument(
        "--clips", type=count, metavar="N", help=f"clips of each kind; default: {CLIPS}"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda; default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all results as JSON")
    return parser


def _check_world(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    def given(names: Iterable[str]) -> list[str]:
        fields = {name: name.replace("-", "_") for name in names}
        return [
            f"--{name}"
            for name, field in fields.items()
            if getattr(options, field) != parser.get_default(field)
        ]

    of_data = [*(["SOURCE"] if options.source else []), *given((*LAYOUTS, *OF_DATA))]
    if options.world and of_data:
        parser.error(f"--world takes no {', '.join(of_data)}; name the model with --model")
    if not options.world and given(OF_WORLD):
        parser.error("--seed, --model and --clips go with --world")
    if not options.world and options.source is None:
        parser.error("nothing to evaluate; name a SOURCE, or ask for --world")


def _data(options: EvalOptions, unpacked: Path) -> list[EvalSet]:
    found = [data for layout, folder in options.folders for data in layout(folder)]
    for number, folder in enumerate(options.shards):
        into = unpacked / str(number)
        into.mkdir()
        found += shards(folder, into, options.retrieval_items)
    sets = [
        with_channel(
            subset(with_files(data, allow_missing=options.allow_missing), options.retrieval_items),
            options.channel,
        )
        for data in found
    ]
    names = [data.name for data in sets]
    if len(set(names)) < len(names):
        raise DataError(f"two data sets have one name, {', '.join(names)}; rename a folder")
    return sets


def _evaluate(options: EvalOptions, sets: Sequence[EvalSet], console: Console) -> None:
    model = _load(options, console)
    variants = Variants(
        mixed=options.mixed, snrs_db=options.snr, negative_audio=options.negative_audio
    )
    on_cpu = next(model.parameters()).device.type == "cpu"
    batch_size = options.batch_size or (1 if on_cpu else GPU_BATCH_SIZE)
    source, track = TorchModel(model, batch_size=batch_size), _Tracker(console)
    sets = [
        audible(data, source, variants, track, allow_missing=options.allow_missing) for data in sets
    ]
    for data in sets:
        if data.silent:
            console.print(f"{data.name}: {len(data.silent)} silent sounds were left out")
    about = _about(options, model, sets)
    identity = {"weights": _digest_of_weights(model), "items": _digest_of_items(sets)}
    with Pieces(options.work, about | identity, track=track, share=options.part) as pieces:
        _report(evaluate(source, sets, variants, pieces), options, about, model)
    if not options.part.whole:
        left = f"{pieces.left} pieces are left to others; " * bool(pieces.left)
        console.print(
            f"part {options.part.number}/{options.part.of} is done; {left}when all parts are, the "
            "same command without --part measures",
            soft_wrap=True,
            markup=False,
        )


def _report(
    found: Iterable[list[Row]], options: EvalOptions, about: dict[str, Any], model: DenseAV
) -> None:
    """Show and write rows as they come."""
    rows: list[Row] = []
    out = safe_console()
    try:
        for more in found:
            rows += more
            if options.json is not None:
                write_json(options.json, about, rows)
    finally:
        if rows:
            title = f"{model.config.name}{'' if model.config.trained else UNTRAINED}"
            out.print(f"{title}: percent, with 95 % intervals", highlight=False)
        for shown in tables(rows):
            out.print(shown)


def _folders(given: argparse.Namespace) -> list[tuple[Layout, Path]]:
    return [
        (layout, folder)
        for name, (layout, _) in LAYOUTS.items()
        for folder in getattr(given, name.replace("-", "_"))
    ]


def _load(options: EvalOptions, console: Console) -> DenseAV:
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    with console.status(Text(safe_text(f"loading {options.source}"))):
        model = load(options.source)
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).partition("\n")[0]
        raise DataError(f"the device {device!r} cannot be used ({first}); try cpu") from None


def _about(options: EvalOptions, model: DenseAV, sets: Sequence[EvalSet]) -> dict[str, Any]:
    return {
        "source": options.source,
        "model": model.config.name,
        "trained": model.config.trained,
        "heads": model.config.heads,
        "channel": options.channel,
        "mixed": options.mixed,
        "negative_audio_seeds": SEEDS if options.negative_audio else [],
        "sets": [
            {
                "name": data.name,
                "kind": data.kind,
                "task": data.task,
                "items": len(data.items),
                "missing": data.missing,
                "silent": data.silent,
            }
            for data in sets
        ],
    }


def _digest_of_weights(model: DenseAV) -> str:
    digest = hashlib.sha256()
    for name, weight in model.state_dict().items():
        digest.update(name.encode() + weight.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _digest_of_items(sets: Sequence[EvalSet]) -> str:
    said = [
        (data.name, item.key, item.category, item.label_class, item.word_s)
        for data in sets
        for item in data.items
    ]
    return hashlib.sha256(repr(said).encode(errors="surrogateescape")).hexdigest()


class _Tracker:
    """A progress bar on the error stream."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, sequence: Sequence[T], description: str) -> Iterable[T]:
        """Yield the sequence."""
        return rich_track(sequence, description, console=self._console, transient=True)
