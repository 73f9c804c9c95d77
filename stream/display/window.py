"""The window: a canvas in, a key out; a process of its own keeps it (see `window_process`)."""

from multiprocessing import get_context

import numpy as np

from denseav.stream.display.drawing import Canvas
from denseav.stream.display.window_process import serve
from denseav.stream.errors import OutputError

ANSWER_S = 0.5
CLOSING_S = 1.0


class Screen:
    """The window. It has the size of the first canvas and can be resized by hand.

    Call everything from one thread, and only where `display_available()`.
    """

    def __init__(self, title: str) -> None:
        context = get_context("spawn")  # a copy of this process would have its threads' locks
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, title)
        self._process = context.Process(target=serve, args=arguments, name="window", daemon=True)
        self._process.start()
        theirs.close()
        self._is_open = True
        self._asked = False  # and not answered yet

    def show(self, canvas: Canvas) -> str | None:
        """Show a canvas and return the key pressed, as `poll` does. Once closed it stays closed.

        A window that takes longer than half a second for one canvas misses the next.
        """
        return self._ask(canvas)

    def poll(self) -> str | None:
        """Return the key pressed since the last call: one of `window.KEYS`, or None.

        Escape and closing the window count as "q". Call it some times a second when there is
        nothing new to show: the window answers to nothing meanwhile.

        Raises
        ------
        OutputError
            Here and from `show`, when the display has gone away.
        """
        return self._ask(None)

    def close(self) -> None:
        """Close the window. May be called twice."""
        self._is_open = False
        self._pipe.close()
        self._process.join(CLOSING_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _ask(self, canvas: Canvas | None) -> str | None:
        if not self._is_open:
            return None
        try:
            if self._asked and not self._pipe.poll(ANSWER_S):
                return None
            key = self._answer() if self._asked else None
            self._send(canvas)
            return (self._answer() if self._pipe.poll(ANSWER_S) else None) or key
        except (EOFError, OSError):
            self.close()
            raise OutputError(
                "the window is gone, for its display went away; the run goes on without it"
            ) from None

    def _send(self, canvas: Canvas | None) -> None:
        self._pipe.send(None if canvas is None else canvas.shape)
        if canvas is not None:
            self._pipe.send_bytes(np.ascontiguousarray(canvas).data.cast("B"))
        self._asked = True

    def _answer(self) -> str | None:
        self._asked = False
        key: str | None = self._pipe.recv()
        return key
