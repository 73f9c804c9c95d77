"""A camera and a microphone that flash and click together, given by WebRTC as a browser does."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fractions import Fraction
from time import monotonic
from typing import Any

import aiohttp
import av
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from numpy.typing import NDArray

FLASHES_S = np.cumsum([0.1, *([0.41, 0.53, 0.62, 0.47] * 20)])  # uneven: no wrong offset fits
FLASH_S = 0.1
CLICK_S = 0.01


def _since_flash_s(time_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how long ago the last flash was, at each time; infinite before the first."""
    last = np.searchsorted(FLASHES_S, time_s + 1e-9, side="right") - 1
    return np.where(last >= 0, time_s - FLASHES_S[last], np.inf)


class Flashes(MediaStreamTrack):
    kind = "video"

    def __init__(self, start_s: float) -> None:
        super().__init__()
        self.size = (48, 64)
        self._start_s = start_s
        self._index = 0

    async def recv(self) -> av.VideoFrame:
        time_s = self._index / 25
        await asyncio.sleep(self._start_s + time_s - monotonic())
        grey = 230 if _since_flash_s(np.array(time_s)) < FLASH_S else 30
        frame = av.VideoFrame.from_ndarray(np.full((*self.size, 3), grey, np.uint8), "bgr24")
        frame.pts, frame.time_base = self._index * 3600, Fraction(1, 90_000)
        self._index += 1
        return frame


class Clicks(MediaStreamTrack):
    kind = "audio"

    def __init__(self, start_s: float) -> None:
        super().__init__()
        self._start_s = start_s
        self._index = 0

    async def recv(self) -> av.AudioFrame:
        time_S = (self._index * 960 + np.arange(960)) / 48_000
        await asyncio.sleep(self._start_s + time_S[0] - monotonic())
        wave_S = 20_000 * np.sin(2 * np.pi * 2000 * time_S) * (_since_flash_s(time_S) < CLICK_S)
        frame = av.AudioFrame.from_ndarray(wave_S.astype(np.int16)[None], "s16", "mono")
        frame.sample_rate, frame.time_base = 48_000, Fraction(1, 48_000)
        frame.pts = self._index * 960
        self._index += 1
        return frame


class Giver:
    """A viewer that offers its camera; `said` holds what it was told."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))

    async def offer(self, *tracks: MediaStreamTrack) -> str:
        for track in tracks:
            self.peer.addTrack(track)
        await self.peer.setLocalDescription(await self.peer.createOffer())
        return str(self.peer.localDescription.sdp)

    async def told(self, key: str) -> Any:
        """Wait for a text with this key, and return its value."""
        async with asyncio.timeout(20):
            async for message in self.socket:
                said = json.loads(message.data) if message.type is aiohttp.WSMsgType.TEXT else {}
                if key in said:
                    return said[key]
        raise AssertionError("the connection was ended")

    async def give(self, *tracks: MediaStreamTrack) -> None:
        await self.socket.send_json({"camera": await self.offer(*tracks)})
        answer = await self.told("camera")
        await self.peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))


@asynccontextmanager
async def giver(port: int) -> AsyncIterator[Giver]:
    origin = f"http://127.0.0.1:{port}"
    async with (
        aiohttp.ClientSession() as client,
        client.ws_connect(f"{origin}/live", headers={"Origin": origin}) as socket,
    ):
        given = Giver(socket)
        try:
            yield given
        finally:
            await given.peer.close()
