"""`PageOptions` in; the page's server, open, out, and for people where it is."""

import io
import secrets
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import segno

from denseav.export.runtime.bundle import Manifest
from denseav.stream.display.drawing import head_colours
from denseav.stream.options import PageOptions
from denseav.stream.web.access import Access, is_loopback, own_names
from denseav.stream.web.browser_camera import BrowserCamera
from denseav.stream.web.certificate import default_path, made_once, tls_context
from denseav.stream.web.server import Address, Page, PageServer

EVERY_ADDRESS = ("0.0.0.0", "::", "")
_ELSEWHERE = ("192.0.2.1", 9)  # for documentation; no packet is sent to learn the way there


def open_page(
    options: PageOptions,
    about: Mapping[str, Any],
    state: Callable[[], Mapping[str, Any]],
    announce: Callable[[str], None],
    viewed: Callable[[float, float], None] = lambda _capture_s, _done_s: None,
    camera: BrowserCamera | None = None,
    features: bool = False,
) -> PageServer:
    """Begin to serve the page, and say where; as a code to scan too, where phones can come.

    Parameters
    ----------
    about, state, viewed : as in `Page`.
    camera : takes a browser's camera and microphone, where that is what the run looks at.
    features : whether the run shows features anyhow, so that every viewer may have them.
    announce : called with lines for people, which hold the token.

    Raises
    ------
    OutputError
        When the port cannot be had, or no certificate be kept.
    UsageError
        When a certificate that was given cannot be used.
    """
    assert options.serve is not None
    host, port = options.serve
    names, token, tls, fingerprint = own_names(), None, None, ""
    if not is_loopback(host):
        addresses = {host, own_address()} - set(EVERY_ADDRESS)
        file = options.serve_cert or made_once(
            default_path(), sorted({*names, *addresses, "localhost", "127.0.0.1"})
        )
        tls, fingerprint = tls_context(file)
        names |= addresses
        token = secrets.token_urlsafe(16)
    access = Access(token=token, names=frozenset(names), cookie=f"denseav-{port}")
    page = Page(
        about=about,
        state=state,
        viewed=viewed,
        control=options.serve_control,
        features=options.serve_control or features,
        camera=camera,
    )
    server = PageServer(Address(host=host, port=port, access=access, tls=tls), page)
    if token is None:
        announce(f"serving the page at http://{_in_url(host)}:{server.port}/")
        return server
    shown = own_address() if host in EVERY_ADDRESS else host
    url = f"https://{_in_url(shown)}:{server.port}/?token={token}"
    announce(
        f"serving the page at {url}\n"
        f"its certificate's SHA-256 fingerprint is {fingerprint}\n{code(url)}"
    )
    return server


def own_address() -> str:
    """Return the address by which others reach this machine; 127.0.0.1 where nobody does."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(_ELSEWHERE)
        return str(probe.getsockname()[0])
    return "127.0.0.1"


def code(url: str) -> str:
    """Return a QR code for a terminal, in lines of half blocks."""
    drawn = io.StringIO()
    segno.make(url, micro=False).terminal(drawn, compact=True)
    return drawn.getvalue()


def about_model(manifest: Manifest) -> dict[str, object]:
    """Return what a page says of a model, as JSON takes it."""
    colours = head_colours([head.name for head in manifest.heads])
    if not manifest.trained:
        note = "Untrained: its weights are random, and so is what it shows."
    elif manifest.model == "demo":
        note = "The demo's model knows only a drawn world of sixteen things, and nothing else."
    else:
        note = ""
    return {
        "model": manifest.model,
        "note": note,
        "heads": [
            {"name": head.name, "colour": f"#{red:02x}{green:02x}{blue:02x}"}
            for head, (blue, green, red) in zip(manifest.heads, colours, strict=True)
        ],
    }


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
