"""`denseav-train`: parse, start, run, say where the result is."""

import logging
import re
import sys
import warnings
from collections.abc import Sequence
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import jsonargparse
from rich.console import Console

from denseav.export.command_line import CompletionAction, ends_in_a_line
from denseav.export.terminal_text import safe_console
from denseav.export.version_report import VersionAction
from denseav.models import CheckpointError
from denseav.train.cli.configuration import check_files, check_values, take_as_data
from denseav.train.errors import DataError, PreemptedError, SettingsError
from denseav.train.trainer.settings import Settings

_CODES = """every setting is a --key value, nested with dots, and overrides the configuration
before it; groups that are null by default (data, world, ...) show their settings with --GROUP.help

exit codes: 0 done, 2 usage, 3 data, 4 checkpoint, 6 training went nowhere, 7 disk, 75 told to stop
by SIGTERM or SIGUSR1 and saved: the same command goes on"""

_CONFIGS = Path(__file__).parents[2] / "configs" / "train"
"""Beside the package in its source; installed elsewhere, there is none."""

_IN_GROUP = re.compile(
    r'(?:Parser key "(.+?)": )?Does not validate .*? Errors: - '
    r"(?:Problem with given class_path \S+ )?(.+?)(?: - Expected a <class.*)?$"
)
"""What jsonargparse says of a wrong key or value in a group that may be left out."""

_SENTENCE_END = re.compile(r"(?<=\.)\s|:\s")


@ends_in_a_line("denseav-train")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    console = safe_console(stderr=True)
    logging.basicConfig(format="%(message)s")
    # Of the gradients of 1x1 convolutions, in every process: their last strides mean nothing.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    try:
        settings, out = parse(arguments)
        return _run(settings, out, console)
    except (DataError, CheckpointError) as error:
        _tell(console, error)
        return error.exit_code
    except KeyboardInterrupt:
        console.print("denseav-train: interrupted; the same command goes on from last.ckpt")
        return 130


def parse(arguments: Sequence[str] | None = None) -> tuple[Settings, Path]:
    """Return the settings and the run's folder.

    Raises
    ------
    SettingsError
        When a key is unknown, or a value is not possible.
    """
    parser = _parser()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        check_files(words)
        given = parser.parse_args(words)
        check_values(Settings, given)
        values: dict[str, Any] = vars(parser.instantiate(given))
        names = Settings.__dataclass_fields__
        settings = Settings(**{name: values[name] for name in names})
    except DataError:
        raise
    except CheckpointError as error:
        raise SettingsError(f"network: {error}") from None
    except (jsonargparse.ArgumentError, ValueError) as error:
        raise SettingsError(_one_line(str(error))) from None
    return settings, values["out"]


@cache
def _parser() -> jsonargparse.ArgumentParser:
    take_as_data()
    parser = jsonargparse.ArgumentParser(
        prog="denseav-train",
        description="Train DenseAV, or mix-and-separate, from shards.",
        epilog="\n\n".join(filter(None, (_CODES, configurations()))),
        formatter_class=_Help,
        exit_on_error=False,
    )
    parser.add_argument("--version", action=VersionAction)
    parser.add_argument("--print-completion", action=CompletionAction)
    parser.add_argument("--config", action="config", help="a file of configs/train/")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="the run's folder")
    parser.add_class_arguments(Settings)
    return parser


class _Help(jsonargparse.DefaultHelpFormatter):
    """Descriptions as jsonargparse has them; the epilog's lines as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(
            super(_Help, self)._fill_text(line, width, indent) if line[:1] != " " else line
            for line in text.split("\n")
        )


def configurations() -> str:
    """Return the configuration files there are, each with the first sentence it says of itself."""
    found = []
    for path in sorted(_CONFIGS.glob("*.yaml")):
        comments = takewhile(lambda line: line.startswith("#"), path.read_text().splitlines())
        said = " ".join(line.removeprefix("#").strip() for line in comments)
        found.append(f"  {path.name:<24} {_SENTENCE_END.split(said)[0]}")
    return "\n".join([f"configuration files in {_CONFIGS}:", *found]) if found else ""


def _run(settings: Settings, out: Path, console: Console) -> int:
    # Imported late: the loop takes seconds to import, and a wrong key should not.
    from denseav.train.distributed.collectives import (
        first_to_report,
        leave,
        leave_after_rank_zero,
        rank,
        wait_until_all_asked,
    )
    from denseav.train.trainer.loop import train

    try:
        progress = train(settings, out, console)
    except (DataError, CheckpointError) as error:
        if first_to_report(str(error)):
            _tell(console, error)
        wait_until_all_asked(str(error))
        leave_after_rank_zero()
        return error.exit_code
    if rank() == 0:
        recall = f"best mean recall {progress.best:.1f} %" if progress.measured else "no recall"
        console.print(
            f"{progress.step} steps, {progress.skipped} skipped; {recall}; the network is in "
            f"{out / 'model'}",
            soft_wrap=True,
            highlight=False,
        )
    leave()
    return 0


def _tell(console: Console, error: Exception) -> None:
    if isinstance(error, PreemptedError):
        console.print(f"denseav-train: {error}", soft_wrap=True, markup=False)
        return
    console.print(f"denseav-train: error: {error}", style="red", soft_wrap=True, markup=False)


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    of_group = _IN_GROUP.match(text)
    if of_group is None:
        return f"{text}; see denseav-train --help for all keys"
    group, reason = of_group.groups()
    if group is None:  # our own words
        return str(reason)
    return f"{group}: {reason}; see denseav-train --{group}.help for all its keys"


if __name__ == "__main__":
    sys.exit(main())
