"""libzmq's question who may connect enters, yes or no leaves (ZeroMQ's ZAP, RFC 27).

Every answer is read from the key folder anew, so that adding and revoking take effect at once.
Nothing here ever answers yes when in doubt: the first failure ends it, and with it the feed.
"""

import threading
from pathlib import Path

import zmq
import zmq.utils.z85

from denseav.stream.feed import keys as feed_keys
from denseav.stream.feed.errors import FeedAuthError

DOMAIN = b"denseav"
_LOOK_MS = 500  # how often the folder is looked at for keys that were revoked


class Authenticator:
    """Answers from the key folder, on a thread of its own.

    Parameters
    ----------
    context : of the sockets to guard; they set `DOMAIN` and enforce it.
    folder : as `feed_keys` makes it.

    `revoked` is set when a client that was let in is no longer authorised.
    """

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", folder: Path) -> None:
        self.revoked = threading.Event()
        self._folder = folder
        self._failure: FeedAuthError | None = None
        self._stop = threading.Event()
        self._let_in: set[bytes] = set()
        feed_keys.clients(folder)
        self._socket = context.socket(zmq.REP)
        self._socket.linger = 0
        self._socket.bind("inproc://zeromq.zap.01")
        self._thread = threading.Thread(target=self._guarded, name="feed-auth", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise FeedAuthError when keys can no longer be checked."""
        if self._failure is not None:
            raise self._failure
        if not self._thread.is_alive():
            raise FeedAuthError("the check of keys has ended, so the feed has stopped")

    def close(self) -> None:
        """Stop answering: from now on nobody is let in."""
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def _guarded(self) -> None:
        try:
            while not self._stop.is_set():
                self._step()
        except FeedAuthError as error:
            self._failure = error
        except BaseException as error:  # noqa: BLE001
            self._failure = FeedAuthError(f"the check of keys failed ({error!r}); start again")

    def _step(self) -> None:
        asked = self._socket.poll(_LOOK_MS)
        request = self._socket.recv_multipart() if asked else []
        try:
            authorised = set(feed_keys.clients(self._folder))
        except FeedAuthError:
            if request:
                self._answer(request, b"500")
            raise
        if request:
            key = _key(request)
            self._answer(request, b"200" if key in authorised else b"400")
            self._let_in |= {key} & authorised
        if self._let_in - authorised:
            self._let_in &= authorised
            self.revoked.set()

    def _answer(self, request: list[bytes], code: bytes) -> None:
        self._socket.send_multipart([b"1.0", request[1], code, b"", b"", b""])


def _key(request: list[bytes]) -> bytes:
    """Return the client's public key, or nothing that is ever authorised."""
    if len(request) != 7 or request[2] != DOMAIN or request[5] != b"CURVE" or len(request[6]) != 32:
        return b""
    return zmq.utils.z85.encode(request[6])
