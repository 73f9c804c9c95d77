"""Who may look: each request in, what is refused out, with a line that says why.

This machine's own browsers need nothing. From elsewhere a token is needed, once in the address,
then in a cookie. A name that another site points at this machine is refused by its Host header,
another site's page by its Origin, a flood by its rate. Nothing here knows what is shown.
"""

import ipaddress
import secrets
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from time import monotonic

from aiohttp import web
from aiohttp.typedefs import Middleware

REQUESTS_PER_S, REQUESTS_BURST = 20.0, 100.0
FAILURES_PER_S, FAILURES_BURST = 0.1, 10.0
ADDRESSES_MAX = 1024  # whose rates are remembered
COOKIE_S = 7 * 24 * 3600
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' blob: data:; media-src 'self' blob:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "camera=(self), microphone=(self), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the token is in the address
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def is_loopback(host: str) -> bool:
    """Return whether an address is this machine's alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Rate:
    """Lets so many a second through, by address, with some in reserve."""

    def __init__(self, per_s: float, burst: float, clock: Callable[[], float] = monotonic) -> None:
        self._per_s = per_s
        self._burst = burst
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, address: str, cost: float = 1.0) -> bool:
        """Take `cost` of what this address has left; False, and nothing taken, if it is less."""
        now_s = self._clock()
        left, seen_s = self._left.pop(address, (self._burst, now_s))
        left = min(self._burst, left + self._per_s * (now_s - seen_s))
        allowed = left >= cost
        self._left[address] = (left - cost if allowed else left, now_s)
        if len(self._left) > ADDRESSES_MAX:
            self._left.popitem(last=False)
        return allowed


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may look.

    Attributes
    ----------
    token : what others than this machine have to bring; None where only it can connect.
    names : host names that the server answers to, beside addresses and localhost.
    cookie : the cookie's name.
    """

    token: str | None
    names: frozenset[str]
    cookie: str

    def knows_host(self, host: str) -> bool:
        """Return whether a Host header names this machine: by address, or by a name of its own.

        A browser that followed another site's name here says that name.
        """
        name = _host_name(host)
        if name in self.names or name == "localhost":
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def knows_token(self, request: web.Request) -> bool:
        """Return whether a request brings the token, in its cookie or its address."""
        if self.token is None:
            return True
        given = (request.cookies.get(self.cookie, ""), request.query.get("token", ""))
        wanted = self.token.encode()
        return any(secrets.compare_digest(each.encode(), wanted) for each in given)

    def middleware(self) -> Middleware:
        """Return what stands before every handler."""
        requests = Rate(REQUESTS_PER_S, REQUESTS_BURST)
        failures = Rate(FAILURES_PER_S, FAILURES_BURST)

        @web.middleware
        async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
            refusal = self._refusal(request, requests, failures)
            try:
                response = await handler(request) if refusal is None else refusal
            except web.HTTPException as error:
                response = refused(HTTPStatus(error.status), error.reason)
            if not response.prepared:
                response.headers.update(HEADERS)
            return response

        return check

    def _refusal(
        self, request: web.Request, requests: Rate, failures: Rate
    ) -> web.StreamResponse | None:
        address = request.remote or ""
        if not requests.allows(address):
            return refused(HTTPStatus.TOO_MANY_REQUESTS, "too many requests; wait a moment")
        if not self.knows_host(request.host):
            return refused(
                HTTPStatus.MISDIRECTED_REQUEST,
                "this name is not one of the machine's; use the address that denseav-live printed",
            )
        origin = request.headers.get("Origin")
        if origin is not None and origin != f"{request.scheme}://{request.host}":
            return refused(HTTPStatus.FORBIDDEN, "another site's page may not ask")
        if not self.knows_token(request):
            if not failures.allows(address):
                return refused(HTTPStatus.TOO_MANY_REQUESTS, "too many wrong tokens; wait a minute")
            return refused(
                HTTPStatus.FORBIDDEN,
                "the token is missing, or of an earlier start; open the address that "
                "denseav-live printed at this one, or scan its code again",
            )
        return None

    def keep(self, request: web.Request, response: web.Response) -> web.Response:
        """Give a browser that brought the token in its address a cookie with it."""
        if self.token is not None and request.query.get("token"):
            response.set_cookie(
                self.cookie,
                self.token,
                max_age=COOKIE_S,
                httponly=True,
                samesite="Strict",
                secure=request.secure,
            )
        return response


def refused(status: HTTPStatus, line: str) -> web.Response:
    """Return an answer of one line."""
    return web.Response(status=status, text=f"denseav: {line}\n")


def own_names() -> frozenset[str]:
    """Return the names that this machine has for itself."""
    name = socket.gethostname().lower()
    return frozenset({name, f"{name}.local", name.partition(".")[0]} - {""})


def _host_name(host: str) -> str:
    """Return a Host header without its port, and an IPv6 address without its brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()
