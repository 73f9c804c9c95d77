"""A live run for other programs: what to look at in, `HeatFrame`s out, in a loop or by a call.

The run is the command's own, on a thread of its own; whoever takes frames does so on theirs. Live,
the newest frame wins and the others are counted; offline, the run waits for whoever takes.
"""

import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from denseav.export.runtime.bundle import Manifest
from denseav.stream.app.build import run
from denseav.stream.errors import FrameStaleError, UsageError
from denseav.stream.options import DisplayOptions, LiveOptions, ModelOptions, SourceOptions
from denseav.stream.python.array_film import ArrayFilm
from denseav.stream.python.handover import Handover, HandoverEnded
from denseav.stream.python.heat_frame import HeatFrame, Painter
from denseav.stream.stats.stats import Snapshot, Stats
from denseav.stream.types import Film, Heatmap

log = logging.getLogger("denseav.live")

_SILENCE_S = 10.0  # how long iteration waits for a frame: a lost camera is back sooner, or lost


def live(
    camera: int | str | None = None,
    *,
    source: str | Path | None = None,
    demo: bool = False,
    images: Iterable[NDArray[np.uint8]] | None = None,
    fps: float | None = None,
    audio: NDArray[Any] | None = None,
    rate_hz: int | None = None,
    mic: int | str | None = None,
    offline: bool = False,
    model: str | Path | None = None,
    device: str = "auto",
    threads: int = 1,
    sync: Literal["latest", "exact"] = "latest",
    seconds: float | None = None,
    on_frame: Callable[[HeatFrame], object] | None = None,
) -> "LiveStream":
    """Begin to look and listen, and return the stream of frames with their heat.

    Name one thing to look at: `camera`, `source`, `demo`, or `images` with their `audio`.

    Parameters
    ----------
    camera : 0, `/dev/video2`, `rtsp://…`; as `denseav-live --camera` has it.
    source : a file with picture and sound, at its own pace.
    demo : the clip in the package, looped.
    images : uint8 `[N, H, W, 3]`, or anything that yields uint8 `[H, W, 3]`, blue-green-red.
    fps : how many of these are a second.
    audio : beside `images`: float32 in [-1, 1] or int16, `[S]`, or `[S, channels]`.
    rate_hz : how many of its samples are a second.
    mic : beside a camera: a number, a name, or `none`; the default microphone without it.
    offline : run a file or arrays as fast as they go, and give every frame; audio is encoded by
        whole windows, as in training, whatever they take.
    model : a bundle's folder, or one of a hub as `hf:owner/name`; without it the exported one,
        else the demo's.
    device, threads : where it runs, as `denseav-live --device` has them.
    sync : compare a frame with the newest audio, or hold it until its own moment was heard.
    seconds : end after so many; without it at the source's end, or when it is closed.
    on_frame : is called with each frame on a thread of the stream's own, in place of a loop.

    Raises
    ------
    UsageError
        When what is asked for does not go together.
    SourceError
        When the camera, microphone or file cannot be opened: it is absent, taken, or no media.
    BundleError
        When the model or the device cannot be used.
    """
    named = [camera is not None, source is not None, bool(demo), images is not None]
    if sum(named) != 1:
        raise UsageError("name one thing to look at: camera=0, source=…, demo=True, or images=…")
    _check(camera, offline and source is None and images is None, mic, sync, seconds)
    film = None
    if images is not None:
        film = ArrayFilm(images, fps=fps, audio=audio, rate_hz=rate_hz)
    elif not (fps is None and audio is None and rate_hz is None):
        raise UsageError("fps, audio and rate_hz go with images=… only")
    options = LiveOptions(
        sources=SourceOptions(
            cameras=() if camera is None else (str(camera),),
            mic=None if mic is None else str(mic),
            source=None if source is None else Path(source),
            offline=offline,
            demo=demo,
        ),
        model=ModelOptions(
            model=None if model is None else Path(model),
            device=device,
            threads=threads,
            audio="window" if offline else None,
            sync=sync,
        ),
        display=DisplayOptions(headless=True),
        seconds=seconds,
    )
    return LiveStream(options, film, on_frame)


def _check(
    camera: int | str | None,
    offline_alone: bool,
    mic: int | str | None,
    sync: str,
    seconds: float | None,
) -> None:
    if isinstance(camera, list | tuple):
        raise UsageError(
            "denseav.live looks at one camera; for several, open one stream for each, or run "
            "denseav-live --camera … --camera … --publish … and read its feed"
        )
    if isinstance(camera, bool) or not isinstance(camera, int | str | None):
        raise UsageError(f"camera is a number, a path or an address, not {camera!r}")
    if offline_alone:
        raise UsageError("offline=True goes with source=… or images=… only")
    if camera is None and mic is not None:
        raise UsageError("mic goes with camera=… only")
    if sync not in ("latest", "exact"):
        raise UsageError(f"sync is 'latest' or 'exact', not {sync!r}")
    if sync == "exact" and mic == "none":
        raise UsageError("sync='exact' needs audio; leave mic='none' out")
    if seconds is not None and not 0 < seconds < float("inf"):
        raise UsageError(f"seconds is a number above 0, not {seconds!r}")


