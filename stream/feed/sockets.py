"""The two bound sockets of a feed: bytes of messages in, to subscribers out, and who may connect.

The heat endpoint is the one named; the status endpoint has the next port. Without keys only this
machine can connect, unless that is given up by name. It knows nothing of what messages say.
"""

import errno
import ipaddress
import re
import socket as net
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import zmq

from denseav.stream.errors import OutputError, UsageError
from denseav.stream.feed import keys as feed_keys
from denseav.stream.feed.auth import DOMAIN, Authenticator
from denseav.stream.feed.errors import FeedAuthError
from denseav.stream.feed.peers import Peers

_ENDPOINT = re.compile(r"tcp://(\[[0-9A-Fa-f:.]+\]|\*|[^\s:/\[\]]+):(\d{1,5})")
_HANDSHAKE_MS = 2_000
_BACKLOG = 1024  # who finds it full is not heard for a second, and each time for twice as long
_INCOMING_BYTES_MAX = 1024  # subscriptions, and what CURVE's handshake needs
_INCOMING_WAITING = 64  # of one connection, until `look`
_KEYS_S = 0.5  # between two looks for keys that were revoked


@dataclass(frozen=True)
class Endpoint:
    """Where to bind, with the address resolved; `loopback` when only this machine reaches it."""

    heat: str
    status: str
    loopback: bool


def resolve(text: str) -> Endpoint:
    """Return what `tcp://ADDRESS:PORT` names.

    Raises
    ------
    UsageError
        When it has another form.
    OutputError
        When the host's name cannot be resolved.
    """
    match = _ENDPOINT.fullmatch(text)
    port = int(match[2]) if match else 0
    if match is None or not 0 < port < 65535:
        raise UsageError(
            f"{text!r} is no endpoint: write an address and a port from 1 to 65534, as in "
            "tcp://127.0.0.1:5557 (the next port is for the status)"
        )
    host = "0.0.0.0" if match[1] == "*" else match[1].strip("[]")
    try:
        found = net.getaddrinfo(host, port, type=net.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise OutputError(
            f"cannot resolve the host {host!r} of {text}; write its numeric address"
        ) from None
    address = ipaddress.ip_address(str(found[0][4][0]).partition("%")[0])
    shown = f"[{address}]" if address.version == 6 else str(address)
    return Endpoint(f"tcp://{shown}:{port}", f"tcp://{shown}:{port + 1}", address.is_loopback)


class FeedSockets:
    """The bound sockets. Made by any thread, then used by one only.

    Parameters
    ----------
    endpoint : `tcp://ADDRESS:PORT`.
    camera_ids : as in the topics of all that will be sent.
    keys : the publisher's key folder; None for no keys.
    insecure : whether other machines may connect without keys.

    Raises
    ------
    StreamError
        When the endpoint cannot be bound, or would be open to others.
    """

    def __init__(
        self,
        endpoint: str,
        camera_ids: Sequence[str],
        keys: Path | None,
        insecure: bool = False,
    ) -> None:
        self.endpoint = resolve(endpoint)
        if keys is None and not self.endpoint.loopback and not insecure:
            raise FeedAuthError(
                f"other machines could read {endpoint} and nothing checks who they are; make keys "
                "with denseav-feed keys init and name their folder with --publish-keys, or spell "
                "out --insecure"
            )
        self._camera_ids = camera_ids
        self._pair = None if keys is None else feed_keys.server_pair(keys)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._authenticator: Authenticator | None = None
        self._sockets: list[zmq.Socket[bytes]] = []
        self._peers: list[Peers] = []
        self._keys_due_s = monotonic()
        try:
            if keys is not None:
                self._authenticator = Authenticator(self._context, keys)
            self._bind()
        except BaseException:
            self.close()
            raise

    @property
    def subscribers(self) -> int:
        """How many listen to the heatmaps, as of the last look."""
        return self._peers[0].subscribers if self._peers else 0

    def look(self) -> None:
        """Hear who has subscribed or gone; end what is over a limit, and clients that were revoked.

        Raises
        ------
        FeedAuthError
            When keys can no longer be checked: nothing may be sent any more.
        """
        for peers in self._peers:
            peers.look()
        if self._authenticator is not None and monotonic() >= self._keys_due_s:
            self._keys_due_s = monotonic() + _KEYS_S
            authorised = self._authenticator.authorised()
            if authorised is not None:
                for peers in self._peers:
                    peers.keep(authorised)

    def send_heat(self, message: bytes) -> None:
        """Give a heat message to who has subscribed; who cannot take it now goes without."""
        self._sockets[0].send(message, zmq.NOBLOCK)

    def send_status(self, message: bytes) -> None:
        """Give a status message to who has subscribed."""
        self._sockets[1].send(message, zmq.NOBLOCK)

    def close(self) -> None:
        """Unbind and drop every connection. May be called twice."""
        for peers in self._peers:
            peers.close()
        for socket in self._sockets:
            socket.close()
        self._peers.clear()
        self._sockets.clear()
        if self._authenticator is not None:
            self._authenticator.close()
            self._authenticator = None
        self._context.term()

    def _bind(self) -> None:
        for kind, endpoint in (("heat", self.endpoint.heat), ("status", self.endpoint.status)):
            socket = self._context.socket(zmq.XPUB)
            self._sockets.append(socket)
            self._set_options(socket)
            topics = [f"{kind}/{camera_id}".encode() for camera_id in self._camera_ids]
            self._peers.append(Peers(socket, topics, int(endpoint.rpartition(":")[2])))
            try:
                socket.bind(endpoint)
            except zmq.ZMQError as error:
                raise OutputError(_bind_failure(endpoint, error)) from None

    def _set_options(self, socket: "zmq.Socket[bytes]") -> None:
        """Set every option: libzmq takes no notice of those that come after binding."""
        socket.linger, socket.sndhwm, socket.ipv6 = 0, 2 * len(self._camera_ids), True
        socket.rcvhwm, socket.backlog = _INCOMING_WAITING, _BACKLOG
        socket.setsockopt(zmq.XPUB_VERBOSER, 1)  # so that subscribers can be counted
        socket.setsockopt(zmq.MAXMSGSIZE, _INCOMING_BYTES_MAX)
        socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
        socket.setsockopt(zmq.HEARTBEAT_IVL, 1_000)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3_000)
        if self._pair is not None:
            socket.curve_publickey, socket.curve_secretkey = self._pair
            socket.curve_server = True
            socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN.encode())
            socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


def _bind_failure(endpoint: str, error: zmq.ZMQError) -> str:
    remedies = {
        errno.EADDRINUSE: "the port is in use; stop the other program or choose another port",
        errno.EADDRNOTAVAIL: "this machine has no such address; write one that it has",
        errno.EACCES: "ports under 1024 are the administrator's; choose one above",
    }
    remedy = remedies.get(error.errno or 0, f"{error}; choose another address or port")
    return f"cannot publish at {endpoint}: {remedy}"
