"""The thread on which a source runs: an exception that nobody foresaw is reported, never lost.

A function in; its end, or one `UnexpectedSourceError`, out. Nothing here knows devices or files.
"""

import threading
from collections.abc import Callable

from denseav.export.command_line import in_words
from denseav.stream.errors import SourceError, UnexpectedSourceError


class SourceThread(threading.Thread):
    """Runs a source until it ends.

    Parameters
    ----------
    source : what people read: `camera http://…`.
    run : is called on the thread.
    failed : is called there with what `run` did not expect; the run ends by it.
    """

    def __init__(
        self, source: str, run: Callable[[], None], failed: Callable[[UnexpectedSourceError], None]
    ) -> None:
        super().__init__(name=source, daemon=True)
        self._source = source
        self._run = run
        self._failed = failed

    def start(self) -> None:
        """Begin to run.

        Raises
        ------
        SourceError
            When the system gives no thread.
        """
        try:
            super().start()
        except RuntimeError as error:
            raise SourceError(f"{self._source} gets no thread ({error}); free memory") from None

    def run(self) -> None:
        """Call the function, and report what it did not expect."""
        try:
            self._run()
        except UnexpectedSourceError as error:  # a device's thread has reported to its supervisor's
            self._failed(error)
        except Exception as error:  # noqa: BLE001
            self._failed(unexpected(self._source, error))


def unexpected(source: str, error: Exception) -> UnexpectedSourceError:
    """Return an exception that nobody foresaw as one line for people."""
    failure = UnexpectedSourceError(
        f"{source} failed unexpectedly ({in_words(error)}); start again"
    )
    failure.__cause__ = error
    return failure
