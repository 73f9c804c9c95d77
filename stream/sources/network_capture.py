"""One connection to a network camera: an address in, its pictures one by one out, by FFmpeg.

RTSP, MJPEG over HTTP, HLS and whatever else FFmpeg opens. HLS segments are played at the pace of
their own time stamps. The size of a picture is bounded before it is decoded; one that cannot be
decoded costs itself. An address that gives a single picture is asked again and again
(`SnapshotCapture`). Runs on the thread that calls it.
"""

import threading
from collections import deque
from time import monotonic
from typing import Any

import av
import av.logging
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from denseav.stream.errors import SourceError

OPEN_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 5.0  # the first whole picture can take as long
SEGMENTS_TIMEOUT_S = 30.0  # segments of HLS may last for 10 s
LARGEST_PIXELS = 8192 * 8192 // 2  # 8K, and as much of other shapes
SNAPSHOT_S = 0.2
SEGMENTED = ("hls", "dash")
SLIP_S = 10.0  # time stamps that jump so far begin a new count
OPTIONS = {
    "rtsp_transport": "tcp",  # UDP loses pictures without a word
    "max_pixels": str(LARGEST_PIXELS),
}

Image = NDArray[np.uint8]


class NetworkCapture:
    """A stream that is open: a `Capture`.

    Parameters
    ----------
    url : with user and password, where it needs them.
    name : the same for people.
    stopping : ends what waits.

    Attributes
    ----------
    fps : as the stream says it; 0 when it does not.

    Raises
    ------
    SourceError
        When it cannot be opened or has no picture.
    """

    def __init__(self, url: str, name: str, stopping: threading.Event) -> None:
        av.logging.set_level(None)  # FFmpeg's own words hold the address
        self._broken = 0
        self._stopping = stopping
        self._anchor_s: float | None = None
        self._last_pts_s = 0.0
        self._frames: deque[av.VideoFrame] = deque()
        self._frame: av.VideoFrame | None = None
        self._reformatter = VideoReformatter()
        segmented = url.partition("?")[0].endswith((".m3u8", ".mpd"))
        read_s = SEGMENTS_TIMEOUT_S if segmented else READ_TIMEOUT_S
        try:
            self._container = av.open(url, options=OPTIONS, timeout=(OPEN_TIMEOUT_S, read_s))
        except (av.FFmpegError, OSError, ValueError) as error:
            raise SourceError(
                f"camera {name} cannot be opened; check its address and password, and that it is "
                f"switched on ({_reason(error)})"
            ) from None
        self._format = self._container.format.name.partition(",")[0]
        video = next(iter(self._container.streams.video), None)
        if video is None or video.codec_context is None:
            self.release()
            raise SourceError(
                f"camera {name} sends no pictures that can be decoded ({self._format}); "
                "check its address"
            )
        video.codec_context.options = {"max_pixels": str(LARGEST_PIXELS)}
        video.codec_context.thread_type = "SLICE"  # by frames, each would come some frames late
        self.fps = float(video.average_rate or 0)
        self._packets = self._container.demux(video)

    def grab(self) -> bool:
        """Wait for the next packet and decode it; False when none will come."""
        self._frame = None
        try:
            if not self._frames:
                packet = next(self._packets)
                self._decode(packet)
                if not (self._frames or packet.size):  # the mark of the stream's end
                    return False
        except (StopIteration, av.FFmpegError, OSError):
            return False
        if self._frames:
            self._frame = self._frames.popleft()
            if self._format in SEGMENTED:
                self._stopping.wait(self._early_s(self._frame))
        return True

    @property
    def known(self) -> str:
        """What could not be decoded; empty while all was well."""
        if not self._broken:
            return ""
        return (
            f"{self._format}, {self._broken} pictures could not be decoded, or were larger than "
            f"{LARGEST_PIXELS // 1_000_000} million pixels"
        )

    def captured_s(self) -> float:
        """Return the time: networks do not say when a picture was captured."""
        return monotonic()

    def retrieve(self) -> Image | None:
        """Return the picture in hand, uint8 [H, W, 3]; None when it could not be decoded."""
        if self._frame is None:
            return None
        return np.asarray(
            self._reformatter.reformat(self._frame, format="bgr24").to_ndarray(), np.uint8
        )

    def first(self) -> Image | None:
        """Return the first picture that can be decoded; None when there is none for long."""
        end_s = monotonic() + READ_TIMEOUT_S
        while self.grab() and not self._stopping.is_set() and monotonic() < end_s:
            if self._frame is not None:
                return self.retrieve()
        return None

    def release(self) -> None:
        """Close the connection. May be called twice."""
        self._container.close()

    def _decode(self, packet: Any) -> None:
        try:
            self._frames.extend(packet.decode())
        except av.FFmpegError:  # one bad packet costs itself
            self._broken += 1

    def _early_s(self, frame: av.VideoFrame) -> float:
        """Return how long a picture of a segment should wait, so that all come evenly."""
        now_s = monotonic()
        pts_s = self._last_pts_s if frame.time is None else frame.time
        jumped = abs(pts_s - self._last_pts_s) > SLIP_S
        if self._anchor_s is None or jumped or now_s > self._anchor_s + pts_s:
            self._anchor_s = now_s - pts_s
        self._last_pts_s = pts_s
        return self._anchor_s + pts_s - now_s


class SnapshotCapture:
    """An address that gives one picture, asked again and again: a `Capture`.

    Parameters
    ----------
    url, name, stopping : as in `NetworkCapture`.
    fps : how often to ask, in pictures a second; it is done less often when answers take longer.
    """

    def __init__(self, url: str, name: str, stopping: threading.Event, fps: float) -> None:
        self.fps = fps
        self.known = f"single pictures, asked for {fps:g} times a second"
        self._asked = (url, name, stopping)
        self._due_s = monotonic() + 1 / fps
        self._image_HW3: Image | None = None

    def grab(self) -> bool:
        """Ask for the next picture when it is due. Always True: the next answer may bring one."""
        self._asked[2].wait(max(0.0, self._due_s - monotonic()))
        self._due_s = max(self._due_s, monotonic()) + 1 / self.fps
        self._image_HW3 = None
        try:
            capture = NetworkCapture(*self._asked)
        except SourceError as error:  # one refusal costs itself
            self.known = str(error)
            return True
        self._image_HW3 = capture.first()
        capture.release()
        return True

    def captured_s(self) -> float:
        """Return the time: networks do not say when a picture was captured."""
        return monotonic()

    def retrieve(self) -> Image | None:
        """Return the picture in hand, uint8 [H, W, 3]; None when there was no answer."""
        return self._image_HW3

    def first(self) -> Image | None:
        """Return the picture of one answer."""
        self.grab()
        return self._image_HW3

    def release(self) -> None:
        """Nothing stays open between two pictures."""


def _reason(error: Exception) -> str:
    """Return an error by FFmpeg's words, without the address."""
    return str(getattr(error, "strerror", None) or type(error).__name__)
