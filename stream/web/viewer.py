"""One browser that looks: the newest picture with its map out, acknowledgements and wishes in.

Two are on their way at most (of maps beside a WebRTC stream, some more). The page says when it has
drawn one, and only then is the newest of that moment sent; what came meanwhile is passed over. So a
slow viewer sees fewer pictures and none that is old, and one that has stopped costs nothing. Runs
on the loop of `server`.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from aiohttp import WSMsgType, web

from denseav.stream.web.access import Rate
from denseav.stream.web.picture_stream import PicturePeer

ON_THE_WAY = 2
MAPS_ON_THE_WAY = 12  # beside a stream, whose pictures come later than their maps
ANSWERS = 16  # short texts that wait to be sent
TEXT_MAX = 64 * 1024  # an offer is the longest
_TEXTS_PER_S, _TEXTS_BURST = 120.0, 240.0
OFFERS_PER_S, OFFERS_BURST = 1.0, 20.0
_LATENCIES = 300

Ask = Callable[["Viewer", Mapping[str, Any]], None]


class Viewer:
    """One connection of a page.

    Parameters
    ----------
    socket : prepared.
    ask : called with each wish of the page, a JSON object.
    drawn : called with the capture time of what the page has drawn, which so may get more.

    Attributes
    ----------
    passed_over : how many it was not sent.
    stream : the picture's own connection, where it has one; then it is sent maps alone.
    wants_features : whether it shows the picture's dense features.
    offers : how many offers of WebRTC it may make; one that makes too many disturbs nobody else.
    """

    def __init__(
        self, socket: web.WebSocketResponse, ask: Ask, drawn: Callable[[float], None]
    ) -> None:
        self.passed_over = 0
        self.wants_features = False
        self.stream: PicturePeer | None = None
        self._socket = socket
        self._ask = ask
        self._note = drawn
        self._newest: int | None = None
        self._under_way: deque[tuple[int, float]] = deque(maxlen=MAPS_ON_THE_WAY)
        self._shown: tuple[bytes, ...] | None = None
        self._state: str | None = None
        self._answers: deque[str] = deque(maxlen=ANSWERS)
        self._wake = asyncio.Event()
        self.offers = Rate(OFFERS_PER_S, OFFERS_BURST)
        self._texts = Rate(_TEXTS_PER_S, _TEXTS_BURST)
        self._latency_s: deque[float] = deque(maxlen=_LATENCIES)

    def wants(self, sequence: int) -> bool:
        """Whether it may be sent this picture, and has not been."""
        most = ON_THE_WAY if self.stream is None else MAPS_ON_THE_WAY
        return len(self._under_way) < most and sequence != self._newest

    @property
    def latency_ms(self) -> tuple[float, float] | None:
        """From capture to drawn there and told here, p50 and p95 of late; None before any."""
        ordered = sorted(self._latency_s)
        if not ordered:
            return None
        last = len(ordered) - 1
        return 1000 * ordered[last // 2], 1000 * ordered[round(0.95 * last)]

    def show(self, sequence: int, capture_s: float, messages: tuple[bytes, ...]) -> None:
        """Send these next, in place of what has not been sent; only what it wants."""
        if self._newest is not None:
            self.passed_over += sequence - self._newest - 1
        self._newest = sequence
        self._under_way.append((sequence, capture_s))
        self._shown = messages
        self._wake.set()

    def tell(self, **state: Any) -> None:
        """Send the run's state, in place of one that has not been sent."""
        self._state = json.dumps(state)
        self._wake.set()

    def answer(self, **answer: Any) -> None:
        """Send an answer; of too many, the oldest are lost."""
        self._answers.append(json.dumps(answer))
        self._wake.set()

    async def serve(self) -> None:
        """Send and read until either side ends."""
        sending = asyncio.create_task(self._send())
        try:
            await self._read()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def close(self) -> None:
        """End the connection."""
        await self._socket.close()

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._answers:
                await self._socket.send_str(self._answers.popleft())
            state, self._state = self._state, None
            if state is not None:
                await self._socket.send_str(state)
            shown, self._shown = self._shown, None
            for message in shown or ():
                await self._socket.send_bytes(message)

    async def _read(self) -> None:
        async for message in self._socket:
            if message.type is not WSMsgType.TEXT or not self._texts.allows(""):
                await self._socket.close(code=1008)
                return
            try:
                wish = json.loads(message.data)
            except (ValueError, RecursionError):
                wish = None
            if not isinstance(wish, dict):
                await self._socket.close(code=1007)
                return
            if "drawn" in wish:
                self._drawn(wish["drawn"])
            elif "features" in wish:
                self.wants_features = wish["features"] is True
            else:
                self._ask(self, wish)

    def _drawn(self, sequence: object) -> None:
        """Take note that a picture, and so all before it, is on the viewer's screen."""
        now_s = monotonic()
        while self._under_way and self._under_way[0][0] <= _whole(sequence):
            known, capture_s = self._under_way.popleft()
            if known == sequence:
                self._latency_s.append(now_s - capture_s)
                self._note(capture_s)


def _whole(value: object) -> int:
    return value if isinstance(value, int) else -1
