"""The check of clients' keys: a CURVE key in, whether it is authorised out (ZeroMQ's ZAP, RFC 27).

pyzmq asks on a thread of its own, once for each connection, and the answer is read from the key
folder anew, so that adding and revoking take effect at once. In doubt it is never yes. It knows
nothing of messages, nor of connections that have been let in.
"""

from collections.abc import Set
from contextlib import suppress
from pathlib import Path
from time import monotonic

import zmq
from zmq.auth.thread import ThreadAuthenticator

from denseav.stream.feed import keys as feed_keys
from denseav.stream.feed.errors import FeedAuthError

DOMAIN = "denseav"
LASTING_S = 5.0  # longer than a flood of connections may keep the folder from being opened


class Authenticator:
    """Answers from the key folder.

    Parameters
    ----------
    context : of the sockets to guard; they set `DOMAIN` and enforce it.
    folder : as `feed.keys` makes it.

    Raises
    ------
    FeedAuthError
        When the folder cannot be used.
    """

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", folder: Path) -> None:
        self._folder = folder
        self._failing_since_s: float | None = None
        feed_keys.clients(folder)
        self._zap = ThreadAuthenticator(context)
        self._zap.start()
        self._zap.configure_curve_callback(DOMAIN, self)

    def callback(self, _domain: str, key: bytes) -> bool:
        """Answer pyzmq whether a client with this key, in Z85, may connect."""
        with suppress(FeedAuthError):
            return key in feed_keys.clients(self._folder)
        return False

    def authorised(self) -> Set[bytes] | None:
        """Return the keys that are authorised now; None while that cannot be told for a moment.

        Raises
        ------
        FeedAuthError
            When it could not be told for `LASTING_S`, or nobody answers any more.
        """
        if not self._zap.is_alive():
            raise FeedAuthError("the check of keys has ended, so the feed has stopped")
        try:
            keys = feed_keys.clients(self._folder).keys()
        except FeedAuthError:
            now_s = monotonic()
            self._failing_since_s = self._failing_since_s or now_s
            if now_s - self._failing_since_s >= LASTING_S:
                raise
            return None
        self._failing_since_s = None
        return keys

    def close(self) -> None:
        """Stop answering: from now on nobody is let in."""
        self._zap.stop()
