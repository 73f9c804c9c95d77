"""`denseav-data world`: films, shards, pairs for calibration and a live source from a seed."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import track

from denseav.export.command_line import count, size, whole_number
from denseav.train.eval.world.split import LEAST_SIDE
from denseav.train.world.broadcast import Subscribers, broadcast, endless_shots
from denseav.train.world.clips import KINDS, Kind
from denseav.train.world.film import make_film, save_film
from denseav.train.world.library import BACKGROUND_SIDE
from denseav.train.world.write import NEGATIVES, SEEN, TUNES, save_pairs, save_shards

FRAME_SIZE = (128, 168)
"""Height and width that the demo's network takes."""


@dataclass(frozen=True)
class FilmOptions:
    """A film's seed and file."""

    seed: int
    out: Path


@dataclass(frozen=True)
class ShardsOptions:
    """How many clips of which kinds, and the folder of their shards."""

    seed: int
    clips: int
    out: Path
    kind: Sequence[Kind]


@dataclass(frozen=True)
class PairsOptions:
    """How many pairs of which size (height, width), and their folder."""

    seed: int
    clips: int
    out: Path
    size: tuple[int, int]
    seen: bool
    tunes: bool


@dataclass(frozen=True)
class ServeOptions:
    """The address (host, port) of an endless film, and where its truth is written."""

    seed: int
    address: tuple[str, int]
    truth: TextIO


def add_commands(commands: Any) -> None:
    """Add `world` to a parser's commands.

    Each sets `act`, which takes its options and a console, and `options`, their record.
    """
    world = commands.add_parser(
        "world",
        help="make films, shards, pairs or a live source of a synthetic world",
        description="Make what the synthetic world can give. Everything follows from the seed.",
        allow_abbrev=False,
    )
    kinds = world.add_subparsers(metavar="COMMAND", required=True)
    film = _add(kinds, "film", "render a film with sound, and its truth beside it as .json")
    film.add_argument("--out", type=_film_path, required=True, metavar="FILE.mp4")
    film.set_defaults(act=_film, options=FilmOptions)
    shards = _add(kinds, "shards", "write clips as shards, as `denseav-data prepare` does")
    _add_clips(shards)
    shards.add_argument(
        "--kind",
        nargs="+",
        choices=KINDS,
        default=["sound", "speech"],
        metavar="KIND",
        help=f"what is heard, one clip after the other: {', '.join(KINDS)}; default: sound speech",
    )
    shards.set_defaults(act=_shards, options=ShardsOptions)
    pairs = _add(kinds, "negatives", "write pictures with sound of nothing in them, to calibrate")
    _add_clips(pairs)
    pairs.add_argument(
        "--size",
        type=_size,
        default=FRAME_SIZE,
        metavar="HxW",
        help="of the pictures, in pixels, as the model takes them; default: {}x{}".format(
            *FRAME_SIZE
        ),
    )
    pairs.add_argument(
        "--seen",
        action="store_true",
        help="add pairs in which the sound belongs to the picture, three to every four",
    )
    pairs.add_argument(
        "--tunes",
        action="store_true",
        help="of the kinds, tunes too, for a model with a head of its own for them",
    )
    pairs.set_defaults(act=_pairs, options=PairsOptions)
    serve = _add(kinds, "serve", "send an endless film to whoever connects, as it happens")
    serve.add_argument("address", type=_address, metavar="tcp://HOST:PORT")
    serve.add_argument(
        "--truth",
        type=argparse.FileType("w"),
        default="-",
        metavar="FILE",
        help="gets a JSON line for each thing heard, as it ends; default: standard output",
    )
    serve.set_defaults(act=_serve, options=ServeOptions, interrupted="the film has ended")


def _add(commands: Any, name: str, words: str) -> Any:
    command = commands.add_parser(
        name, help=words, description=words[0].upper() + words[1:] + ".", allow_abbrev=False
    )
    command.set_defaults(interrupted="what is there is unfinished")
    command.add_argument("--seed", type=whole_number, default=0, metavar="N", help="default: 0")
    return command


def _add_clips(command: Any) -> None:
    command.add_argument("--clips", type=count, required=True, metavar="M", help="how many to make")
    command.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="a new or empty folder"
    )


def _film(options: FilmOptions, console: Console) -> None:
    with console.status("casting"):
        film = make_film(options.seed)
    save_film(film, options.out, _tracked(film.frames, "drawing", console))
    console.print(f"{options.out}, and its truth {options.out.with_suffix('.json')}", markup=False)


def _shards(options: ShardsOptions, console: Console) -> None:
    numbers = _tracked(options.clips, "making clips", console)
    clips = save_shards(options.out, options.seed, options.kind, numbers)
    console.print(f"{clips} clips in {options.out}", soft_wrap=True, markup=False)


def _pairs(options: PairsOptions, console: Console) -> None:
    kinds = (*NEGATIVES, *SEEN) if options.seen else NEGATIVES
    if options.tunes:
        kinds += TUNES if options.seen else TUNES[1:]
    numbers = _tracked(options.clips, "making pairs", console)
    save_pairs(out=options.out, seed=options.seed, kinds=kinds, size=options.size, numbers=numbers)
    console.print(f"{options.clips} pairs in {options.out}", soft_wrap=True, markup=False)


def _serve(options: ServeOptions, console: Console) -> None:
    subscribers = Subscribers(*options.address)
    host = options.address[0]
    console.print(f"sending to tcp://{host}:{subscribers.port}; Ctrl-C ends it", markup=False)
    try:
        broadcast(endless_shots(options.seed), subscribers, options.truth)
    finally:
        subscribers.close()


def _tracked(total: int, words: str, console: Console) -> Any:
    return track(range(total), words, console=console)


def _film_path(text: str) -> Path:
    path = Path(text)
    if path.suffix != ".mp4":
        raise argparse.ArgumentTypeError("must end in .mp4")
    return path


def _address(text: str) -> tuple[str, int]:
    parts = urlsplit(text)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme != "tcp" or host is None or port is None:
        raise argparse.ArgumentTypeError("must be tcp://HOST:PORT")
    return host, port


def _size(text: str) -> tuple[int, int]:
    form = f"HEIGHTxWIDTH of {LEAST_SIDE} to {BACKGROUND_SIDE} pixels each"
    sides = size(text, form)
    if min(sides) < LEAST_SIDE or max(sides) > BACKGROUND_SIDE:
        raise argparse.ArgumentTypeError(f"{text!r} is not {form}")
    return sides
