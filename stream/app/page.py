"""The page for browsers from its options; a web server is loaded where one was asked for."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

from denseav.export.runtime.bundle import Manifest
from denseav.stream.app.mosaic import Mosaic
from denseav.stream.app.view import View
from denseav.stream.display.hud import Hud
from denseav.stream.errors import StreamError
from denseav.stream.options import PageOptions
from denseav.stream.stats.source_health import SourceHealth
from denseav.stream.stats.stats import Stats

if TYPE_CHECKING:
    from denseav.stream.web.browser_camera import BrowserCamera
    from denseav.stream.web.server import PageServer

BROWSER = "browser"  # as a camera's name


class RunState:
    """What a page says of a run, as JSON takes it, each time it is asked.

    Parameters
    ----------
    hud, stats, health : say how it is doing.

    Attributes
    ----------
    view : what shows and records it, once there is one.
    viewed : takes what a viewer has drawn.
    """

    def __init__(self, hud: Hud, stats: Stats, health: SourceHealth) -> None:
        self.view: View | None = None
        self.viewed = stats.viewed
        self._hud = hud
        self._stats = stats
        self._health = health

    def __call__(self) -> dict[str, Any]:
        """Return it. Any thread."""
        now_s, view = monotonic(), self.view
        sources = [
            {"kind": each.kind, "words": each.words(now_s), "state": each.state.value}
            for each in self._health.states()
        ]
        state = {"rows": self._hud.rows(self._stats.snapshot()), "sources": sources}
        if view is None or view.tuning is None:
            return state
        return {**state, "recording": view.is_recording, "tuning": view.tuning.state()}


def browser_camera(health: SourceHealth, stats: Stats, number: int = 0) -> "BrowserCamera":
    """Return the source that a browser's camera and microphone come in by, as that camera.

    Raises
    ------
    StreamError
        When the extra is not installed.
    """
    with _extra():
        from denseav.stream.web.browser_camera import BrowserCamera
    return BrowserCamera(health, drop=stats.drop, number=number)


def open_page(
    options: PageOptions,
    manifest: Manifest | None,
    state: "RunState | None" = None,
    camera: "BrowserCamera | None" = None,
    features: bool = False,
    mosaic: Mosaic | None = None,
) -> "PageServer":
    """Begin to serve, and print where.

    Parameters
    ----------
    manifest : of the model that runs; None where none does.
    state : of the run; None where none goes on.
    camera : as in `web.server.Page`.
    features : whether the run shows features.
    mosaic : the tiles of several cameras, whose names the page says.

    Raises
    ------
    StreamError
        When the extra is not installed, or the page cannot be served as asked.
    """
    with _extra():
        from denseav.stream.web.open import about_model
        from denseav.stream.web.open import open_page as open_server
    nothing: Mapping[str, Any] = {"model": "none", "note": "", "heads": []}
    about = nothing if manifest is None else about_model(manifest)
    tiles = mosaic and {"columns": mosaic.columns, "names": list(mosaic.names)}
    about = {**about, "tiles": tiles}
    if state is None:
        return open_server(options, about, lambda: {"rows": []}, print_with_token, camera=camera)
    return open_server(options, about, state, print_with_token, state.viewed, camera, features)


def print_with_token(lines: str) -> None:
    """Print our own words as they are: an address with its token is among them."""
    print(f"denseav-live: {lines}", file=sys.stderr, flush=True)  # noqa: T201


@contextmanager
def _extra() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise StreamError(
            f"--serve needs the extra `web` ({error}); in a clone of denseav: pip install '.[web]'"
        ) from None
