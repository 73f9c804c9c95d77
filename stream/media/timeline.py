"""Time stamps of packets in, the same on one timeline that only goes forward out.

Stamps are evidence: a clock may begin anew where two recordings were joined, jump, wrap round, or
be wrong for one packet. As in FFmpeg's own program a stamp that cannot follow on the last moves
all later ones, of every stream, so that pictures and sound stay together; unlike there, a packet
whose stamp the following ones contradict moves nothing, and an offset that was in use before is
taken up again. Packets have to come in the order of the file, those of all streams that are used.

Times are seconds.
"""

from collections.abc import Callable, Sequence
from typing import Any

from denseav.stream.media.mends import Mends

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
    mends : takes what was wrong.
    """

    def __init__(self, start_s: float, broadcast: bool, mends: Mends) -> None:
        self.moved = False
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
        stamp_s = stamp(packet)
        stream, base = packet.stream.index, packet.time_base
        if stamp_s is None:
            return
        self._check_shown(packet)
        offset_s = self._offset_s(packet, stamp_s, following)
        if offset_s:
            ticks = round(offset_s / base)
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks
        placed_s = stamp_s + offset_s
        self._only_shown[stream] = packet.dts is None
        self._last_s[stream] = placed_s
        self._next_s[stream] = placed_s + float((packet.duration or 0) * base)

    def _check_shown(self, packet: Any) -> None:
        if packet.pts is None or packet.dts is None:
            return
        held_s = float((packet.pts - packet.dts) * packet.time_base)
        if not -BACK_S <= held_s <= _reordered_s(packet, REORDERED_S):
            packet.pts = packet.dts
            self._note("a time of showing was absurd and is not used", packet.dts, packet)

    def _offset_s(
        self, packet: Any, stamp_s: float, following: Callable[[], Sequence[float]]
    ) -> float:
        stream = packet.stream.index
        current_s = self._offsets_s[-1]
        own_s = self._next_s.get(stream)
        if own_s is not None and self._is_alone(packet, stamp_s, own_s, following):
            self._mends.note("a time stamp was wrong and is not used", own_s - self._start_s)
            return own_s - stamp_s
        if self._may_follow(packet, stamp_s + current_s):
            return current_s
        latest_s = max(self._next_s.values(), default=self._start_s)
        due_s = latest_s if own_s is None or own_s < latest_s - FITTING_S else own_s
        for known_s in reversed(self._offsets_s):
            if abs(stamp_s + known_s - due_s) < FITTING_S:
                self._offsets_s.remove(known_s)
                self._offsets_s.append(known_s)
                return known_s
        self._mends.note("the clock jumps, and goes on without", due_s - self._start_s)
        self.moved = True
        self._offsets_s.append(due_s - stamp_s)
        return due_s - stamp_s

    def _is_alone(
        self, packet: Any, stamp_s: float, own_s: float, following: Callable[[], Sequence[float]]
    ) -> bool:
        """Whether a stamp is far from the last one, and the next ones are not so."""
        current_s = self._offsets_s[-1]
        if stamp_s + current_s > own_s + AHEAD_S:
            back_s = BACK_SHOWN_S if packet.dts is not None else _reordered_s(packet, BACK_SHOWN_S)
            return any(later_s < stamp_s - back_s for later_s in following())
        if self._may_follow(packet, stamp_s + current_s):
            return False
        return any(abs(later_s + current_s - own_s) < AHEAD_S for later_s in following()[:SOON])

    def _may_follow(self, packet: Any, stamp_s: float) -> bool:
        last_s = self._last_s.get(packet.stream.index, self._start_s - self._hole_s)
        only_shown = packet.dts is None or self._only_shown.get(packet.stream.index, False)
        back_s = _reordered_s(packet, BACK_SHOWN_S) if only_shown else BACK_S
        latest_s = max(self._next_s.values(), default=self._start_s)
        return last_s - back_s <= stamp_s <= latest_s + self._hole_s

    def _note(self, what: str, ticks: int, packet: Any) -> None:
        self._mends.note(what, float(ticks * packet.time_base) - self._start_s)


def _reordered_s(packet: Any, at_least_s: float) -> float:
    return max(at_least_s, float(REORDERED * (packet.duration or 0) * packet.time_base))


def stamp(packet: Any) -> float | None:
    """Return when a packet is to be decoded, or shown if only that is known; None without."""
    ticks = packet.pts if packet.dts is None else packet.dts
    return None if ticks is None or packet.time_base is None else float(ticks * packet.time_base)
