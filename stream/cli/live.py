"""`denseav-live`: a command line in, an exit code and one line for people out.

What needs the system's libraries is imported once the command line is understood, so that a
missing one is a line too, and not a traceback.
"""

import atexit
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from denseav.export.command_line import unforeseen
from denseav.export.process_limits import address_space_mb, keep_memory_together
from denseav.export.runtime.bundle import BundleError
from denseav.export.terminal_text import safe_text
from denseav.stream.cli.live_options import parse
from denseav.stream.cli.standard_error import StandardError
from denseav.stream.errors import StreamError

ADDRESS_SPACE_MB = 1_000  # the demo with a recording takes 900
OPENING_S = 1.5  # for what is being opened to get ready to end in order
ENDING_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Ctrl-C, `kill`, a closed terminal
_LIBRARIES = "libgl1 libglib2.0-0 libsm6 libice6 libx11-6 libxext6"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    Without arguments it is the program itself, and ends the process: at once, for a library that
    still waits for a camera would abort an interpreter that takes itself apart meanwhile. With
    arguments it was called: signals and standard error are the caller's again afterwards.
    """
    if arguments is None:
        keep_memory_together()
    log = _keep_standard_error() if arguments is None else None
    logging.basicConfig(format="denseav-live: %(message)s", level=logging.WARNING)
    stop, opened = threading.Event(), threading.Event()
    try:
        with _stopping_on_signals(stop, opened):
            code = _code(arguments, stop, opened)
            if arguments is None:
                _end(code, log)
    except RuntimeError as error:  # the system gives no thread
        _say(f"error: {unforeseen(error, 'the run')}")
        return StreamError.exit_code
    return code


def _code(arguments: Sequence[str] | None, stop: threading.Event, opened: threading.Event) -> int:
    failures = _stop_on_dead_threads(stop)
    try:
        _run(arguments, stop, opened)
    except (StreamError, BundleError) as error:
        _say(f"error: {error}")
        return error.exit_code
    except SystemExit as ended:  # --help
        return int(ended.code or 0)
    except Exception as error:  # noqa: BLE001 - one line, whatever nobody foresaw
        _say(f"error: {unforeseen(error, 'the run')}")
        return StreamError.exit_code
    finally:
        threading.excepthook = threading.__excepthook__
    for failure in failures:
        _say(f"error: {failure}")
    return StreamError.exit_code if failures else 0


def _run(arguments: Sequence[str] | None, stop: threading.Event, opened: threading.Event) -> None:
    options = parse(arguments)
    if address_space_mb() < ADDRESS_SPACE_MB:  # libraries would crash while they are loaded
        raise StreamError(
            f"the limit of {address_space_mb():.0f} MB is too little memory; allow this program "
            f"{ADDRESS_SPACE_MB} MB of address space (ulimit -v)"
        )
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
        check_devices(open_model(options), options.check_device, options.model.threads or 1)
    elif options.calibrate_av:
        print(safe_text(calibrate(options, stop, opened), lines=True))  # noqa: T201
    elif options.bench.bench is not None:
        bench(arguments, options, stop, opened)
    else:
        run(options, stop, opened)


def _say(line: str) -> None:
    print(f"denseav-live: {safe_text(line)}", file=sys.stderr)  # noqa: T201


def _keep_standard_error() -> StandardError | None:
    """Print by a stream that never waits, where nothing else has replaced the process's own."""
    own = sys.__stderr__
    if own is None or sys.stderr is not own:
        return None
    try:
        log = StandardError(own.fileno())
    except RuntimeError:  # the system gives no thread, and will be said to
        return None
    sys.stderr = log
    atexit.register(log.drain)
    return log


def _stop_on_dead_threads(stop: threading.Event) -> list[str]:
    """Set `stop` when a thread ends by an exception; return where its words will be found."""
    failures: list[str] = []

    def note(dead: Any) -> None:
        name = dead.thread.name if dead.thread is not None else "a thread"
        failures.append(f"{name} failed unexpectedly ({dead.exc_type.__name__}: {dead.exc_value})")
        stop.set()

    threading.excepthook = note
    return failures


def _end(code: int, log: StandardError | None) -> None:
    """End the process with this code, whatever still waits in it."""
    if log is not None:
        log.drain()
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:  # its reader has gone
        code = code or 7
    os._exit(code)


@contextmanager
def _stopping_on_signals(stop: threading.Event, opened: threading.Event) -> Iterator[None]:
    """Set `stop` at Ctrl-C, SIGTERM or SIGHUP, even while a library keeps the main thread.

    Python runs its own handlers only between two lines of the main thread, and an absent camera
    or a large model keeps it for seconds. Any further signal changes nothing. Afterwards signals
    are again whose they were: a caller's must not end the process here.
    """
    asks, asked = socket.socketpair()
    asks.setblocking(False)
    wakeup = signal.set_wakeup_fd(asks.fileno(), warn_on_full_buffer=False)
    handlers = {}
    for name in ENDING_SIGNALS:
        number = getattr(signal, name, None)
        # `nohup` has the terminal's end ignored, and means it.
        if number is not None and not (
            name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN
        ):
            handlers[int(number)] = signal.signal(number, lambda *_: None)

    def wait() -> None:
        while came := asked.recv(1):
            if came[0] not in handlers:  # another that a library handles, such as a child's end
                continue
            stop.set()
            if not opened.wait(OPENING_S):
                os._exit(0)  # nothing is open that would have to be closed

    waits = threading.Thread(target=wait, name="signals", daemon=True)
    try:
        waits.start()
        yield
    finally:
        opened.set()
        for ending, handler in handlers.items():
            signal.signal(ending, handler)
        signal.set_wakeup_fd(wakeup)
        asks.close()  # last: its number could become a recording's, the next signal a byte in it
        if waits.ident is not None:
            waits.join()
        asked.close()
