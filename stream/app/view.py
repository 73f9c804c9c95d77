"""The view: `Heatmap`s in, drawn once and given to every sink.

One thread shows; audio comes in from the sources' threads. Without a sink nothing is drawn at all.
A sink that fails as nobody foresaw is left, the run goes on without it, and `close` says so again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from denseav.export.command_line import in_words
from denseav.stream.app.mosaic import Mosaic
from denseav.stream.app.sinks import (
    Drawn,
    FoxgloveSink,
    PageSink,
    RecordingSink,
    RerunSink,
    Say,
    Sink,
    Wants,
    WindowSink,
)
from denseav.stream.app.tuning import Tuning
from denseav.stream.display.drawing import Canvas
from denseav.stream.display.heat_scale import Scale
from denseav.stream.display.hud import Hud
from denseav.stream.display.overlay import Overlay
from denseav.stream.display.rerun_viewer import RerunDisplay
from denseav.stream.display.timeline import Strip
from denseav.stream.display.window import Screen
from denseav.stream.errors import StreamError
from denseav.stream.recording.foxglove_channels import ONE_CAMERA, Inputs
from denseav.stream.recording.places import unused_path
from denseav.stream.stats.stats import Stats
from denseav.stream.types import AudioBlock, Heatmap
from denseav.stream.web.foxglove_server import FoxgloveServer

if TYPE_CHECKING:  # a web server that few runs need
    from denseav.stream.web.server import PageServer


class View:
    """What draws for the sinks of a run.

    Parameters
    ----------
    overlay, hud, stats : what is drawn, and where its figures come from.
    strip : the last seconds of audio and levels, drawn under the picture; or None.
    say : called with one line for people.
    screen : the window, or None to show nothing.
    record : a file to record from the start on, or None.
    rerun, foxglove : Rerun's viewer, and a server for Foxglove's; or None.
    page : the page for browsers, or None.
    mosaic : the tiles of several cameras; None for one.
    inputs : whose frames and audio there are, for recordings of data.

    Attributes
    ----------
    quit_asked : whether a person has asked for the end.
    tuning : what viewers may set, where they may; set before the first heatmap.
    """

    def __init__(
        self,
        overlay: Overlay,
        hud: Hud,
        stats: Stats,
        *,
        say: Say,
        strip: Strip | None = None,
        screen: Screen | None = None,
        record: Path | None = None,
        rerun: RerunDisplay | None = None,
        foxglove: FoxgloveServer | None = None,
        page: "PageServer | None" = None,
        mosaic: Mosaic | None = None,
        inputs: Inputs = ONE_CAMERA,
    ) -> None:
        self.quit_asked = False
        self.tuning: Tuning | None = None
        self._overlay = overlay
        self._hud = hud
        self._stats = stats
        self._say = say
        self._failure: StreamError | None = None
        self._strip = strip
        self._page = page
        self._mosaic = mosaic
        self._recording = RecordingSink(say, overlay.heads, self._status, inputs)
        if record is not None:
            self._recording.begin(record, required=True)
        self._sinks: list[Sink] = []
        if rerun is not None:
            self._sinks.append(RerunSink(rerun, self._quit, say))
        if foxglove is not None:
            self._sinks.append(FoxgloveSink(foxglove))
        self._sinks.append(self._recording)
        # Keys and wishes begin and end recordings, and so come after it.
        if page is not None:
            self._sinks.append(PageSink(page, self._wished))
        if screen is not None:
            self._sinks.append(WindowSink(screen, self._press, say))

    @property
    def wants_features(self) -> bool:
        """Whether heatmaps should bring their picture's features along."""
        on_page = self._page is not None and self._page.wants_features
        return on_page or (bool(self._open_sinks) and self._overlay.wants_features)

    @property
    def _open_sinks(self) -> Sequence[Sink]:
        return [sink for sink in self._sinks if sink.is_open]

    def audio(self, block: AudioBlock) -> None:
        """Give some audio to the sinks and the strip. Callable from any thread."""
        sinks = self._open_sinks
        for sink in sinks:
            sink.audio(block)
        if sinks and self._strip is not None:
            self._strip.audio(block)

    def show(self, *heatmaps: Heatmap) -> None:
        """Draw one heatmap, or the newest of several cameras, and give it to the sinks.

        Raises
        ------
        OutputError
            When the recording that was asked for from the start cannot be begun.
        """
        sinks = self._open_sinks
        if not sinks:
            return
        whole = heatmaps[-1] if self._mosaic is None else self._mosaic.whole(heatmaps)
        drawn = self._drawn(whole, heatmaps, {sink.wants for sink in sinks})
        for sink in sinks:
            with self._or_leave(sink):
                sink.show(drawn)
        if self.tuning is not None:
            for heatmap in heatmaps:
                self.tuning.heatmap(heatmap)

    def poll(self, fault: str | None = None) -> None:
        """Keep the sinks alive when nothing is new; `fault` says why nothing comes."""
        for sink in self._open_sinks:
            with self._or_leave(sink):
                sink.poll(fault)

    def close(self) -> None:
        """End every sink, whatever another one did.

        Raises
        ------
        OutputError
            When the recording that was asked for from the start could not be written.
        StreamError
            When a sink had to be left.
        """
        with ExitStack() as closing:
            for sink in self._sinks:
                closing.callback(self._close, sink)
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _close(self, sink: Sink) -> None:
        with self._or_leave(sink):
            sink.close()

    @contextmanager
    def _or_leave(self, sink: Sink) -> Iterator[None]:
        try:
            yield
        except StreamError:
            raise
        except Exception as error:  # noqa: BLE001 - a sink raises what its library has
            failure = StreamError(f"{sink.name} failed unexpectedly ({in_words(error)})")
            failure.__cause__ = error
            self._failure = self._failure or failure
            self._say(f"{failure}; the run goes on without it")
            with suppress(Exception):  # it has failed already
                sink.close()

    def _drawn(self, heatmap: Heatmap, each: Sequence[Heatmap], wanted: Set[Wants]) -> Drawn:
        scale = self._overlay.scale
        threshold_K, ceiling_K = scale.thresholds, scale.ceilings
        strength_KHW = self._overlay.strength(heatmap)
        strip = self._strip
        if strip is not None:
            strip.heatmap(heatmap, strength_KHW.max(axis=(1, 2)).tolist())
        picture = canvas = None
        if wanted & {"picture", "canvas"}:
            legend = strip is None or not strip.shown
            picture = self._overlay.draw(heatmap, strength_KHW, legend)
        if picture is not None and "canvas" in wanted:
            canvas = picture.copy() if "picture" in wanted else picture
            self._hud.draw(self._first_tile(canvas), self._stats.snapshot())
            if strip is not None:
                canvas = strip.under(canvas, self._overlay.shown)
        return Drawn(heatmap, each, strength_KHW, threshold_K, ceiling_K, picture, canvas)

    def _first_tile(self, canvas: Canvas) -> Canvas:
        """Return where figures are drawn, so that they hide nothing of other cameras."""
        if self._mosaic is None:
            return canvas
        height, width = canvas.shape[:2]
        return canvas[: height // self._mosaic.rows, : width // self._mosaic.columns]

    def _status(self) -> Mapping[str, Any]:
        return self._hud.status(self._stats.snapshot())

    @property
    def scale(self) -> Scale:
        """How strongly heat shows."""
        return self._overlay.scale

    @property
    def is_recording(self) -> bool:
        """Whether what is shown is being recorded."""
        return self._recording.is_open

    def _wished(self, wish: Mapping[str, Any]) -> None:
        if wish.get("do") == "record":
            self._begin_or_finish()
        elif self.tuning is not None:
            self.tuning.wish(wish)

    def _quit(self) -> None:
        self.quit_asked = True

    def _press(self, key: str) -> None:
        obeys: dict[str, Callable[[], None]] = {
            "q": self._quit,
            "h": self._overlay.cycle,
            "v": self._overlay.cycle_layout,
            "t": self._show_or_hide_strip,
            "r": self._begin_or_finish,
        }
        obeys[key]()

    def _show_or_hide_strip(self) -> None:
        if self._strip is not None:
            self._strip.shown = not self._strip.shown

    def _begin_or_finish(self) -> None:
        if self._recording.is_open:
            self._recording.finish()
            return
        path = unused_path(Path(), ".mp4")
        self._recording.begin(path, required=False)
        self._say(f"recording: {path}; r ends it")
