"""The picture by WebRTC: frames in, one VP8 stream for all viewers out, each on a track of its own.

A picture is encoded once, whoever looks. A viewer that cannot take it in time loses pictures until
the next whole one, which comes every two seconds and whenever somebody begins. A picture's RTP
timestamp is its capture time plus an origin that aiortc draws by lot for each viewer and keeps to
itself; the page needs it to find a picture's map, and the one place that reads it is here.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from typing import Any

import av
from aiortc import (
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamTrack
from av.video.frame import PictureType

from denseav.stream.display.drawing import Canvas

STAMPS_HZ = 90_000
WRAP = 1 << 32
WHOLE_EVERY = 60  # pictures
WAITING = 4
_BITS_PER_PIXEL = 4.0  # a second: 1.2 Mbit/s of 640x480
_OPTIONS = {
    "deadline": "realtime",
    "cpu-used": "8",
    "lag-in-frames": "0",
    "error-resilient": "default",
    "auto-alt-ref": "0",
}


def stamp(capture_s: float) -> int:
    """Return a capture time in RTP's units, of 32 bits; the page computes the same."""
    return int(capture_s * STAMPS_HZ) % WRAP


class PictureEncoder:
    """One VP8 stream; called by one thread at a time."""

    def __init__(self) -> None:
        self._codec: Any = None
        self._begun: int | None = None
        self._size = (0, 0)
        self._next = 0

    def encode(self, image_HW3: Canvas, capture_s: float, whole: bool) -> "Encoded":
        """Return a picture's packet; `whole` when it must be readable without those before."""
        height, width = (side - side % 2 for side in image_HW3.shape[:2])
        if self._codec is None or (width, height) != self._size:
            self._open(width, height)
            whole = True
        frame = av.VideoFrame.from_ndarray(image_HW3[:height, :width], format="bgr24")
        frame = frame.reformat(format="yuv420p")
        frame.pts, self._next = self._next, self._next + 1
        frame.pict_type = PictureType.I if whole else PictureType.NONE
        packets = self._codec.encode(frame)
        data = b"".join(bytes(packet) for packet in packets)
        is_whole = any(packet.is_keyframe for packet in packets)
        return Encoded(data, stamp(capture_s), is_whole)

    def _open(self, width: int, height: int) -> None:
        codec = av.CodecContext.create("libvpx", "w")
        codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
        codec.time_base = Fraction(1, 30)
        codec.bit_rate = round(_BITS_PER_PIXEL * width * height)
        codec.gop_size = WHOLE_EVERY
        codec.options = _OPTIONS
        self._codec, self._size, self._next = codec, (width, height), 0


class Encoded:
    """A picture of the stream: its bytes, its timestamp, and whether it is readable alone."""

    __slots__ = ("data", "is_whole", "stamp")

    def __init__(self, data: bytes, stamp: int, is_whole: bool) -> None:
        self.data = data
        self.stamp = stamp
        self.is_whole = is_whole


class PictureTrack(MediaStreamTrack):
    """The stream for one viewer; what it cannot take in time it does not get.

    Parameters
    ----------
    origin : called once with what is added to a picture's timestamp on its way.
    """

    kind = "video"

    def __init__(self, origin: Callable[[int], None]) -> None:
        super().__init__()
        self.wants_whole = True
        self.sender: RTCRtpSender | None = None
        self._origin: Callable[[int], None] | None = origin
        self._pictures: asyncio.Queue[Encoded] = asyncio.Queue(WAITING)
        self._sent: int | None = None

    def put(self, encoded: Encoded) -> None:
        """Take the next picture; one that depends on a lost one is lost too."""
        if self._pictures.full():
            self.wants_whole = True
        if self.wants_whole and not encoded.is_whole:
            return
        if self._pictures.full():
            while not self._pictures.empty():
                self._pictures.get_nowait()
        self.wants_whole = False
        self._pictures.put_nowait(encoded)

    async def recv(self) -> "av.Packet[Any]":
        """Return the next picture; called by the sender when the one before has been sent."""
        if self._sent is not None and self._origin is not None:
            sender: Any = self.sender
            self._origin((sender._RTCRtpSender__rtp_timestamp - self._sent) % WRAP)
            self._origin = None
        encoded = await self._pictures.get()
        packet: av.Packet[Any] = av.Packet(encoded.data)
        packet.pts, packet.time_base = encoded.stamp, Fraction(1, STAMPS_HZ)
        self._sent = encoded.stamp
        return packet


class PicturePeer:
    """One viewer's connection for the picture."""

    def __init__(self, origin: Callable[[int], None]) -> None:
        self.track = PictureTrack(origin)
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))

    @property
    def is_over(self) -> bool:
        """Whether it has failed or been closed."""
        return self._peer.connectionState in ("failed", "closed")

    async def answer(self, sdp: str) -> str | None:
        """Return the answer to an offer of a page that wants the picture; None to nonsense."""
        try:
            await self._peer.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
            self.track.sender = self._peer.addTrack(self.track)
            for transceiver in self._peer.getTransceivers():
                codecs = RTCRtpSender.getCapabilities("video").codecs
                transceiver.setCodecPreferences(
                    [codec for codec in codecs if codec.mimeType in ("video/VP8", "video/rtx")]
                )
            await self._peer.setLocalDescription(await self._peer.createAnswer())
        except Exception:  # noqa: BLE001 - aiortc raises anything at what it does not understand
            return None
        return str(self._peer.localDescription.sdp)

    async def close(self) -> None:
        """End the connection."""
        with suppress(Exception):  # one that is half made
            await self._peer.close()
