"""The connections of one bound socket: subscriptions in, how many listen out; each one bounded.

libzmq takes any number of connections, and from each any number of subscriptions. What is over a
limit is ended by its descriptor, and it alone; a good client that was hit by it connects again. One
thread uses this; it knows nothing of what is sent.
"""

import errno
from collections.abc import Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from denseav.export.process_limits import descriptors_are_few, end_connection

SUBSCRIPTIONS_MAX = 64  # of one connection
IDLE_MAX = 64  # connections that have not subscribed; the oldest go first
CONNECTIONS_MAX = 128
TOPIC_BYTES = 32
_AT_ONCE = 1_000
_CLOSING_S, _QUIET_MS = 1.0, 10
_EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_ACCEPT_FAILED


@dataclass
class _Peer:
    user: bytes = b""
    subscriptions: int = 0


class Peers:
    """Who is connected to a socket.

    Parameters
    ----------
    socket : an XPUB socket, not yet bound.
    topics : of what it sends; only their prefixes count as subscriptions.
    port : that it will be bound to.

    `subscribers` counts who listens.
    """

    def __init__(self, socket: "zmq.Socket[bytes]", topics: Sequence[bytes], port: int) -> None:
        self.subscribers = 0
        self._socket = socket
        self._topics = [topic.ljust(TOPIC_BYTES, b"\0") for topic in topics]
        self._port = port
        self._monitor: zmq.Socket[bytes] = socket.get_monitor_socket(_EVENTS)
        self._open: dict[int, _Peer] = {}  # by descriptor, in the order of their coming

    def look(self) -> None:
        """Hear who has come, subscribed and gone, and end what is over a limit."""
        frames = self._received()
        # After the frames: a descriptor's former owner has then gone before the new one subscribes.
        refused = self._note_connections()
        for frame in frames:
            self._take(frame)
        idle = [number for number, peer in self._open.items() if not peer.subscriptions]
        for number in idle if refused else idle[: max(0, len(idle) - IDLE_MAX)]:
            self._end(number)
        for number in list(self._open)[CONNECTIONS_MAX:]:
            self._end(number)

    def keep(self, authorised: Set[bytes]) -> None:
        """End the connections of clients whose keys, in Z85, are authorised no more."""
        for number, peer in list(self._open.items()):
            if peer.user and peer.user not in authorised:
                self._end(number)

    def close(self) -> None:
        """Watch no more and let nobody in; before the socket is closed."""
        with suppress(zmq.ZMQError):  # it was never bound
            self._socket.unbind(self._socket.get_string(zmq.LAST_ENDPOINT))
        end_s = monotonic() + _CLOSING_S
        while self._monitor.poll(_QUIET_MS) and monotonic() < end_s:
            self._note_connections()  # libzmq would wait with what is not read
        self._socket.disable_monitor()
        self._monitor.close()

    def _received(self) -> list[zmq.Frame]:
        frames: list[zmq.Frame] = []
        with suppress(zmq.Again):
            while len(frames) < _AT_ONCE:
                frames.append(self._socket.recv(zmq.NOBLOCK, copy=False))
        return frames

    def _note_connections(self) -> bool:
        """Return whether one could not be taken, or should not, because descriptors run out.

        While none is free, libzmq says so again and again, faster than it is read.
        """
        refused = False
        for _ in range(_AT_ONCE):
            if not self._monitor.poll(0):
                break
            event = recv_monitor_message(self._monitor)
            if event["event"] == zmq.EVENT_ACCEPTED:
                self._open[int(event["value"])] = _Peer()
                refused = refused or descriptors_are_few()
            elif event["event"] == zmq.EVENT_DISCONNECTED:
                self._open.pop(int(event["value"]), None)
            elif int(event["value"]) in (errno.EMFILE, errno.ENFILE):
                refused = True
        return refused

    def _take(self, frame: zmq.Frame) -> None:
        """Count a subscription, or one that was given up; who sends anything else is ended."""
        kind, prefix = frame.bytes[:1], frame.bytes[1:]
        change = {b"\x01": 1, b"\x00": -1}.get(kind, 0)
        if any(topic.startswith(prefix) for topic in self._topics):
            self.subscribers += change
        number = _property(frame, zmq.SRCFD)
        if number is None:  # libzmq itself gives up what a lost connection had
            return
        peer = self._open.get(number)
        if peer is None:  # it has been ended already
            return
        peer.subscriptions += change
        peer.user = str(_property(frame, "User-Id") or "").encode()
        over = peer.subscriptions > SUBSCRIPTIONS_MAX or len(prefix) > TOPIC_BYTES
        if over or not change:
            self._end(number)

    def _end(self, number: int) -> None:
        """End one connection, as libzmq cannot: it takes this for the peer's going."""
        self._open.pop(number, None)
        end_connection(number, self._port)


def _property(frame: zmq.Frame, name: int | str) -> Any:
    try:
        return frame.get(name)
    except zmq.ZMQError:
        return None
