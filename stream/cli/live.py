"""`denseav-live`: parse, run, and one line for people when something is wrong.

What needs the system's libraries is imported once the command line is understood, so that a
missing one is a line too, and not a traceback.
"""

import io
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from denseav.export.runtime.bundle import BundleError
from denseav.stream.cli.live_options import parse
from denseav.stream.errors import StreamError, without_secrets

OPENING_S = 1.5  # for what is being opened to get ready to end in order
_LIBRARIES = "libgl1 libglib2.0-0 libsm6 libice6 libx11-6 libxext6"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    _keep_standard_error()
    logging.basicConfig(format="denseav-live: %(message)s", level=logging.WARNING)
    stop, opened = threading.Event(), threading.Event()
    _stop_on_signals(stop, opened)
    try:
        _run(arguments, stop, opened)
    except (StreamError, BundleError) as error:
        print(f"denseav-live: error: {without_secrets(str(error))}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


def _run(arguments: Sequence[str] | None, stop: threading.Event, opened: threading.Event) -> None:
    options = parse(arguments)
    try:
        from denseav.stream.app.build import calibrate, open_model, run
        from denseav.stream.cli.bench import bench
        from denseav.stream.cli.check_devices import check_devices
        from denseav.stream.cli.list_devices import list_devices
    except ImportError as error:
        raise StreamError(
            f"a library cannot be loaded ({error}); install denseav again, "
            f"and on Debian or Ubuntu: apt install {_LIBRARIES}"
        ) from None
    if options.list_devices:
        print(list_devices())  # noqa: T201
    elif options.check_device is not None:
        check_devices(open_model(options), options.check_device, options.model.threads)
    elif options.calibrate_av:
        print(calibrate(options, stop, opened))  # noqa: T201
    elif options.bench.bench is not None:
        bench(arguments, options, stop, opened)
    else:
        run(options, stop, opened)


def _keep_standard_error() -> None:
    """Print by a copy of descriptor 2: where libraries print to it, it is silenced at times."""
    if sys.stderr is sys.__stderr__ and sys.stderr is not None:
        log = io.BufferedWriter(_LastingLog(os.dup(2)))
        sys.stderr = io.TextIOWrapper(log, errors="backslashreplace", line_buffering=True)


class _LastingLog(io.RawIOBase):
    """A descriptor to write to; what nobody takes any more is gone, and no reason to end a run."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def writable(self) -> bool:
        """Return that it can be written."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def write(self, data: Any) -> int:
        """Write what can be, and call it all."""
        with suppress(OSError):
            os.write(self._descriptor, data)
        return len(data)


def _stop_on_signals(stop: threading.Event, opened: threading.Event) -> None:
    """Set `stop` at Ctrl-C, SIGTERM or SIGHUP, even while a library keeps the main thread.

    Python runs its own handlers only between two lines of the main thread, and an absent camera
    or a large model keeps it for seconds.
    """
    asks, asked = socket.socketpair()
    asks.setblocking(False)
    signal.set_wakeup_fd(asks.fileno(), warn_on_full_buffer=False)
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows closes no terminal with a signal
            signal.signal(getattr(signal, name), lambda *_: None)

    def wait() -> None:
        with (
            asks
        ):  # closed, its number could become a recording's, and the next signal a byte in it
            while asked.recv(1):
                stop.set()
                if not opened.wait(OPENING_S):
                    os._exit(0)  # nothing is open that would have to be closed

    threading.Thread(target=wait, name="signals", daemon=True).start()
