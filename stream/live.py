"""`denseav-live`: parse, run, and one line for people when something is wrong.

What needs the system's libraries is imported once the command line is understood, so that a
missing one is a line too, and not a traceback.
"""

import logging
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

from denseav.export.bundle import BundleError
from denseav.stream.errors import StreamError
from denseav.stream.options import parse

_LIBRARIES = "libgl1 libglib2.0-0 libsm6 libice6 libx11-6 libxext6"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    logging.basicConfig(format="denseav-live: %(message)s", level=logging.WARNING)
    stop = threading.Event()
    _stop_on_signals(stop)
    try:
        _run(arguments, stop)
    except (StreamError, BundleError) as error:
        print(f"denseav-live: error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


def _run(arguments: Sequence[str] | None, stop: threading.Event) -> None:
    options = parse(arguments)
    try:
        from denseav.stream.assembly import run
        from denseav.stream.devices import list_devices
    except ImportError as error:
        raise StreamError(
            f"a library cannot be loaded ({error}); install denseav again, "
            f"and on Debian or Ubuntu: apt install {_LIBRARIES}"
        ) from None
    if options.list_devices:
        print(list_devices())  # noqa: T201
    else:
        run(options, stop)


def _stop_on_signals(stop: threading.Event) -> None:
    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