class LiveStream(
    AbstractContextManager["LiveStream"], Iterator[HeatFrame], AsyncIterator[HeatFrame]
):
    """Frames with their heat; `live` opens it.

    `for` and `async for` give each frame once: live the newest, offline every one. `with` closes
    it. A run that fails raises what it failed with from the loop, or from `wait` and `close` where
    frames are called back. After `close`, asking for a frame is a UsageError.

    Parameters
    ----------
    options, film : as `app.build.run` takes them.
    on_frame : is called with each frame on a thread of the stream's own.
    """

    def __init__(
        self,
        options: LiveOptions,
        film: Film | None = None,
        on_frame: Callable[[HeatFrame], object] | None = None,
    ) -> None:
        self._options = options
        self._film = film
        self._figures = Stats()
        self._frames: Handover[Heatmap] = Handover()
        self._manifest: Manifest | None = None
        self._painter: Painter | None = None
        self._said = ""
        self._closed = False
        self._looping = False
        self._failure: BaseException | None = None
        self._stop, self._opened = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="denseav.live")
        self._caller: threading.Thread | None = None
        self._open()
        if on_frame is not None:
            self._caller = threading.Thread(target=self._call, args=(on_frame,), name="on_frame")
            self._caller.start()

    @property
    def stats(self) -> Snapshot:
        """The figures of the last 10 seconds, and what was dropped since the start, by cause."""
        return self._figures.snapshot()

    def __iter__(self) -> Self:
        self._check_free()
        self._looping = True
        return self

    def __aiter__(self) -> Self:
        return self.__iter__()

    def __next__(self) -> HeatFrame:
        if self._closed and self._looping:  # from another thread
            raise StopIteration
        self._check_free()
        try:
            return self._framed(self._frames.take(_SILENCE_S))
        except HandoverEnded:
            self._raise_failure()
            raise StopIteration from None
        except TimeoutError:
            raise self._stale() from None

    async def __anext__(self) -> HeatFrame:
        if self._closed and self._looping:
            raise StopAsyncIteration
        self._check_free()
        try:
            return self._framed(await self._frames.take_soon(_SILENCE_S))
        except HandoverEnded:
            self._raise_failure()
            raise StopAsyncIteration from None
        except TimeoutError:
            raise self._stale() from None

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until frames are no longer called back; return whether that is so.

        Raises
        ------
        Exception
            What the run, or the function that is called back, failed with.
        """
        thread = self._caller or self._thread
        thread.join(timeout_s)
        if thread.is_alive():
            return False
        self._raise_failure()
        return True

    def close(self) -> None:
        """Stop, and release the devices. May be called twice, and from any thread.

        Raises
        ------
        Exception
            As `wait`, where nobody has been told yet.
        """
        self._closed = True
        self._stop.set()
        self._frames.end()
        for thread in (self._thread, self._caller):
            if thread is not None and thread is not threading.current_thread():
                thread.join()
        self._raise_failure()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except Exception:
            if kind is None:
                raise

    def __enter__(self) -> Self:
        return self

    def begin(self, manifest: Manifest) -> None:
        """As `app.build.Consumer.begin`."""
        self._manifest = manifest
        self._painter = Painter(manifest.heads, manifest.trained)

    def heatmap(self, heatmap: Heatmap) -> None:
        """As `app.build.Consumer.heatmap`."""
        if self._options.sources.offline:
            self._frames.put_in_turn(heatmap)
        elif self._frames.put(heatmap):
            self._figures.drop("sink_busy")

    def _open(self) -> None:
        self._thread.start()
        threading.Thread(target=self._end_with_the_program, name="denseav.end", daemon=True).start()
        try:
            while not self._opened.wait(0.2):
                pass
        except BaseException:
            self._stop.set()
            raise
        if self._manifest is None:  # it never came so far
            self._closed = True
            self._raise_failure()

    def _run(self) -> None:
        try:
            run(
                self._options,
                self._stop,
                self._opened,
                stats=self._figures,
                on_ready=self._say,
                say=self._say,
                film=self._film,
                consumer=self,
            )
        except BaseException as error:  # noqa: BLE001 - whoever takes frames gets it
            self._failure = error
        self._frames.end()
        self._opened.set()

    def _end_with_the_program(self) -> None:
        """Stop when the main thread has ended: Python waits for the run's threads."""
        threading.main_thread().join()
        self._stop.set()
        self._frames.end()

    def _call(self, on_frame: Callable[[HeatFrame], object]) -> None:
        try:
            while True:
                on_frame(self._framed(self._frames.take(float("inf"))))
        except HandoverEnded:
            pass
        except BaseException as error:  # noqa: BLE001 - `wait` and `close` raise it
            self._failure = error
            self._stop.set()

    def _check_free(self) -> None:
        if self._closed:
            raise UsageError("the stream is closed; open another one")
        if self._caller is not None:
            raise UsageError("the frames go to on_frame; leave it out to take them in a loop")

    def _framed(self, heatmap: Heatmap) -> HeatFrame:
        assert self._manifest is not None
        assert self._painter is not None
        return HeatFrame.of(heatmap, self._manifest.heads, self._painter)

    def _stale(self) -> FrameStaleError:
        return FrameStaleError(
            f"no frame for {_SILENCE_S:g} s; the last that was said: {self._said}"
        )

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _say(self, line: str) -> None:
        self._said = line
        log.info("%s", line)
