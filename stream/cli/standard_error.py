"""Standard error that no thread waits for and no run ends by: lines in, lines out when they can be.

A terminal may be stopped (Ctrl-S, a suspended `less`), or gone. Any thread prints; one thread
of its own writes. No control character gets to the terminal, whoever prints it.
"""

import io
import os
import queue
import threading
from contextlib import suppress

from denseav.export.terminal_text import without_controls

WAITING_LINES = 1000  # more are counted, and left out
CLOSING_S = 1.0  # for a reader that does not read


class StandardError(io.TextIOBase):
    """A text stream in place of `sys.stderr`, on a descriptor of its own.

    Parameters
    ----------
    descriptor : is copied, for libraries print to it, and it is silenced at times.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = os.dup(descriptor)
        self._lines: queue.Queue[str] = queue.Queue(WAITING_LINES)
        self._left_out = 0
        self._begun = threading.local()  # lines of two threads do not mix
        self._thread = threading.Thread(target=self._write, name="standard error", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Take some text; what ends in a line feed is printed soon. Never waits, never fails."""
        *lines, rest = (getattr(self._begun, "text", "") + text).split("\n")
        self._begun.text = rest
        for line in lines:
            try:
                self._lines.put_nowait(line)
            except queue.Full:
                self._left_out += 1
        return len(text)

    def writable(self) -> bool:
        """Whether it can be written to: always."""
        return True

    def fileno(self) -> int:
        """Return the descriptor that it writes to."""
        return self._descriptor

    def drain(self, timeout_s: float = CLOSING_S) -> None:
        """Wait until all is written, at most so long."""
        lines = self._lines
        if not self._thread.is_alive():  # it has run out of memory
            with suppress(queue.Empty):
                while True:
                    self._print(lines.get_nowait())
        with lines.all_tasks_done:
            lines.all_tasks_done.wait_for(lambda: not lines.unfinished_tasks, timeout_s)

    def _write(self) -> None:
        while True:
            self._print(self._lines.get())

    def _print(self, line: str) -> None:
        try:
            self._put(f"{without_controls(line)}\n")
            left_out, self._left_out = self._left_out, 0
            if left_out:
                self._put(f"({left_out} lines are left out here)\n")
        finally:
            self._lines.task_done()

    def _put(self, line: str) -> None:
        rest = line.encode(errors="backslashreplace")
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:  # nobody reads it any more, and the run is worth more than its log
            return
