"""A browser's camera and microphone by WebRTC in, frames and audio out, on one clock.

Whoever opened the page first gives them; a second one is told so. A connection that ends or falls
silent is a state, and the next one goes on where it ended. Everything runs on the page server's
loop; frames are bounded before they are converted, and every track is read dry.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic

import av
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from numpy.typing import NDArray

from denseav.stream.sources.supervisor import STALLED_S, Splicer
from denseav.stream.stats.source_health import Kind, SourceHealth, SourceState, State
from denseav.stream.types import AudioBlock, Frame, Receiver
from denseav.stream.web.rtp_clock import RtpClock, SenderClock, observe

VIDEO_HZ, AUDIO_HZ = 90_000, 48_000
LARGEST_PIXELS = 4096 * 2304
OPENING_S = 15.0  # for an offer to become a connection that gives pictures
POLL_S = 0.2
_KINDS: Sequence[Kind] = ("camera", "microphone")


class OfferError(Exception):
    """An offer that is not taken, in one line for whoever made it."""


class BrowserCamera:
    """A browser's camera and microphone: a `Source` of frames and audio.

    Parameters
    ----------
    health : is told every change of state.
    audio : whether the microphone is wanted too.
    drop : called with the cause and number of what could not be decoded in time.
    number : which of a run's cameras, and so of its microphones, it is.

    Attributes
    ----------
    name : what people read.
    audio : as above; may be set until a browser comes.
    has_come : set by the first picture.
    """

    name = "browser"

    def __init__(
        self,
        health: SourceHealth,
        *,
        audio: bool = True,
        drop: Callable[[str, int], None] = lambda _cause, _count: None,
        number: int = 0,
    ) -> None:
        self.audio = audio
        self.drop = drop
        self.has_come = threading.Event()
        self._health = health
        self._number = number
        self._receiver: Receiver | None = None
        self._splicer = Splicer(number)
        self._states: dict[Kind, State] = dict.fromkeys(_KINDS, State.OPENING)
        self._losses = dict.fromkeys(_KINDS, 0)
        self._last_s = dict.fromkeys(_KINDS, 0.0)
        self._given: GivenCamera | None = None

    @property
    def _kinds(self) -> Sequence[Kind]:
        return _KINDS if self.audio else _KINDS[:1]

    def start(self, receiver: Receiver) -> None:
        """Begin to call the receiver, whenever a browser gives something."""
        self._receiver = receiver
        for kind in self._kinds:
            if self._states[kind] is State.OPENING:  # a browser may have been sooner
                self._enter(kind, State.OPENING, monotonic())

    def stop(self) -> None:
        """Give nothing more. May be called twice."""
        self._receiver = None

    async def take(self, sdp: str, tell: Callable[[str], None]) -> tuple[str, "GivenCamera"]:
        """Answer a browser's offer.

        Parameters
        ----------
        sdp : its session description.
        tell : called with a line when it ends for another reason than the browser's wish.

        Raises
        ------
        OfferError
            When another browser is the camera, or the offer is none or has no picture.
        """
        if self._given is not None:
            raise OfferError("another browser is the camera now; stop it there first")
        given = self._given = GivenCamera(self, tell)
        try:
            answer = await given.answer(sdp)
        except BaseException:
            await self.leave(given)
            raise
        return answer, given

    async def leave(self, given: "GivenCamera", reason: str = "the browser has ended it") -> None:
        """End a connection, if it is still the one."""
        await given.close()
        if self._given is given:
            self._given = None
            for kind in self._kinds:
                if self._states[kind] is not State.OPENING:
                    self._lose(kind, reason)

    def frame(self, image_HW3: NDArray[np.uint8], capture_s: float) -> None:
        """Take a picture of the connection."""
        self._came("camera", capture_s)
        self.has_come.set()
        if self._receiver is not None:
            self._receiver.frame(self._splicer.frame(Frame(image_HW3, 0, capture_s)))

    def heard(self, block: AudioBlock, missed: int | None) -> int:
        """Take audio of the connection; return what is missed between it and the one before."""
        missed = self._splicer.missed(block) if missed is None else missed
        self._came("microphone", block.capture_s)
        block = self._splicer.audio(block, missed)
        if self._receiver is not None:
            self._receiver.audio(block)
        return missed

    def look(self, background: bool) -> None:
        """See whether something still comes."""
        now_s = monotonic()
        why = "its page is in the background" if background else "nothing comes from it"
        for kind in self._kinds:
            silent_s = now_s - self._last_s[kind]
            if self._states[kind] is State.RUNNING and silent_s > STALLED_S[kind] + POLL_S:
                reason = f"{kind} {self.name} has stalled; {why}"
                self._enter(kind, State.STALLED, now_s - silent_s, reason)

    def _came(self, kind: Kind, capture_s: float) -> None:
        self._last_s[kind] = monotonic()
        if self._states[kind] is not State.RUNNING:
            self._enter(kind, State.RUNNING, capture_s)

    def _lose(self, kind: Kind, reason: str) -> None:
        self._losses[kind] += 1
        line = f"{kind} {self.name} is lost ({reason}); open the page and give it again"
        self._enter(kind, State.LOST, monotonic(), line)

    def _enter(self, kind: Kind, state: State, since_s: float, reason: str = "") -> None:
        self._states[kind] = state
        self._health.enter(
            SourceState(
                kind=kind,
                name=self.name,
                state=state,
                since_s=since_s,
                reason=reason,
                losses=self._losses[kind],
                number=self._number,
            )
        )


class GivenCamera:
    """One browser's connection: its tracks, read until it ends.

    Attributes
    ----------
    background : whether its page is in the background, by its own word.
    """

    def __init__(self, camera: BrowserCamera, tell: Callable[[str], None]) -> None:
        self.background = False
        self._camera = camera
        self._tell = tell
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))  # asks nobody elsewhere
        self._sender = SenderClock()
        self._clocks = {
            "video": RtpClock(VIDEO_HZ, self._sender),
            "audio": RtpClock(AUDIO_HZ, self._sender),
        }
        self._tasks: list[asyncio.Task[None]] = []
        self._tracks: list[MediaStreamTrack] = []
        self._peer.on("track", self._tracks.append)
        self._closed = False

    async def answer(self, sdp: str) -> str:
        """Return the answer to an offer."""
        try:
            await self._peer.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
            for receiver in self._peer.getReceivers():
                kind = receiver.track.kind
                observe(receiver, self._clocks[kind], partial(self._lose, kind))
            if [track.kind for track in self._tracks].count("video") != 1 or len(self._tracks) > 2:
                raise OfferError("a camera's offer has one picture and at most one sound")
            await self._peer.setLocalDescription(await self._peer.createAnswer())
        except OfferError:
            raise
        except Exception:  # noqa: BLE001 - aiortc raises anything at what it does not understand
            raise OfferError("the offer is not understood; try another browser") from None
        for track in self._tracks:
            read = self._look if track.kind == "video" else self._listen
            self._tasks.append(asyncio.create_task(read(track, self._clocks[track.kind])))
        self._tasks.append(asyncio.create_task(self._watch()))
        return str(self._peer.localDescription.sdp)

    async def close(self) -> None:
        """End the connection. May be called twice."""
        if self._closed:
            return
        self._closed = True
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        with suppress(Exception):  # one that is half made, by an offer that was not understood
            await self._peer.close()

    def _lose(self, kind: str, count: int) -> None:
        self._camera.drop(f"browser_{kind}_behind", count)

    async def _end(self, reason: str) -> None:
        self._tell(reason)
        await self._camera.leave(self, reason)

    async def _look(self, track: MediaStreamTrack, clock: RtpClock) -> None:
        with suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                assert isinstance(frame, av.VideoFrame)
                if frame.width * frame.height > LARGEST_PIXELS:
                    await self._end("its pictures are too large; choose a smaller size")
                    return
                image_HW3 = np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
                self._camera.frame(image_HW3, clock.time_of(int(frame.pts or 0)))
        await self._end("its camera has ended")

    async def _listen(self, track: MediaStreamTrack, clock: RtpClock) -> None:
        first: int | None = None
        missed: int | None = None
        with suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                assert isinstance(frame, av.AudioFrame)
                if frame.sample_rate != AUDIO_HZ:
                    await self._end("its sound is not Opus, which browsers have; try another one")
                    return
                count = int(frame.pts or 0)
                first = count if first is None else first
                channels = frame.layout.nb_channels
                whole_SC = frame.to_ndarray().reshape(-1, channels)  # int16
                samples_SC = np.asarray(whole_SC / np.float32(32768), np.float32)
                if self._camera.audio and count >= first:
                    block = AudioBlock(samples_SC, AUDIO_HZ, count - first, clock.time_of(count))
                    missed = self._camera.heard(block, missed)

    async def _watch(self) -> None:
        """End what does not become a connection, or ceases to be one; say what has stalled."""
        begun_s = monotonic()
        while True:
            await asyncio.sleep(POLL_S)
            state = self._peer.connectionState
            if state in ("failed", "closed"):
                await self._end("the connection is lost")
                return
            if state != "connected" and monotonic() - begun_s > OPENING_S:
                await self._end("no connection came about; is a firewall between?")
                return
            self._camera.look(self.background)
