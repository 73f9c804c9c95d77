"""Sinks: drawn heatmaps and audio in; a window, a recording, Rerun, Foxglove or a page out.

Each knows how it fails: one that does is left, and the others go on; the view leaves one that fails
as nobody foresaw. All but `audio` is called on the thread that shows. (The feed is a sink of its
own, see `feed.publisher`: it takes heatmaps on the thread that makes them, and waits for no
drawing.)
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from denseav.export.runtime.bundle import Head
from denseav.stream.display.drawing import Canvas
from denseav.stream.display.hud import marked_stale
from denseav.stream.display.rerun_viewer import RerunDisplay
from denseav.stream.display.window import Screen
from denseav.stream.errors import OutputError
from denseav.stream.recording.animation_recorder import AnimationRecorder
from denseav.stream.recording.foxglove_channels import ONE_CAMERA, Inputs, Status
from denseav.stream.recording.mcap_recorder import McapRecorder
from denseav.stream.recording.mp4_recorder import Recorder
from denseav.stream.recording.places import check_recording, require_kind, snapshot
from denseav.stream.recording.playlist_recorder import PlaylistRecorder
from denseav.stream.sources.recorded_run import SUFFIX
from denseav.stream.types import AudioBlock, Heatmap
from denseav.stream.web.foxglove_server import FoxgloveServer
from denseav.stream.web.messages import Scaled

if TYPE_CHECKING:  # a web server that few runs need
    from denseav.stream.web.server import PageServer

_AUDIO_BLOCKS = 2_000  # 20 s of 10 ms blocks: far more than ever waits to be written

Say = Callable[[str], None]
_FILMS: Mapping[str, type[Recorder | PlaylistRecorder | AnimationRecorder]] = {
    ".mp4": Recorder,
    ".m3u8": PlaylistRecorder,
    ".gif": AnimationRecorder,
    ".webp": AnimationRecorder,
}
_Recorder = Recorder | PlaylistRecorder | McapRecorder | AnimationRecorder
Wants = Literal["heat", "picture", "canvas"]


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A heatmap, and what was made of it for people.

    Attributes
    ----------
    heatmap : as it is shown: of several cameras, all of them in tiles.
    each : those that came; of several cameras, one for each at most.
    strength_KHW : float32 in [0, 1].
    threshold_K, ceiling_K : the heat that is strength 0 and 1; float32.
    picture : the frame with its heads, blue-green-red; None where no sink wants it.
    canvas : the same with figures and strip; None where no sink wants it.
    """

    heatmap: Heatmap
    each: Sequence[Heatmap]
    strength_KHW: NDArray[np.float32]
    threshold_K: NDArray[np.float32]
    ceiling_K: NDArray[np.float32]
    picture: Canvas | None
    canvas: Canvas | None


class Sink(Protocol):
    """Where drawn heatmaps leave.

    Attributes
    ----------
    name : as people read it.
    """

    name: str

    @property
    def is_open(self) -> bool:
        """Whether it still takes any."""

    @property
    def wants(self) -> Wants:
        """How far a heatmap has to be drawn for it; `picture` is without figures and strip."""

    def audio(self, block: AudioBlock) -> None:
        """Take some audio. Callable from any thread; never waits."""

    def show(self, drawn: Drawn) -> None:
        """Take a drawn heatmap."""

    def poll(self, fault: str | None = None) -> None:
        """Do what has to be done some times a second while there is nothing new.

        `fault` says in a few words why nothing new comes.
        """

    def close(self) -> None:
        """End. May be called twice."""


