"""`denseav`: the name of a command and its arguments in, that command's exit code out.

Each is a program of its own too: `denseav live` is `denseav-live`. Only the one that is asked for
is loaded; what exports and trains needs libraries that a robot has not.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from denseav.export.command_line import ends_in_a_line
from denseav.export.version_report import VersionAction

_COMMANDS = {
    "live": ("denseav.stream.cli.live", "show on live video where the sound comes from"),
    "feed": ("denseav.stream.cli.feed", "watch, record, replay and check what live publishes"),
    "export": ("denseav.export.cli", "make the bundle that live runs"),
    "train": ("denseav.train.cli.train", "train a network"),
    "eval": ("denseav.train.cli.eval", "measure one as the papers do"),
    "data": ("denseav.train.cli.data", "make shards, or a world with its truth"),
}
_EXTRAS = {"export": "export", "train": "train", "eval": "train", "data": "train"}


@ends_in_a_line("denseav")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that is named, and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = _parser().parse_args(given[:1]).command
    # The program itself, as if it had been started by its own name.
    sys.argv = [f"denseav-{name}", *given[1:]]
    return _run(name)


def _program(name: str) -> Callable[[], int]:
    return ends_in_a_line(f"denseav-{name}")(lambda _: _run(name))


export, train, evaluate, data = (_program(name) for name in ("export", "train", "eval", "data"))
"""The programs `denseav-export` and so on, which say what they lack before it is imported."""


def _run(name: str) -> int:
    module, _ = _COMMANDS[name]
    try:
        command: Callable[[], int] = import_module(module).main
    except ModuleNotFoundError as error:
        if name not in _EXTRAS or (error.name or "").startswith("denseav"):
            raise
        print(  # noqa: T201
            f"denseav: error: {name} needs {error.name}; in a clone of denseav: "
            f"pip install '.[{_EXTRAS[name]}]'",
            file=sys.stderr,
        )
        return 2
    return command()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="denseav",
        description="Looks and listens: where the sound comes from, what the speech is about.",
        epilog="\n".join(
            ["commands:", *(f"  {name:8}{words}" for name, (_, words) in _COMMANDS.items())]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=VersionAction)
    parser.add_argument("command", choices=_COMMANDS, help="and then its own arguments")
    return parser
