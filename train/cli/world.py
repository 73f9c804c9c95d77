"""`denseav-data world`: films, shards, pairs for calibration and a live source from a seed."""

import argparse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import track

from denseav.train.eval.world.split import LEAST_SIDE
from denseav.train.world.broadcast import Subscribers, broadcast, endless_shots
from denseav.train.world.clips import KINDS
from denseav.train.world.film import make_film, save_film
from denseav.train.world.library import BACKGROUND_SIDE
from denseav.train.world.write import NEGATIVES, SEEN, save_pairs, save_shards

FRAME_SIZE = (128, 168)
"""Height and width that the demo's network takes."""


def add_commands(commands: Any) -> None:
    """Add `world` to a parser's commands; each sets `run`, which takes options and a console."""
    world = commands.add_parser(
        "world",
        help="make films, shards, pairs or a live source of a synthetic world",
        description="Make what the synthetic world can give. Everything follows from the seed.",
        allow_abbrev=False,
    )
    kinds = world.add_subparsers(metavar="COMMAND", required=True)
    film = _add(kinds, "film", "render a film with sound, and its truth beside it as .json")
    film.add_argument("--out", type=_film_path, required=True, metavar="FILE.mp4")
    film.set_defaults(run=_film)
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
    shards.set_defaults(run=_shards)
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
    pairs.set_defaults(run=_pairs)
    serve = _add(kinds, "serve", "send an endless film to whoever connects, as it happens")
    serve.add_argument("address", type=_address, metavar="tcp://HOST:PORT")
    serve.add_argument(
        "--truth",
        type=argparse.FileType("w"),
        default="-",
        metavar="FILE",
        help="gets a JSON line for each thing heard, as it ends; default: standard output",
    )
    serve.set_defaults(run=_serve, interrupted="the film has ended")


def _add(commands: Any, name: str, words: str) -> Any:
    command = commands.add_parser(
        name, help=words, description=words[0].upper() + words[1:] + ".", allow_abbrev=False
    )
    command.set_defaults(interrupted="what is there is unfinished")
    command.add_argument("--seed", type=_number, default=0, metavar="N", help="default: 0")
    return command


def _add_clips(command: Any) -> None:
    command.add_argument(
        "--clips", type=_positive, required=True, metavar="M", help="how many to make"
    )
    command.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="a new or empty folder"
    )


def _film(options: argparse.Namespace, console: Console) -> None:
    with console.status("casting"):
        film = make_film(options.seed)
    save_film(film, options.out, _tracked(film.frames, "drawing", console))
    console.print(f"{options.out}, and its truth {options.out.with_suffix('.json')}", markup=False)


def _shards(options: argparse.Namespace, console: Console) -> None:
    numbers = _tracked(options.clips, "making clips", console)
    clips = save_shards(options.out, options.seed, options.kind, numbers)
    console.print(f"{clips} clips in {options.out}", soft_wrap=True, markup=False)


def _pairs(options: argparse.Namespace, console: Console) -> None:
    kinds = (*NEGATIVES, *SEEN) if options.seen else NEGATIVES
    numbers = _tracked(options.clips, "making pairs", console)
    save_pairs(options.out, options.seed, kinds, options.size, numbers)
    console.print(f"{options.clips} pairs in {options.out}", soft_wrap=True, markup=False)


def _serve(options: argparse.Namespace, console: Console) -> None:
    subscribers = Subscribers(*options.address)
    host = options.address[0]
    console.print(f"sending to tcp://{host}:{subscribers.port}; Ctrl-C ends it", markup=False)
    try:
        broadcast(endless_shots(options.seed), subscribers, options.truth)
    finally:
        subscribers.close()


def _tracked(count: int, words: str, console: Console) -> Any:
    return track(range(count), words, console=console)


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


def _number(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _size(text: str) -> tuple[int, int]:
    sides = [int(side) if side.isdecimal() else 0 for side in text.split("x")]
    if len(sides) != 2 or min(sides) < LEAST_SIDE or max(sides) > BACKGROUND_SIDE:
        raise argparse.ArgumentTypeError(
            f"must be HEIGHTxWIDTH of {LEAST_SIDE} to {BACKGROUND_SIDE} pixels each"
        )
    return sides[0], sides[1]
