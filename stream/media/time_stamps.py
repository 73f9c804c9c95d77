"""Time stamps of packets in, the same on one timeline that only goes forward out.

Stamps are evidence: a clock may begin anew where two recordings were joined, jump, wrap round, or
be wrong for one packet. As in FFmpeg's own program a stamp that cannot follow on the last moves
all later ones, of every stream, so that pictures and sound stay together; unlike there, a packet
whose stamp the following ones contradict moves nothing, and an offset that was in use before is
taken up again. Packets have to come in the order of the file, those of all streams that are used.

Times are seconds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from denseav.stream.media.mended_faults import Mends

BACK_S = 0.1
"""Decoding stamps that go back by less are only rounded, or badly."""
BACK_SHOWN_S = 1.0
"""The same where only the time of showing is known, which goes to and fro."""
AHEAD_S = 0.5
"""A stamp that is further ahead of its stream is compared with those that follow."""
HOLE_S = 60.0
"""The longest hole in all streams at once that is believed; in a broadcast:"""
BROADCAST_HOLE_S = 10.0
SOON = 16
"""So many packets may have wrong stamps after one another: some hold several frames of sound."""
FITTING_S = 1.0
REORDERED_S, REORDERED = 5.0, 17
"""The longest between decoding a picture and showing it, in seconds or in pictures."""


class Timeline:
    """One pass over a file.

    Parameters
    ----------
    start_s : the stamp at which the file begins.
    broadcast : its format is one in which clocks begin anew, such as MPEG-TS.
    ticks_s : the length of a tick of each stream's stamps, by the stream's index.
    mends : takes what was wrong.

    Attributes
    ----------
    moved : whether the clock jumped.
    """

    def __init__(
        self, start_s: float, broadcast: bool, ticks_s: Mapping[int, float], mends: Mends
    ) -> None:
        self.moved = False
        self._ticks_s = ticks_s
        self._start_s = start_s
        self._hole_s = BROADCAST_HOLE_S if broadcast else HOLE_S
        self._mends = mends
        self._offsets_s = [0.0]  # the newest last
        self._last_s: dict[int, float] = {}
        self._next_s: dict[int, float] = {}
        self._only_shown: dict[int, bool] = {}

    def place(self, packet: Any, following: Callable[[], Sequence[float]]) -> None:
        """Move a packet's stamps, if they need it.

        Parameters
        ----------
        packet : with its stream.
        following : gives the stamps of the next packets of the same stream.
        """
        stream = packet.stream.index
        tick_s = self._ticks_s[stream]
        time_s = stamp(packet, tick_s)
        if time_s is None:
            return
        span_s = (packet.duration or 0) * tick_s
        if len(self._offsets_s) == 1 and packet.pts == packet.dts and stream in self._next_s:
            # Nearly all packets: they cost no more than this.
            own_s = self._next_s[stream]
            if -BACK_S <= time_s - own_s <= AHEAD_S and time_s >= self._last_s[stream]:
                self._last_s[stream], self._next_s[stream] = time_s, time_s + span_s
                self._only_shown[stream] = False
                return
        new = _Stamp(stream, time_s, span_s, packet.dts is None)
        self._check_shown(packet, tick_s, new)
        offset_s = self._offset_s(new, following)
        if offset_s:
            ticks = round(offset_s / tick_s)
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks
        self._only_shown[new.stream] = new.only_shown
        self._last_s[new.stream] = time_s + offset_s
        self._next_s[new.stream] = time_s + offset_s + span_s

    def _check_shown(self, packet: Any, tick_s: float, new: "_Stamp") -> None:
        shown, decoded = packet.pts, packet.dts
        if shown is None or decoded is None or shown == decoded:
            return
        if not -BACK_S <= (shown - decoded) * tick_s <= new.reordered_s(REORDERED_S):
            packet.pts = decoded
            at_s = new.time_s - self._start_s
            self._mends.note("a time of showing was absurd and is not used", at_s)

    def _offset_s(self, new: "_Stamp", following: Callable[[], Sequence[float]]) -> float:
        current_s = self._offsets_s[-1]
        own_s = self._next_s.get(new.stream)
        follows = self._may_follow(new, current_s)
        if own_s is not None and self._is_alone(new, own_s, follows, following):
            self._mends.note("a time stamp was wrong and is not used", own_s - self._start_s)
            return own_s - new.time_s
        return current_s if follows else self._other_offset_s(new, own_s)

    def _other_offset_s(self, new: "_Stamp", own_s: float | None) -> float:
        latest_s = max(self._next_s.values(), default=self._start_s)
        due_s = latest_s if own_s is None or own_s < latest_s - FITTING_S else own_s
        for known_s in reversed(self._offsets_s):
            if abs(new.time_s + known_s - due_s) < FITTING_S:
                self._offsets_s.remove(known_s)
                self._offsets_s.append(known_s)
                return known_s
        self._mends.note("the clock jumps, and goes on without", due_s - self._start_s)
        self.moved = True
        self._offsets_s.append(due_s - new.time_s)
        return due_s - new.time_s

    def _is_alone(
        self, new: "_Stamp", own_s: float, follows: bool, following: Callable[[], Sequence[float]]
    ) -> bool:
        """Whether a stamp is far from the last one, and the next ones are not so."""
        current_s = self._offsets_s[-1]
        if new.time_s + current_s > own_s + AHEAD_S:
            back_s = new.reordered_s(BACK_SHOWN_S) if new.only_shown else BACK_SHOWN_S
            return any(later_s < new.time_s - back_s for later_s in following())
        if follows:
            return False
        return any(abs(later_s + current_s - own_s) < AHEAD_S for later_s in following()[:SOON])

    def _may_follow(self, new: "_Stamp", offset_s: float) -> bool:
        last_s = self._last_s.get(new.stream, self._start_s - self._hole_s)
        only_shown = new.only_shown or self._only_shown.get(new.stream, False)
        back_s = new.reordered_s(BACK_SHOWN_S) if only_shown else BACK_S
        latest_s = max(self._next_s.values(), default=self._start_s)
        return last_s - back_s <= new.time_s + offset_s <= latest_s + self._hole_s


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What a packet says: when it is to be decoded, or only shown, and for how long."""

    stream: int
    time_s: float
    span_s: float
    only_shown: bool

    def reordered_s(self, at_least_s: float) -> float:
        """Return how long a picture may lie between its decoding and its showing."""
        return max(at_least_s, REORDERED * self.span_s)


def stamp(packet: Any, tick_s: float) -> float | None:
    """Return when a packet is to be decoded, or shown if only that is known; None without."""
    ticks = packet.pts if packet.dts is None else packet.dts
    return None if ticks is None else ticks * tick_s
