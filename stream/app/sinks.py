"""Where heatmaps leave: drawn on their pictures, shown in a window, recorded with their sound.

One thread shows; sound comes in from the sources' threads and waits, bounded, until the next
picture takes it along. Without a window and a recording nothing is drawn at all.
"""

from collections import deque
from collections.abc import Callable
from pathlib import Path

from denseav.stream.display.drawing import Canvas
from denseav.stream.display.hud import Hud, marked_stale
from denseav.stream.display.mp4_recorder import Recorder, snapshot, unused_path
from denseav.stream.display.overlay import Overlay
from denseav.stream.display.rerun_viewer import RerunDisplay
from denseav.stream.display.timeline import Strip
from denseav.stream.display.window import Screen
from denseav.stream.errors import OutputError
from denseav.stream.stats.stats import Stats
from denseav.stream.types import AudioBlock, Heatmap

_SOUND_BLOCKS = 2_000  # 20 s of 10 ms blocks: far more than ever waits for a picture


class View:
    """The sinks of a run.

    Parameters
    ----------
    overlay, hud, stats : what is drawn, and where its figures come from.
    screen : the window, or None to show nothing.
    record : a file to record from the start on, or None.
    say : called with one line for people.
    strip : the last seconds of sound and levels, drawn under the picture; or None.
    rerun : Rerun's viewer, or None. It gets pictures without figures: it has plots of its own.
    """

    def __init__(
        self,
        overlay: Overlay,
        hud: Hud,
        stats: Stats,
        screen: Screen | None,
        record: Path | None,
        say: Callable[[str], None],
        strip: Strip | None = None,
        rerun: RerunDisplay | None = None,
    ) -> None:
        self.quit_asked = False
        self._overlay = overlay
        self._hud = hud
        self._stats = stats
        self._screen = screen
        self._record = record
        self._recorder: Recorder | None = None
        self._say = say
        self._strip = strip
        self._rerun = rerun
        self._sound: deque[AudioBlock] = deque(maxlen=_SOUND_BLOCKS)
        self._canvas: Canvas | None = None
        self._fault: str | None = None  # as the window says it
        self._paused = False
        self._by_key = False  # whether the recording was begun by a key

    @property
    def wants_features(self) -> bool:
        """Whether heatmaps should bring their picture's features along."""
        return self._draws and self._overlay.wants_features

    @property
    def _draws(self) -> bool:
        return not (self._screen is None and self._record is None and self._rerun is None)

    def audio(self, block: AudioBlock) -> None:
        """Keep some sound for the recording and the strip. Callable from any thread."""
        if self._draws:
            self._sound.append(block)
            if self._strip is not None:
                self._strip.audio(block)

    def show(self, heatmap: Heatmap) -> None:
        """Draw one heatmap and give it to the window and the recording.

        Raises
        ------
        OutputError
            When the recording that was asked for from the start cannot be written; one begun by
            a key is given up, and said so.
        """
        if not self._draws:
            self._sound.clear()
            return
        strength_KHW = self._overlay.strength(heatmap)
        level_K = strength_KHW.max(axis=(1, 2)).tolist()
        strip = self._strip
        if strip is not None:
            strip.heatmap(heatmap, level_K)
        legend = strip is None or not strip.shown
        picture = self._overlay.draw(heatmap, strength_KHW, legend)
        if self._rerun is not None:
            self._rerun.show(heatmap, picture.copy(), strength_KHW)
        if self._screen is None and self._record is None:
            self._sound.clear()
            self.poll()
            return
        self._hud.draw(picture, self._stats.snapshot())
        canvas = picture if strip is None else strip.under(picture, self._overlay.shown)
        self._record_or_give_up(canvas, heatmap.frame.capture_s)
        if self._screen is not None and not self._paused:
            self._canvas, self._fault = canvas, None
            self._display(canvas)
        else:
            self.poll()

    def poll(self, fault: str | None = None) -> None:
        """Keep the window answering when nothing is new; with a fault, say so on the last picture.

        Parameters
        ----------
        fault : why nothing new comes, in a few words.
        """
        if fault is None or fault == self._fault or self._canvas is None or self._paused:
            self._display(None)
        else:
            self._fault = fault
            self._display(marked_stale(self._canvas, fault))
        if self._rerun is not None and not self._rerun.alive:
            self._leave(self._rerun)

    def close(self) -> None:
        """Finish the recording and close the window."""
        if self._screen is not None:
            self._screen.close()
        if self._rerun is not None:
            self._rerun.close()
        self._finish()

    def _leave(self, rerun: RerunDisplay) -> None:
        """End the run with a viewer that a person closed, and go on without one that failed."""
        if rerun.failure is None:
            self.quit_asked = True
        else:
            self._say(f"Rerun's viewer ended ({rerun.failure}); the run goes on without it")
            rerun.close()
            self._rerun = None

    def _display(self, canvas: Canvas | None) -> None:
        """Show a canvas, or only look for keys; go on without a window that is gone."""
        if self._screen is None:
            return
        try:
            self._press(self._screen.poll() if canvas is None else self._screen.show(canvas))
        except OutputError as error:
            self._say(str(error))
            self._screen.close()
            self._screen = None

    def _press(self, key: str | None) -> None:
        if key == "q":
            self.quit_asked = True
        elif key == " ":
            self._paused = not self._paused
        elif key == "h":
            self._overlay.cycle()
        elif key == "v":
            self._overlay.cycle_layout()
        elif key == "t" and self._strip is not None:
            self._strip.shown = not self._strip.shown
        elif key == "s" and self._canvas is not None:
            self._keep(self._canvas)
        elif key == "r" and self._record is None:
            self._record, self._by_key = unused_path(Path(), ".mp4"), True
            self._say(f"recording: {self._record}; r ends it")
        elif key == "r":
            self._finish()

    def _keep(self, canvas: Canvas) -> None:
        """Write a snapshot; a folder that takes none is no reason to end a live run."""
        try:
            self._say(f"picture kept: {snapshot(canvas, Path())}")
        except OutputError as error:
            self._say(str(error))

    def _record_or_give_up(self, canvas: Canvas, capture_s: float) -> None:
        try:
            self._write(canvas, capture_s)
        except OutputError as error:
            if not self._by_key:
                raise
            self._say(str(error))
            self._record = self._recorder = None

    def _write(self, canvas: Canvas, capture_s: float) -> None:
        if self._record is None:
            self._sound.clear()
            return
        if self._recorder is None:
            height, width = canvas.shape[:2]
            self._recorder = Recorder(self._record, width, height)
        while self._sound:
            self._recorder.audio(self._sound.popleft())
        self._recorder.frame(canvas, capture_s)

    def _finish(self) -> None:
        recorder, self._recorder = self._recorder, None
        self._record = None
        if recorder is not None and (path := recorder.close()):
            self._say(f"recorded: {path}")
