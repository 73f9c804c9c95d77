"""RTP timestamps and sender reports in, times on the one monotonic clock out.

Each stream counts by a clock of its own; the sender's reports (RFC 3550, 6.4.1) say at which moment
of the sender's clock a count was captured, so that picture and sound share that one. How far it is
from ours is learned from the report that came with the least delay. Before a stream's first report,
the time is that of the least delayed arrival. aiortc keeps the reports to itself, and what waits to
be decoded too; the one function that reaches into it is here.
"""

import queue
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

from aiortc import RTCRtpCodecParameters, RTCRtpReceiver
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtp import RtcpSrPacket

_WRAP = 1 << 32
WAITING = 15  # frames that wait to be decoded: half a second of pictures
_REPORTS = 60  # about a minute of them


class SenderClock:
    """How far a sender's clock is from ours; shared by its streams."""

    def __init__(self) -> None:
        self._apart_s: deque[float] = deque(maxlen=_REPORTS)

    def observe(self, sent_s: float, came_s: float) -> None:
        """Learn that what was sent at `sent_s`, by the sender's clock, came at `came_s` by ours."""
        self._apart_s.append(came_s - sent_s)

    def to_ours(self, sender_s: float) -> float:
        """Return a moment of the sender's clock on ours; after an `observe`."""
        return sender_s + min(self._apart_s)


class RtpClock:
    """The clock of one stream.

    Parameters
    ----------
    rate_hz : at which it counts.
    sender : shared with the sender's other stream.
    now : gives the time on our clock.
    """

    def __init__(
        self, rate_hz: int, sender: SenderClock, now: Callable[[], float] = monotonic
    ) -> None:
        self._rate_hz = rate_hz
        self._sender = sender
        self._now = now
        self._last: int | None = None
        self._reported: tuple[int, float] | None = None  # a count, and when it was, for the sender
        self._least_s = float("inf")  # of arrivals, less their counts

    @property
    def has_report(self) -> bool:
        """Whether times are the sender's, and no longer those of arrivals."""
        return self._reported is not None

    def map(self, timestamp: int) -> int:
        """Return a timestamp of 32 bits as a count that does not wrap."""
        if self._last is None:
            self._last = timestamp
        else:
            ahead = (timestamp - self._last + _WRAP // 2) % _WRAP - _WRAP // 2
            self._last += ahead
        self._least_s = min(self._least_s, self._now() - self._last / self._rate_hz)
        return self._last

    def report(self, timestamp: int, sent_s: float) -> None:
        """Take a sender's report: the timestamp of a moment of its clock."""
        self._sender.observe(sent_s, self._now())
        last = timestamp if self._last is None else self._last
        count = last + (timestamp - last + _WRAP // 2) % _WRAP - _WRAP // 2
        self._reported = (count, sent_s)

    def time_of(self, count: int) -> float:
        """Return when a count was captured; never later than now."""
        if self._reported is None:
            return min(self._now(), self._least_s + count / self._rate_hz)
        at, sent_s = self._reported
        return min(self._now(), self._sender.to_ours(sent_s + (count - at) / self._rate_hz))


class EncodedFrames(queue.Queue[Any]):
    """What waits to be decoded, bounded: a machine that is too slow begins anew with a whole frame.

    Parameters
    ----------
    most : so many.
    lost : called with how many were thrown away.
    """

    def __init__(self, most: int, lost: Callable[[int], None]) -> None:
        super().__init__()
        self._most = most
        self._lost = lost
        self._awaits_whole = False

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Take the next; None, which ends it, is always taken."""
        if item is not None and self.qsize() >= self._most:
            self._awaits_whole, count = True, 1
            with suppress(queue.Empty):
                while self.get_nowait() is not None:
                    count += 1
            self._lost(count)
        elif item is not None and self._awaits_whole and not is_whole(*item):
            self._lost(1)
        else:
            self._awaits_whole = False
            super().put(item, block, timeout)


def is_whole(codec: RTCRtpCodecParameters, encoded: JitterFrame) -> bool:
    """Return whether an encoded frame can be decoded without those before it."""
    data = encoded.data
    match codec.name.upper():
        case "VP8":
            return bool(data) and not data[0] & 1
        case "H264":
            return any(len(part) and part[0] & 31 == 5 for part in data.split(b"\x00\x00\x01")[1:])
        case _:
            return True


def observe(receiver: RTCRtpReceiver, clock: RtpClock, lost: Callable[[int], None]) -> None:
    """Have a receiver's frames carry the counts of `clock`, and its reports reach it.

    Called before the connection begins. When more frames wait than are decoded in time, they are
    thrown away, `lost` is called with their number, and the sender is asked for a whole picture.
    """
    private: Any = receiver

    def lose(count: int) -> None:
        private._RTCRtpReceiver__decoder_error.set()  # which asks the sender
        lost(count)

    private._RTCRtpReceiver__decoder_queue = EncodedFrames(WAITING, lose)
    private._RTCRtpReceiver__timestamp_mapper = clock
    handle = private._handle_rtcp_packet

    async def handle_and_note(packet: Any) -> None:
        if isinstance(packet, RtcpSrPacket):
            info = packet.sender_info
            clock.report(info.rtp_timestamp, info.ntp_timestamp / _WRAP)
        await handle(packet)

    private._handle_rtcp_packet = handle_and_note
