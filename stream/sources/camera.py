"""A live camera in, frames out: a device of this machine, or an address on the network.

A frame's time is the driver's stamp where there is one, else when it came; what waited in a
buffer is thrown away, for that stamp would be a lie. A camera that stops or gives nothing that can
be decoded ends with an error; to open it again is somebody else's decision. Passwords in a URL are
used and never shown. Frames are given on the camera's own thread.
"""

import threading
import time
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from denseav.export.terminal_text import safe_text
from denseav.stream.errors import SourceError
from denseav.stream.sources.arrival_pace import ArrivalPace
from denseav.stream.sources.device_capture import DeviceCapture, device_advice, lasting
from denseav.stream.sources.network_capture import NetworkCapture, SnapshotCapture
from denseav.stream.sources.source_thread import SourceThread
from denseav.stream.types import AudioBlock, Frame, Receiver

FROZEN_S = 2.0  # a camera that gives nothing that can be decoded for so long has failed …
BLANKS = 3  # … unless it is a slow one
SNAPSHOT_FPS = 5.0  # how often an address of single pictures is asked, unless told otherwise
STOP_TIMEOUT_S = 2.0


class Capture(Protocol):
    """What gives pictures one by one. Opened by its constructor; called by one thread.

    Attributes
    ----------
    fps : pictures a second, by its own words; anything.
    known : what is known of it, in words: its format, why it ended.
    left_out : how many pictures came faster than they could be decoded, and were not.
    """

    fps: float
    left_out: int

    @property
    def known(self) -> str:
        """What is known of it, in words: its format, why it ended."""

    def grab(self) -> bool:
        """Wait for the next picture, which may not be decodable; False when none will come."""

    def captured_s(self) -> float:
        """Return when the picture in hand was captured."""

    def stamp_s(self, captured_s: float) -> float:
        """Return the time of the picture in hand that its frame carries, given that one."""

    def retrieve(self) -> NDArray[np.uint8] | None:
        """Return the picture in hand, uint8 [H, W, 3] BGR; None when it cannot be decoded."""

    def first(self) -> NDArray[np.uint8] | None:
        """Return the first picture that can be decoded; None when there is none."""

    def release(self) -> None:
        """Close it. May be called twice."""


class Camera:
    """A camera: a `Source` of frames.

    Parameters
    ----------
    spec : `0`, `/dev/video2`, `rtsp://…` or `http://…`.
    size : width and height in pixels to ask a device for; it gives the nearest it has.
    fps : frames per second to ask for; networks are asked where they give single pictures.
    sound : whether a network camera's own sound is wanted.

    Attributes
    ----------
    name : the device, or the URL without user, password and query.
    width, height : pixels of the first frame.
    sound_rate_hz : of its own sound; None where there is none, or none is wanted.

    Raises
    ------
    SourceError
        When there is no such camera, or it gives no picture.
    """

    def __init__(
        self,
        spec: str,
        size: tuple[int, int] | None = None,
        fps: float | None = None,
        *,
        sound: bool = False,
    ) -> None:
        self.name = public_name(spec)
        self._asked = (lasting(spec), size, fps)
        self._sound = sound
        self._begun = threading.Event()
        self._stopping = threading.Event()
        self._receiver: Receiver | None = None
        self._capture: Capture = (
            NetworkCapture(spec, self.name, self._stopping, sound)
            if "://" in spec
            else DeviceCapture(spec, self.name, size, fps)
        )
        image_HW3 = self._capture.first()
        if image_HW3 is None:
            self._capture.release()
            raise SourceError(
                f"camera {self.name} gives no picture{self._known()}; {self._advice()}"
            )
        self.height, self.width = image_HW3.shape[:2]
        self.sound_rate_hz = None
        if isinstance(self._capture, NetworkCapture) and self._capture.sound is not None:
            self.sound_rate_hz = self._capture.sound.rate_hz
            self._capture.hear = self._hear
        self._pace = ArrivalPace(self._capture.fps, time.monotonic())
        # It reads from now on, so that no old pictures wait in a buffer when it is started.
        self._thread = SourceThread(f"camera {self.name}", self._read, self._end)
        self._thread.start()

    def start(self, receiver: Receiver) -> None:
        """Begin to call the receiver."""
        self._receiver = receiver
        self._begun.set()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop and release the camera, later if it hangs. May be called twice."""
        self._stopping.set()
        self._begun.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def leave_sound(self) -> None:
        """Give no sound, now and after `again`."""
        self._sound, self.sound_rate_hz = False, None

    def again(self) -> Self:
        """Open the same camera anew, also where it was plugged in again under another number."""
        return type(self)(*self._asked, sound=self._sound)

    def _read(self) -> None:
        try:
            self._give_frames()
        finally:
            self._capture.release()
        pause_s = self._pace.usual_pause_s
        pace = f", one every {pause_s:.1f} s until then" if pause_s else ""
        self._end(
            SourceError(
                f"camera {self.name} stopped giving pictures{self._known(pace)}; "
                "check its cable or network"
            )
        )

    def _hear(self, block: AudioBlock) -> None:
        if self._sound and self._receiver is not None and not self._stopping.is_set():
            self._receiver.audio(block)

    def _end(self, error: SourceError) -> None:
        self._begun.wait()
        if self._receiver is not None and not self._stopping.is_set():
            self._receiver.ended(error)

    def _give_frames(self) -> None:
        index, blanks, left_out, seen_s = 0, 0, 0, time.monotonic()
        single = True
        while not self._stopping.is_set():
            if not (self._capture.grab() or (single and self._gives_single_pictures())):
                return
            single = False
            captured_s = self._capture.captured_s()
            if self._pace.waited(captured_s):
                seen_s = captured_s
                continue
            image_HW3 = self._capture.retrieve()
            if image_HW3 is None:
                blanks += 1
                if blanks >= BLANKS and time.monotonic() - seen_s > FROZEN_S:
                    return
                continue
            blanks, seen_s = 0, captured_s
            if self._receiver is not None and not self._stopping.is_set():
                stamp_s, missed = (
                    self._capture.stamp_s(captured_s),
                    self._capture.left_out - left_out,
                )
                self._receiver.frame(Frame(image_HW3, index, stamp_s, missed=missed))
                index, left_out = index + 1, left_out + missed
            self._leave_rest_of_burst()

    def _leave_rest_of_burst(self) -> None:
        if self._pace.spread_s:
            self._stopping.wait(self._pace.spread_s)
            self._pace.asked(time.monotonic())

    def _gives_single_pictures(self) -> bool:
        """Ask again where a web address gave one picture and no more; return whether it answers."""
        url, _, fps = self._asked
        if not url.lower().startswith(("http://", "https://")):
            return False
        self._capture.release()
        self._capture = SnapshotCapture(url, self.name, self._stopping, fps or SNAPSHOT_FPS)
        return self._capture.grab() and self._capture.retrieve() is not None

    def _known(self, more: str = "") -> str:
        known = self._capture.known + more
        return f" ({known.removeprefix(', ')})" if known else ""

    def _advice(self) -> str:
        if isinstance(self._capture, DeviceCapture):
            return device_advice(self._asked[0])
        return "check its address and password, and that it is switched on"


def public_name(spec: str) -> str:
    """Return what of a camera's name may be shown: no user, password or query."""
    shown = safe_text(spec)
    return shown if spec.startswith("/") else shown.rpartition("@")[2]
