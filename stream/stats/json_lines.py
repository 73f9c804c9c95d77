"""JSON lines: a run's figures, once a second and once at the end, each to a line.

A line is written whole or begun anew on the next. What cannot be written does not end a live
run: it is said once and tried again with the next line; only the final line must succeed.
"""

import errno
import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from denseav.stream.errors import OutputError

PERIOD_S = 1.0
_CLOSING_S = 1.0  # for a reader that does not read


class StatsLines:
    """Writes JSON lines, from a thread of its own, until closed.

    Parameters
    ----------
    destination : a path, or "-" for standard output.
    figures : given whether this is the final line, returns what it says.
    say : called with one line for people when a line could not be written.

    Raises
    ------
    OutputError
        When the destination cannot be opened.
    """

    def __init__(
        self,
        destination: str,
        figures: Callable[[bool], Mapping[str, Any]],
        say: Callable[[str], None],
    ) -> None:
        self._destination = destination
        self._figures = figures
        self._say = say
        try:
            self._file = _open(destination, os.O_TRUNC)
        except OSError as error:
            raise _cannot_write(destination, error) from None
        self._torn = False
        self._said = False
        self._failure: OSError | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write, name="stats", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write the final line and let go of the file.

        Raises
        ------
        OutputError
            When the final line could not be written.
        """
        self._closing.set()
        self._thread.join(_CLOSING_S)
        if self._thread.is_alive():
            raise OutputError(f"nobody reads the report {self._destination}; choose another path")
        if self._destination != "-":
            os.close(self._file)
        if self._failure is not None:
            raise _cannot_write(self._destination, self._failure)

    def _write(self) -> None:
        due_s = monotonic() + PERIOD_S
        while not self._closing.wait(max(0.0, due_s - monotonic())):
            due_s = max(due_s + PERIOD_S, monotonic())
            self._line(final=False)
        self._line(final=True)

    def _line(self, *, final: bool) -> None:
        text = json.dumps(self._figures(final), separators=(",", ":"))
        rest = f"\n{text}\n".encode() if self._torn else f"{text}\n".encode()
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
                self._torn = bool(rest)
        except OSError as error:
            self._failure = error
            if not (self._said or final):
                self._said = True
                self._say(
                    f"cannot write the report {self._destination} ({error.strerror}); "
                    "the run goes on and tries again"
                )
        else:
            self._failure = None


def check_destination(destination: str) -> None:
    """Find out before a long run whether lines can be written where they are wanted.

    Raises
    ------
    OutputError
        When they cannot.
    """
    if destination == "-":
        return
    try:
        path = Path(destination)
        there = path.exists()
        if there and not (path.is_file() or path.is_dir()):
            return  # to open a pipe and close it again would end its reader
        os.close(_open(destination, 0))
        if not there:
            path.unlink()
    except OSError as error:
        raise _cannot_write(destination, error) from None


def _open(destination: str, flags: int) -> int:
    if destination == "-":
        if sys.stdout is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return sys.stdout.fileno()
    how = os.O_WRONLY | os.O_CREAT | flags
    if sys.platform == "win32":
        return os.open(destination, how, 0o666)
    # A pipe that nobody reads is an error at once, and no endless wait.
    file = os.open(destination, how | os.O_NONBLOCK, 0o666)
    os.set_blocking(file, True)
    return file


def _cannot_write(destination: str, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write the report {destination} ({error.strerror}); choose another path"
    )
