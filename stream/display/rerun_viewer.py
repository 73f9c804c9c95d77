"""Rerun's viewer: `Heatmap`s to frames, a map for each head, and a plot of what came when.

The viewer is a program of its own, which this one starts and ends. It listens on 127.0.0.1 only
and forgets the oldest when its memory is full. (Rerun's library can serve viewers by itself, but
then on every network of the machine.) All is logged on a thread of its own, the newest first, so
that a viewer that stalls holds nothing up.

Axes: K heads, H W pixels or the feature grid.
"""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from denseav.export.runtime.bundle import Head
from denseav.stream.display.drawing import Canvas, head_colours
from denseav.stream.errors import OutputError, StreamError
from denseav.stream.inference.latest_slot import LatestSlot
from denseav.stream.types import Heatmap

HOST, PORT = "127.0.0.1", 9876
VIEWER_MEMORY, SERVER_MEMORY = "1GB", "256MB"  # minutes of pictures; then the oldest go
PICTURES_PER_S = 10

_TIMELINE = "capture"
_PLOTTED_S = 10
_STARTING_S = 15.0
_ENDING_S = 1.0
_Seen = tuple[Heatmap, Canvas, NDArray[np.float32]]


class RerunDisplay:
    """A viewer, and what it is shown.

    Parameters
    ----------
    heads : the model's heads, in the order of the heatmap's first axis.
    window : whether to open the viewer here; else it only serves viewers that connect.

    Raises
    ------
    StreamError
        When Rerun is not installed.
    OutputError
        When its viewer does not start.
    """

    def __init__(self, heads: Sequence[Head], window: bool) -> None:
        rerun = _library()
        self._viewer = _Viewer(window)
        self._recording = rerun.RecordingStream("denseav")
        self._recording.connect_grpc(self.url)
        self._log = RerunLog(rerun, self._recording, heads)
        self._newest: LatestSlot[_Seen] = LatestSlot()
        self._ending = threading.Event()
        self._fault: str | None = None
        self._worker = threading.Thread(target=self._work, name="rerun", daemon=True)
        self._worker.start()

    @property
    def url(self) -> str:
        """What viewers connect to, as in `rerun URL`."""
        return f"rerun+http://{HOST}:{self._viewer.port}/proxy"

    @property
    def alive(self) -> bool:
        """Whether the viewer is still there and shown things; a person may have closed it."""
        return self._fault is None and self._viewer.alive

    @property
    def failure(self) -> str | None:
        """Why the viewer is not there any more; None when it was closed as it should be."""
        return self._fault or self._viewer.failure

    def show(
        self, heatmap: Heatmap, picture_HW3: Canvas, strength_KHW: NDArray[np.float32]
    ) -> None:
        """Show one heatmap, unless a newer one comes before the viewer is ready for it.

        Parameters
        ----------
        picture_HW3 : drawn, blue-green-red, and not written to any more.
        strength_KHW : float32 in [0, 1].
        """
        self._newest.put((heatmap, picture_HW3, strength_KHW))

    def close(self) -> None:
        """Give what was shown last its time to arrive, and end the viewer. May be called twice."""
        self._ending.set()
        self._newest.close()
        self._worker.join(_ENDING_S)
        self._viewer.close()

    def _work(self) -> None:
        try:
            while not self._ending.is_set():
                seen = self._newest.get(0.1)
                if seen is not None:
                    self._log.show(*seen)
        except Exception as error:  # noqa: BLE001 - Rerun's own, of many kinds
            self._fault = f"it cannot be shown anything more: {error}"
        with suppress(Exception):  # the viewer may be gone, with whatever error Rerun has for that
            self._recording.flush(timeout_sec=_ENDING_S)
            self._recording.disconnect()


class RerunLog:
    """Puts heatmaps into a recording of Rerun's, and says how a viewer should lay them out.

    Parameters
    ----------
    rerun : the library.
    recording : a `RecordingStream` that leads somewhere.
    heads : the model's heads.
    """

    def __init__(self, rerun: ModuleType, recording: Any, heads: Sequence[Head]) -> None:
        self._rerun: Any = rerun
        self._recording = recording
        self._names = [head.name for head in heads]
        self._rgb_K3 = np.array(head_colours(self._names), np.uint8)[:, ::-1]
        self._start_s: float | None = None
        self._picture_due_s = 0.0
        recording.set_log_time_enabled(False)
        recording.set_log_tick_enabled(False)
        recording.send_blueprint(_blueprint(self._names))
        for name, rgb_3 in zip(self._names, self._rgb_K3, strict=True):
            self._plot(f"strength/{name}", rgb_3.tolist(), name)
        self._plot("loudness", [200, 200, 200], "loudness, dBFS")

    def show(
        self, heatmap: Heatmap, picture_HW3: Canvas, strength_KHW: NDArray[np.float32]
    ) -> None:
        """Log one heatmap; its pictures ten times a second at most."""
        capture_s = heatmap.frame.capture_s
        self._start_s = capture_s if self._start_s is None else self._start_s
        time_s = capture_s - self._start_s
        self._recording.set_time(_TIMELINE, duration=time_s)
        for name, strength_HW in zip(self._names, strength_KHW, strict=True):
            self._put(f"strength/{name}", self._rerun.Scalars(float(strength_HW.max())))
        if heatmap.audio_end_s is not None:
            self._put("loudness", self._rerun.Scalars(heatmap.rms_dbfs))
        if time_s < self._picture_due_s:
            return
        self._picture_due_s = max(self._picture_due_s + 1 / PICTURES_PER_S, time_s)
        _, jpeg = cv2.imencode(".jpg", picture_HW3, [cv2.IMWRITE_JPEG_QUALITY, 85])
        image = self._rerun.EncodedImage(contents=jpeg.tobytes(), media_type="image/jpeg")
        self._put("picture", image)
        for name, rgb_3, strength_HW in zip(self._names, self._rgb_K3, strength_KHW, strict=True):
            light_HW3 = np.rint(strength_HW[..., None] * rgb_3).astype(np.uint8)
            self._put(f"heat/{name}", self._rerun.Image(light_HW3))

    def _plot(self, path: str, colour: list[int], name: str) -> None:
        line = self._rerun.SeriesLines(
            colors=colour, names=name, widths=2, interpolation_mode="StepAfter"
        )
        self._recording.log(path, line, static=True)

    def _put(self, path: str, what: Any) -> None:
        self._recording.log(path, what)


