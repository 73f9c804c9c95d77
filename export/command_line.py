"""What the command lines share: arguments as frozen records, checked numbers, one way to end.

Strings in, records and exit codes out; no torch, no thread. It lies where `stream`, `export` and
`train` may all import it.
"""

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import wraps
from pathlib import Path
from threading import Event, current_thread, main_thread
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from denseav.export.terminal_text import safe_text

if TYPE_CHECKING:
    from rich.console import Console

UNFORESEEN = 1
"""The exit code where something failed that nobody foresaw."""
INTERRUPTED = 130
"""The exit code after Ctrl-C, where a command does not run until it is ended so."""

# As Python, C++, OpenCV, PyTorch and a system that gives no thread say it.
_TOO_LITTLE_MEMORY = (
    *("MemoryError", "bad_alloc", "Insufficient memory", "start new thread"),
    *("can't allocate memory", "out of memory", "Cannot allocate memory"),
)
_PLACES = 3  # of ours, where it happened, from the innermost
_OURS = "denseav."

Record = TypeVar("Record")
Main = Callable[[Sequence[str] | None], int]


class CompletionAction(argparse.Action):
    """`--print-completion SHELL`: print the script that completes this command there, and end."""

    def __init__(self, option_strings: list[str], dest: str, **_: Any) -> None:
        super().__init__(
            option_strings,
            dest,
            choices=("bash", "zsh", "tcsh"),
            default=argparse.SUPPRESS,
            help="the script that completes this command in a shell; needs shtab",
        )

    def __call__(
        self, parser: argparse.ArgumentParser, _namespace: object, shell: Any, *_: Any
    ) -> None:
        """Print and end."""
        try:
            import shtab
        except ModuleNotFoundError:
            parser.error("completion needs shtab: pip install shtab")
        print(shtab.complete(parser, shell))  # noqa: T201
        parser.exit()


def record(kind: type[Record], given: argparse.Namespace) -> Record:
    """Return a record of parsed arguments, its fields by their names.

    Parameters
    ----------
    kind : a dataclass whose every field is an argument's name.
    """
    names = (each.name for each in fields(kind))  # type: ignore[arg-type]  # a dataclass, as said
    return kind(**{name: getattr(given, name) for name in names})


def run(
    name: str,
    act: Callable[["Console"], None],
    console: "Console",
    errors: Callable[[], tuple[type[Exception], ...]],
    interrupted: str,
) -> int:
    """Do what a command is for, and return the exit code, with one line for people if it failed.

    Parameters
    ----------
    name : the command's, which its lines begin with.
    act : what it does; gets the console.
    errors : gives what can go wrong for a person, each with its `exit_code`; asked only then, for
        some of them may be imported by what the command does.
    interrupted : what Ctrl-C leaves behind, in words.
    """
    with _noting_interrupts() as came:
        try:
            act(console)
        except (Exception, KeyboardInterrupt) as error:
            # Libraries make other errors of a Ctrl-C that comes while they call back.
            if came.is_set() or isinstance(error, KeyboardInterrupt):
                console.print(f"{name}: interrupted; {interrupted}")
                return INTERRUPTED
            if not isinstance(error, errors()):
                raise
            console.print(f"{name}: error: {error}", style="red", soft_wrap=True, markup=False)
            code: int = getattr(error, "exit_code")  # noqa: B009  # each of these has one
            return code
    return 0


def ends_in_a_line(name: str) -> Callable[[Main], Callable[..., int]]:
    """Return a decorator of a command's `main`: whatever fails is one line and an exit code.

    What a command foresees it says itself; this is for the rest, for a Ctrl-C that comes before
    or after its work, and for what it printed and nobody can take.

    Parameters
    ----------
    name : the command's, which its line begins with.
    """

    def decorate(main: Main) -> Callable[..., int]:
        @wraps(main)
        def ended(arguments: Sequence[str] | None = None) -> int:
            try:
                try:
                    return main(arguments)
                finally:
                    if sys.stdout is not None:
                        sys.stdout.flush()
            except KeyboardInterrupt:
                _say(f"{name}: interrupted")
                return INTERRUPTED
            except Exception as error:  # noqa: BLE001 - one line, whatever nobody foresaw
                _say(f"{name}: error: {unforeseen(error)}")
                _leave_unprinted()
                return UNFORESEEN

        return ended

    return decorate


def unforeseen(error: Exception, what: str = "it") -> str:
    """Return one line for people on what nobody foresaw: what, where, and what to do."""
    words = in_words(error)
    if any(sign in words for sign in _TOO_LITTLE_MEMORY):
        return f"there is too little memory ({words}); free some, or raise its limit"
    if isinstance(error, BrokenPipeError):
        return "nobody reads what it prints any more"
    calls = list(traceback.walk_tb(error.__traceback__))
    ours = [each for each in calls if each[0].f_globals.get("__name__", "").startswith(_OURS)]
    places = [calls[-1], *(each for each in ours[::-1] if each is not calls[-1])][:_PLACES]
    where = ", called at ".join(
        f"{Path(frame.f_code.co_filename).name}:{line}" for frame, line in places
    )
    return (
        f"{what} failed unexpectedly ({words}) at {where}; please report it with this line, what "
        "you ran, and what it says to --version"
    )


def in_words(error: BaseException) -> str:
    """Return what an exception that nobody foresaw says of itself, and its kind."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _say(line: str) -> None:
    with suppress(OSError, ValueError):  # nobody reads it
        print(safe_text(line), file=sys.stderr, flush=True)  # noqa: T201


def _leave_unprinted() -> None:
    """Leave what cannot be printed, so that the interpreter does not fail at it once more."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


@contextmanager
def _noting_interrupts() -> Iterator[Event]:
    """Yield whether Ctrl-C has come, which is raised as ever; one that is ignored stays so."""
    came = Event()
    handler = signal.getsignal(signal.SIGINT)
    if handler is not signal.default_int_handler or current_thread() is not main_thread():
        yield came
        return

    def note(number: int, frame: FrameType | None) -> None:
        came.set()
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, handler)


def whole_number(text: str) -> int:
    """Return a whole number, 0 or more, as argparse's `type`."""
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def count(text: str) -> int:
    """Return a whole number above 0, as argparse's `type`."""
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def positive(text: str) -> float:
    """Return a finite number above 0, as argparse's `type`."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def size(text: str, form: str) -> tuple[int, int]:
    """Return the two whole numbers above 0 of a text such as 224x296.

    Parameters
    ----------
    form : what was expected, with an example.
    """
    first, cross, second = text.lower().partition("x")
    if not cross:
        raise argparse.ArgumentTypeError(f"{text!r} is not {form}")
    return count(first), count(second)
