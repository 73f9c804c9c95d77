"""A live run for Foxglove's app: a server on this machine that gives a run's channels to it.

`Heatmap`s and audio in; out, by Foxglove's protocol, what a recording holds (`FoxgloveChannels`).
What a viewer does not take in half a second is dropped, the oldest first, and holds nobody up.
Viewers set nothing. Every program of this machine may look on, and so may pages in its browsers:
Foxglove's own is one, and the library asks nobody where they come from.
"""

from collections.abc import Sequence
from contextlib import suppress

import foxglove
from foxglove.websocket import WebSocketServer

from denseav.export.process_limits import descriptors_are_few, end_connections
from denseav.export.runtime.bundle import Head
from denseav.stream.errors import OutputError
from denseav.stream.recording.foxglove_channels import ONE_CAMERA, FoxgloveChannels, Inputs, Status
from denseav.stream.types import AudioBlock, Heatmap

HOST, PORT = "127.0.0.1", 8765  # which Foxglove's app proposes
BACKLOG = 128  # messages for one viewer: half a second of frames with their maps, and of audio


class FoxgloveServer:
    """A server, and what it shows. Call all but the constructor from one thread at a time.

    Parameters
    ----------
    heads : the model's.
    status : gives the run's figures, as JSON takes them.
    inputs : whose frames and audio there are.

    Attributes
    ----------
    app_url : the page of Foxglove's that connects to it.

    Raises
    ------
    OutputError
        When there is no port to serve at.
    """

    def __init__(self, heads: Sequence[Head], status: Status, inputs: Inputs = ONE_CAMERA) -> None:
        foxglove.set_log_level("ERROR")
        context = foxglove.Context()
        self._channels = FoxgloveChannels(context, heads, status, inputs)
        self._server = _started(context)
        self.app_url: str | None = self._server.app_url()

    @property
    def url(self) -> str:
        """What viewers connect to."""
        return f"ws://{HOST}:{self._server.port}"

    def audio(self, block: AudioBlock) -> None:
        """Give some audio."""
        self._channels.audio(block)

    def heatmap(self, heatmap: Heatmap) -> None:
        """Give a frame, each head's map, and where they are hot."""
        self._channels.heatmap(heatmap)

    def poll(self) -> None:
        """Give the run's figures when they are due; end all viewers where descriptors run out."""
        if descriptors_are_few():  # the library takes any number of connections
            end_connections(self._server.port)
        self._channels.tell_status()

    def close(self) -> None:
        """Part from every viewer. May be called twice."""
        self._server.stop()


def _started(context: foxglove.Context) -> WebSocketServer:
    for port in (PORT, 0):  # another one where that is taken
        with suppress(RuntimeError):
            return foxglove.start_server(
                name="denseav",
                host=HOST,
                port=port,
                context=context,
                message_backlog_size=BACKLOG,
            )
    raise OutputError(f"cannot serve Foxglove on {HOST}: there is no free port; close a program")