class WindowSink:
    """The window.

    Parameters
    ----------
    screen : open.
    press : called with each key that somebody pressed, but for the space bar, which holds the
        picture, and `s`, which keeps it as a file.
    say : called with one line for people.
    """

    name = "the window"
    wants: Wants = "canvas"

    def __init__(self, screen: Screen, press: Callable[[str], None], say: Say) -> None:
        self.is_open = True
        self._screen = screen
        self._press = press
        self._say = say
        self._canvas: Canvas | None = None
        self._fault: str | None = None  # as the window says it
        self._paused = False

    def audio(self, block: AudioBlock) -> None:
        """Show no audio: that is the strip's."""

    def show(self, drawn: Drawn) -> None:
        """As `Sink.show`."""
        if self._paused:
            self._ask(None)
        else:
            self._canvas, self._fault = drawn.canvas, None
            self._ask(drawn.canvas)

    def poll(self, fault: str | None = None) -> None:
        """Look for keys; with a fault, say so on the last picture."""
        if fault is None or fault == self._fault or self._canvas is None or self._paused:
            self._ask(None)
        else:
            self._fault = fault
            self._ask(marked_stale(self._canvas, fault))

    def close(self) -> None:
        """As `Sink.close`."""
        self.is_open = False
        self._screen.close()

    def _ask(self, canvas: Canvas | None) -> None:
        """Show a canvas or only look for keys; a window that is gone is left."""
        if not self.is_open:
            return
        try:
            key = self._screen.poll() if canvas is None else self._screen.show(canvas)
        except OutputError as error:
            self._say(str(error))
            self.close()
            return
        if key == " ":
            self._paused = not self._paused
        elif key == "s":
            self._keep()
        elif key is not None:
            self._press(key)

    def _keep(self) -> None:
        """Write a snapshot; a folder that takes none is no reason to end a live run."""
        if self._canvas is None:
            return
        try:
            self._say(f"picture kept: {snapshot(self._canvas, Path())}")
        except OutputError as error:
            self._say(str(error))


class RecordingSink:
    """Recordings, one after another: each begins with the first heatmap after `begin`.

    One that cannot be begun although it was asked for from the start ends the run. One that
    cannot be gone on with is said and left, and `close` raises what it failed with.

    Parameters
    ----------
    say : called with one line for people.
    heads : the model's.
    status : gives the run's figures, for recordings that keep them.
    inputs : whose frames and audio there are, for those that keep each one's.
    """

    name = "the recording"

    def __init__(
        self, say: Say, heads: Sequence[Head], status: Status, inputs: Inputs = ONE_CAMERA
    ) -> None:
        self._say = say
        self._heads = heads
        self._status = status
        self._inputs = inputs
        self._path: Path | None = None
        self._required = False
        self._recorder: _Recorder | None = None
        self._failure: OutputError | None = None
        self._audio: deque[AudioBlock] = deque(maxlen=_AUDIO_BLOCKS)

    @property
    def is_open(self) -> bool:
        """Whether a recording was begun and not finished."""
        return self._path is not None

    @property
    def wants(self) -> Wants:
        """As `Sink.wants`: an MCAP file has data, the others what the window shows."""
        is_data = self._path is not None and self._path.suffix.lower() == SUFFIX
        return "heat" if is_data else "canvas"

    def begin(self, path: Path, *, required: bool) -> None:
        """Record into a new file from now on; `required` when it was asked for from the start.

        Raises
        ------
        OutputError
            When a recording that is required could not be begun there.
        """
        if required:
            require_kind(path, *_FILMS, SUFFIX)
            check_recording(path)
        self._audio.clear()
        self._path, self._required = path, required

    def finish(self) -> None:
        """Complete the recording."""
        self._path, recorder = None, self._recorder
        self._recorder = None
        if recorder is None:
            return
        try:
            path = recorder.close()
        except OutputError as error:
            self._fail(error)
        else:
            if path is not None:
                self._say(f"recorded: {path}")

    def audio(self, block: AudioBlock) -> None:
        """As `Sink.audio`; what the window shows has the first camera's, where each has its own."""
        if block.microphone == 0 or self.wants == "heat":
            self._audio.append(block)

    def show(self, drawn: Drawn) -> None:
        """As `Sink.show`.

        Raises
        ------
        OutputError
            When a recording that is required cannot be begun.
        """
        recorder = self._recorder or self._begun(drawn)
        if recorder is None:
            return
        try:
            self._write_audio(recorder)
            if isinstance(recorder, McapRecorder):
                for heatmap in drawn.each:
                    recorder.heatmap(heatmap)
            else:
                assert drawn.canvas is not None
                recorder.frame(drawn.canvas, drawn.heatmap.frame.capture_s)
                if isinstance(recorder, AnimationRecorder) and recorder.is_full:
                    self.finish()
        except OutputError as error:
            self._fail(error)

    def poll(self, fault: str | None = None) -> None:  # noqa: ARG002 - a window says it
        """Write the audio that has come while there were no pictures."""
        if self._recorder is None:
            return
        try:
            self._write_audio(self._recorder)
            if isinstance(self._recorder, McapRecorder):
                self._recorder.poll()
        except OutputError as error:
            self._fail(error)

    def close(self) -> None:
        """Complete the recording.

        Raises
        ------
        OutputError
            The first failure of a recording that was required.
        """
        self.finish()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _begun(self, drawn: Drawn) -> _Recorder | None:
        assert self._path is not None
        try:
            if self.wants == "heat":
                self._recorder = McapRecorder(self._path, self._heads, self._status, self._inputs)
            else:
                assert drawn.canvas is not None
                height, width = drawn.canvas.shape[:2]
                kind = _FILMS[self._path.suffix.lower()]
                self._recorder = kind(self._path, width, height)
        except OutputError as error:
            self._path = None
            if self._required:
                raise
            self._say(str(error))
        return self._recorder

    def _write_audio(self, recorder: _Recorder) -> None:
        while self._audio:
            recorder.audio(self._audio.popleft())

    def _fail(self, error: OutputError) -> None:
        self._path = self._recorder = None
        if self._required:
            self._failure = self._failure or error
        self._say(f"{error}; the run goes on without it")


