"""The table of `watch`: a feed's messages in, what Rich shows in a terminal out.

Messages come in on the subscriber's thread, the table is made on another. What a feed says is text
and never markup.
"""

from collections import deque
from threading import Lock
from time import monotonic

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from denseav.export.terminal_text import safe_text
from denseav.stream.feed.client import (
    FeedStaleError,
    HeatmapSubscriber,
    HeatMessage,
    StatusMessage,
    StatusSubscriber,
)

_RATE_S = 2.0
_CAMERAS_MAX = 64
_COLOURS = {"live": "green", "replay": "magenta", "excellent": "green", "fair": "yellow"}


class Watch:
    """What the table shows."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._received_s: deque[float] = deque(maxlen=1000)
        self._last: HeatMessage | None = None
        self._cameras: dict[str, float] = {}  # when each gave something last

    def add(self, message: HeatMessage) -> None:
        """Take a heat message; on the receiving thread."""
        with self._lock:
            self._last = message
            self._received_s.append(monotonic())
            self._cameras[message.header["camera"]] = monotonic()
            if len(self._cameras) > _CAMERAS_MAX:
                del self._cameras[next(iter(self._cameras))]

    def table(self, heat: HeatmapSubscriber, status: StatusSubscriber) -> RenderableType:
        """Return what to show now.

        Parameters
        ----------
        heat, status : the subscribers of the feed's two endpoints.

        Raises
        ------
        FeedError
            When the connection is refused or what comes is no feed.
        """
        cameras = self._recent_cameras()
        if len(cameras) > 1:
            names = safe_text(", ".join(cameras))
            return Text(f"several cameras: {names}; watch one with --camera NAME", style="yellow")
        parts: list[RenderableType] = []
        try:
            parts.append(_state(status.read_latest(max_age_ms=1500, timeout_ms=0)))
            heat.read_latest(max_age_ms=500, timeout_ms=0)
        except FeedStaleError as error:
            parts.append(Text(safe_text(error), style="red"))
        with self._lock:
            last, received_s = self._last, list(self._received_s)
        if last is not None:
            recent = sum(each_s > monotonic() - _RATE_S for each_s in received_s)
            parts += [_heads(last), _line(last, heat, recent / _RATE_S)]
        return Group(*parts)

    def _recent_cameras(self) -> list[str]:
        since_s = monotonic() - _RATE_S
        with self._lock:
            return sorted(name for name, last_s in self._cameras.items() if last_s > since_s)


def _line(message: HeatMessage, heat: HeatmapSubscriber, rate: float) -> Text:
    width, height = message.frame_size
    return Text(
        f"{safe_text(message.header['camera'])} {width}x{height}  {rate:.0f}/s  "
        f"age {heat.age_ms(message):.0f} ms  gaps {heat.gaps}  "
        f"restarts {heat.restarts}  run {safe_text(message.run[:8])}  #{message.sequence}"
    )


def _state(status: StatusMessage) -> Text:
    sound = status.header.get("audio_dbfs")
    line = Text.assemble(
        (safe_text(status.state), _COLOURS.get(status.state, "red")),
        "  health ",
        (safe_text(status.health), _COLOURS.get(status.health, "red")),
    )
    line.append(f"  sound {sound:.0f} dBFS" if isinstance(sound, float) else "")
    for name in ("fps_in", "fps_out", "fps_published", "subscribers"):
        value = status.header.get(name)
        if isinstance(value, int | float):
            line.append(f"  {name} {value:g}")
    for source in status.sources:
        if source.state != "running":
            what = safe_text(f"{source.kind} {source.state}")
            line.append(f"  {what} for {source.for_ms / 1000:.0f} s", "red")
    return line


def _heads(message: HeatMessage) -> Table:
    table = Table("head", "valid", "score", "threshold", "peak x y", "box left top right bottom")
    for head in message.heads.values():
        table.add_row(
            Text(safe_text(head.name)),
            "yes" if head.valid else "no",
            f"{head.score:.3f}",
            f"{head.threshold:.3f}",
            _places(head.peak),
            _places(head.box),
            style="bold" if head.box else None,
        )
    return table


def _places(values: tuple[float, ...] | None) -> str:
    return "-" if values is None else " ".join(f"{value:.0f}" for value in values)