class _Viewer:
    """Rerun's program, listening on `port` of this machine alone."""

    def __init__(self, window: bool) -> None:
        self.port = _free_port()
        command = [_program(), "--bind", HOST, "--port", str(self.port)]
        command += ["--server-memory-limit", SERVER_MEMORY, "--memory-limit", VIEWER_MEMORY]
        command += ["--expect-data-soon"] if window else ["--serve-grpc"]
        # With CI set, Rerun reports nothing to its makers.
        environment = {**os.environ, "CI": "1", "RERUN_APP_ONLY": "true", "RUST_LOG": "error"}
        self._last_words = ""
        # A session of its own: Ctrl-C is this program's, which then ends the viewer in order.
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name="rerun-words", daemon=True)
        self._reader.start()
        self._wait()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def failure(self) -> str | None:
        if self._process.poll() in (None, 0):
            return None
        self._reader.join(_ENDING_S)
        return self._last_words or f"exit code {self._process.returncode}"

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_ENDING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(_ENDING_S)

    def _wait(self) -> None:
        """Wait until it listens."""
        end_s = monotonic() + _STARTING_S
        while self.alive and monotonic() < end_s:
            with suppress(OSError), socket.create_connection((HOST, self.port), 1.0):
                return
            sleep(0.05)
        reason = self.failure or "it does not answer"
        self.close()
        raise OutputError(
            f"Rerun's viewer did not start ({reason}); with --headless it needs no screen"
        )

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as words:
            for line in words:
                self._last_words = line.strip() or self._last_words


def _library() -> ModuleType:
    try:
        import rerun
    except ImportError:
        raise StreamError(
            "Rerun is not installed; install it, in a clone of denseav, with: "
            "pip install '.[rerun]'"
        ) from None
    return rerun


def _program() -> str:
    """Return the program that comes with the library."""
    import rerun_cli

    folder = Path(rerun_cli.__file__).parent
    if sys.platform == "darwin" and (app := folder / "Rerun.app/Contents/MacOS/Rerun").exists():
        return str(app)
    return str(folder / ("rerun.exe" if sys.platform == "win32" else "rerun"))


def _free_port() -> int:
    """Return Rerun's usual port, or another where that one is taken."""
    for port in (PORT, 0):
        with suppress(OSError), socket.socket() as probe:
            if sys.platform != "win32":  # there it would take a port that somebody listens on
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return int(probe.getsockname()[1])
    raise OutputError(f"no port of {HOST} is free for Rerun's viewer")


def _blueprint(names: Sequence[str]) -> Any:
    from rerun import blueprint as b

    lately = b.VisibleTimeRange(
        _TIMELINE,
        start=b.TimeRangeBoundary.cursor_relative(seconds=-_PLOTTED_S),
        end=b.TimeRangeBoundary.cursor_relative(),
    )
    maps = [b.Spatial2DView(origin=f"heat/{name}", name=name) for name in names]
    pictures = b.Horizontal(
        b.Spatial2DView(origin="picture", name="picture"),
        b.Vertical(*maps),
        column_shares=[3, 1],
    )
    unit = b.ScalarAxis(range=(-0.05, 1.05), zoom_lock=True)
    decibels = b.ScalarAxis(range=(-100.0, 0.0), zoom_lock=True)
    plots = b.Horizontal(
        b.TimeSeriesView(origin="strength", name="heads", time_ranges=lately, axis_y=unit),
        b.TimeSeriesView(origin="loudness", time_ranges=lately, axis_y=decibels),
    )
    return b.Blueprint(
        b.Vertical(pictures, plots, row_shares=[3, 1]),
        b.TimePanel(state="collapsed", timeline=_TIMELINE, play_state="following"),
        collapse_panels=True,
    )