class RerunSink:
    """Rerun's viewer. It gets pictures without figures: it has plots of its own.

    Parameters
    ----------
    viewer : open.
    closed : called when a person has closed it.
    say : called with one line for people when it failed.
    """

    name = "Rerun's viewer"
    wants: Wants = "picture"

    def __init__(self, viewer: RerunDisplay, closed: Callable[[], None], say: Say) -> None:
        self.is_open = True
        self._viewer = viewer
        self._closed = closed
        self._say = say

    def audio(self, block: AudioBlock) -> None:
        """Show no audio: loudness comes with each heatmap."""

    def show(self, drawn: Drawn) -> None:
        """As `Sink.show`."""
        assert drawn.picture is not None
        self._viewer.show(drawn.heatmap, drawn.picture, drawn.strength_KHW)
        self.poll()

    def poll(self, fault: str | None = None) -> None:  # noqa: ARG002 - a window says it
        """Leave a viewer that is not there any more."""
        if not self.is_open or self._viewer.alive:
            return
        if self._viewer.failure is None:
            self._closed()
        else:
            self._say(f"Rerun's viewer ended ({self._viewer.failure}); the run goes on without it")
            self.close()

    def close(self) -> None:
        """As `Sink.close`."""
        self.is_open = False
        self._viewer.close()


class FoxgloveSink:
    """Foxglove's viewers.

    Parameters
    ----------
    server : open.
    """

    name = "the server for Foxglove"
    wants: Wants = "heat"

    def __init__(self, server: FoxgloveServer) -> None:
        self.is_open = True
        self._server = server
        self._audio: deque[AudioBlock] = deque(maxlen=_AUDIO_BLOCKS)

    def audio(self, block: AudioBlock) -> None:
        """As `Sink.audio`."""
        self._audio.append(block)

    def show(self, drawn: Drawn) -> None:
        """As `Sink.show`."""
        for heatmap in drawn.each:
            self._server.heatmap(heatmap)
        self.poll()

    def poll(self, fault: str | None = None) -> None:  # noqa: ARG002 - the status has it
        """Give the audio that has come, and figures."""
        while self._audio:
            self._server.audio(self._audio.popleft())
        self._server.poll()

    def close(self) -> None:
        """As `Sink.close`."""
        self.is_open = False
        self._server.close()


class PageSink:
    """The page for browsers, which draw for themselves.

    Parameters
    ----------
    server : open.
    wish : called with each thing that a viewer who may change the run has asked for.
    """

    name = "the page"
    wants: Wants = "heat"

    def __init__(self, server: "PageServer", wish: Callable[[Mapping[str, Any]], None]) -> None:
        self.is_open = True
        self._server = server
        self._wish = wish
        self._shown = 0

    def audio(self, block: AudioBlock) -> None:
        """As `Sink.audio`."""
        self._server.audio(block)

    def show(self, drawn: Drawn) -> None:
        """As `Sink.show`."""
        self._shown += 1
        self._server.show(Scaled(self._shown, drawn.heatmap, drawn.threshold_K, drawn.ceiling_K))
        self.poll()

    def poll(self, fault: str | None = None) -> None:
        """Do what viewers have asked for; with a fault, have the page say so."""
        if fault is not None:
            self._server.poll(fault)
        for wish in self._server.wishes():
            self._wish(wish)

    def close(self) -> None:
        """As `Sink.close`."""
        self.is_open = False
        self._server.close()
