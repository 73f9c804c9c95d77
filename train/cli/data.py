"""`denseav-data`: parse, list, prepare, say what came of it."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from denseav.export.command_line import CompletionAction, count, ends_in_a_line, record, run
from denseav.export.terminal_text import safe_console
from denseav.export.version_report import VersionAction
from denseav.stream.media.sound import Channel
from denseav.train.data.preparation.folder_lock import WHOLE, Share
from denseav.train.data.preparation.prepare import Prepared, items_of, prepare
from denseav.train.data.preparation.source_lists import list_items
from denseav.train.data.shards import KINDS
from denseav.train.data.workers import usable_cores
from denseav.train.errors import DataError

_SOURCES = """\
SOURCE is a folder of videos (each is cut into clips of 10 s), a PlacesAudio list
(PlacesAudio_400k_distro/metadata/train.json, pictures in places_subset beside the distro), or an
AudioSet list (audioset-raw/metadata/*.csv). The same command continues what was stopped. What
cannot be used is skipped, and listed in DIR/skipped.tsv with the reason; what had to be mended is
listed in DIR/mended.tsv.
Many machines, or the tasks of a SLURM array, share one DIR: each runs the command with its own
--part, and when all are done, once without it, which joins what they made.
Exit codes: 0 done, 2 usage, 3 the source or DIR is not usable, 130 interrupted."""


@dataclass(frozen=True)
class PrepareOptions:
    """A source of clips, the folder its shards go into, and how."""

    source: Path
    out: Path
    kind: str | None
    channel: Channel | None
    audio_track: str | None
    jobs: int
    part: Share


@ends_in_a_line("denseav-data")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    given = _parser(words).parse_args(words)
    options = record(given.options, given)

    def act(console: Console) -> None:
        given.act(options, console)

    console = safe_console(stderr=True)
    return run(
        "denseav-data",
        act,
        console,
        errors=lambda: (DataError,),
        interrupted=given.interrupted,
    )


def _parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="denseav-data", description="Make training data ready.", allow_abbrev=False
    )
    parser.add_argument("--version", action=VersionAction)
    parser.add_argument("--print-completion", action=CompletionAction)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    command = commands.add_parser(
        "prepare",
        help="turn videos or a list of clips into shards, once",
        epilog=_SOURCES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument("source", type=Path, metavar="SOURCE", help="what there is, see below")
    command.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where the shards go"
    )
    command.add_argument(
        "--kind",
        choices=tuple(KINDS),
        help="what the clips let hear; default: speech for PlacesAudio, sound for AudioSet, "
        "unknown for videos",
    )
    command.add_argument(
        "--channel",
        choices=get_args(Channel),
        help="of recordings with several; default: the mix, or the left where left and right "
        "cancel, as live; the released training takes the left",
    )
    command.add_argument(
        "--audio-track",
        metavar="N|LANGUAGE",
        help="of videos with several, as in 2 or eng; default: the one that a file gives as "
        "default",
    )
    command.add_argument(
        "--jobs",
        type=count,
        default=usable_cores(),
        metavar="N",
        help="processes that read and encode; default: one for every core (%(default)s)",
    )
    command.add_argument(
        "--part",
        type=share,
        default=WHOLE,
        metavar="I/N",
        help="prepare only the Ith of N equal parts, as in 1/4, beside others that do the rest; "
        "default: all",
    )
    command.set_defaults(
        act=_prepare, options=PrepareOptions, interrupted="the same command goes on from here"
    )
    if words[:1] != ["prepare"]:  # a list that goes on does not wait for what makes worlds
        from denseav.train.cli.world import add_commands

        add_commands(commands)
    return parser


def share(text: str) -> Share:
    """Return a part such as 1/4, of an argument."""
    try:
        number, of = text.split("/")
        return Share(int(number), int(of))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no part such as 1/4") from None


def _prepare(options: PrepareOptions, console: Console) -> None:
    items = list_items(
        options.source, options.kind, channel=options.channel, audio_track=options.audio_track
    )
    if items.alone:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(items.alone.items()))
        console.print(f"files left alone: {kinds}", soft_wrap=True, markup=False)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        total = items_of(items, options.part)
        task = progress.add_task("preparing", total=total)
        prepared = prepare(
            items,
            options.out,
            jobs=options.jobs,
            advance=lambda done: progress.advance(task, done),
            share=options.part,
        )
    console.print(f"{prepared.clips} clips in {options.out}", soft_wrap=True, markup=False)
    if options.part.whole:
        _tell_of_lists(prepared, total, console)
    else:
        left = f"{prepared.parts_left} pieces of other parts are left; " * bool(prepared.parts_left)
        console.print(
            f"part {options.part.number}/{options.part.of} is done; {left}when all parts are, the "
            "same command without --part joins them",
            soft_wrap=True,
            markup=False,
        )


def _tell_of_lists(prepared: Prepared, files: int, console: Console) -> None:
    if prepared.mended:
        console.print(
            f"{prepared.mended} files were mended; how is in {prepared.mended_list}",
            soft_wrap=True,
            markup=False,
        )
    if prepared.skipped:
        console.print(
            f"{prepared.skipped} of {files} files were skipped; the reasons are in "
            f"{prepared.skipped_list}",
            style="yellow",
            soft_wrap=True,
            markup=False,
        )
