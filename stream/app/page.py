"""The page for browsers from its options; a web server is loaded where one was asked for."""

import sys
from typing import TYPE_CHECKING

from denseav.export.runtime.bundle import Manifest
from denseav.stream.display.hud import Hud
from denseav.stream.errors import StreamError
from denseav.stream.options import PageOptions
from denseav.stream.stats.stats import Stats

if TYPE_CHECKING:
    from denseav.stream.web.server import PageServer


def open_page(options: PageOptions, manifest: Manifest, hud: Hud, stats: Stats) -> "PageServer":
    """Begin to serve, and print where.

    Raises
    ------
    StreamError
        When the extra is not installed, or the page cannot be served as asked.
    """
    try:
        from denseav.stream.web.open import open_page as open_server
    except ImportError as error:
        raise StreamError(
            f"--serve needs the extra `web` ({error}); in a clone of denseav: pip install '.[web]'"
        ) from None
    return open_server(
        options, manifest, lambda: {"rows": hud.rows(stats.snapshot())}, print_with_token
    )


def print_with_token(lines: str) -> None:
    """Print our own words as they are: an address with its token is among them."""
    print(f"denseav-live: {lines}", file=sys.stderr, flush=True)  # noqa: T201
