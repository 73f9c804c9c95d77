"""A small animation: canvases `[H, W, 3]` with their times in, a GIF or WebP file out, no audio.

For a page or a message: ten pictures a second, the longer side at most 480 pixels, a minute at
most, because WebP's encoder keeps all of it until the end. The file has its name once it is whole.
Encoding runs on the caller's thread.
"""

from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import cv2
import numpy as np
from av.filter import Graph
from av.video.format import VideoFormat

from denseav.export.process_limits import patiently
from denseav.stream.display.drawing import Canvas
from denseav.stream.errors import OutputError
from denseav.stream.types import AudioBlock

FPS = 10
LONGEST_SIDE = 480
SECONDS_MAX = 60.0
_TICK = Fraction(1, 100)  # of a second: GIF knows no finer time
_SPACING = round(1 / (FPS * _TICK))
_WEBP = {"quality": "60", "compression_level": "4"}


class AnimationRecorder:
    """One animation. Call everything from one thread.

    Parameters
    ----------
    path : the file to make, `NAME.gif` or `NAME.webp`; it must not exist yet.
    width, height : of the canvases.

    Attributes
    ----------
    is_full : whether a minute has been recorded; what comes then is left out.

    Raises
    ------
    OutputError
        Here and from every method, when the file cannot be written; nothing of it stays.
    """

    def __init__(self, path: Path, width: int, height: int) -> None:
        self.is_full = False
        self._path, self._part = path, path.with_name(f"{path.stem}.part{path.suffix}")
        scale = min(1.0, LONGEST_SIDE / max(width, height))
        self._size = max(16, round(width * scale)), max(16, round(height * scale))
        self._start_s: float | None = None
        self._due_tick = 0
        is_gif = path.suffix.lower() == ".gif"
        if path.exists() or self._part.exists():
            raise OutputError(f"{path} exists already; choose another name or delete it")
        try:
            self._file = patiently(lambda: self._part.open("xb"))
            form, codec = ("gif", "gif") if is_gif else ("webp", "libwebp_anim")
            # A file of ours, whose failures are told where they happen.
            self._container = av.open(self._file, "w", format=form, options={"loop": "0"})
            self._stream = cast(Any, self._container.add_stream(codec, rate=FPS))
            self._stream.width, self._stream.height = self._size
            self._stream.codec_context.time_base = _TICK
            self._palette = None
            if is_gif:
                self._stream.pix_fmt, self._palette = "pal8", _palette(*self._size)
            else:
                self._stream.pix_fmt, self._stream.options = "bgra", _WEBP
            self._container.start_encoding()  # what cannot be written says so now
        except (OSError, av.FFmpegError) as error:
            raise self._given_up(error) from None

    def frame(self, canvas: Canvas, capture_s: float) -> None:
        """Keep a picture, if it is time for one."""
        if self._start_s is None:
            self._start_s = capture_s
        tick = round((capture_s - self._start_s) / _TICK)
        self.is_full = tick * _TICK >= SECONDS_MAX
        if self.is_full or tick < self._due_tick:
            return
        self._due_tick = tick - tick % _SPACING + _SPACING
        small = cv2.resize(canvas, self._size, interpolation=cv2.INTER_AREA)
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(small, np.uint8), format="bgr24")
        picture.pts, picture.time_base = tick, _TICK
        try:
            self._encode(picture)
        except (OSError, av.FFmpegError) as error:
            raise self._given_up(error) from None

    def audio(self, block: AudioBlock) -> None:
        """Leave out the audio."""

    def close(self) -> Path | None:
        """Complete the file and return its path; None when there was no picture."""
        if self._start_s is None:
            self._discard()
            return None
        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
            self._file.close()
            self._part.rename(self._path)
        except (OSError, av.FFmpegError) as error:
            raise self._given_up(error) from None
        return self._path

    def _encode(self, picture: av.VideoFrame) -> None:
        if self._palette is None:
            picture = picture.reformat(format="bgra")
        else:
            pts = picture.pts
            self._palette.push(picture)
            picture = cast(av.VideoFrame, self._palette.pull())
            picture.pts, picture.time_base = pts, _TICK
        self._container.mux(self._stream.encode(picture))

    def _given_up(self, error: Exception) -> OutputError:
        self._discard()
        reason = getattr(error, "strerror", None) or error
        return OutputError(f"cannot record to {self._path} ({reason}); choose another place")

    def _discard(self) -> None:
        with suppress(AttributeError, OSError, av.FFmpegError):
            self._container.close()
        with suppress(AttributeError, OSError):
            self._file.close()
        with suppress(OSError):
            self._part.unlink()


def _palette(width: int, height: int) -> Graph:
    """Return a graph that gives each picture the 256 colours that suit it best."""
    graph = Graph()
    source = graph.add_buffer(
        width=width, height=height, format=VideoFormat("bgr24"), time_base=_TICK
    )
    split, sink = graph.add("split"), graph.add("buffersink")
    made = graph.add("palettegen", "stats_mode=single")
    used = graph.add("paletteuse", "new=1:dither=bayer:bayer_scale=4")
    source.link_to(split)
    split.link_to(used, 0, 0)
    split.link_to(made, 1, 0)
    made.link_to(used, 0, 1)
    used.link_to(sink)
    graph.configure()
    return graph
