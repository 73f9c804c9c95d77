"""The panel of figures: those of the last seconds, drawn at the canvas's top left."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from time import monotonic
from typing import Any

from denseav.export.runtime.bundle import SAMPLE_RATE_HZ, TOKEN_HOP_SAMPLES
from denseav.stream.display.drawing import GREY, WHITE, Canvas, panel, text, text_width, type_size
from denseav.stream.inference.validity import AUDIO_AGE_MAX_S
from denseav.stream.stats.source_health import SourceState
from denseav.stream.stats.stats import Snapshot

HOP_MS = 1000 * TOKEN_HOP_SAMPLES / SAMPLE_RATE_HZ
KEPT_SHARE = 0.9  # of the frames: with fewer, the machine is called too slow


class Hud:
    """Draws how the run is doing.

    Parameters
    ----------
    backend, precision : what computes, as the session says.
    sources : the names of the camera, microphone or file.
    states : gives the states of those of them that may fail.
    room : what was learned of it, if that was asked for.
    """

    def __init__(
        self,
        backend: str,
        precision: str,
        sources: Sequence[str],
        states: Callable[[], Sequence[SourceState]] = tuple,
        room: str | None = None,
    ) -> None:
        self._states = states
        self._fixed = [("runs on", f"{backend}, {precision}")]
        for i, name in enumerate(sources):
            readable = name.encode(errors="replace").decode()  # a path need not be Unicode
            self._fixed.append(("source" if i == 0 else "", readable))
        if room is not None:
            self._fixed.append(("room", room))

    def rows(self, snapshot: Snapshot) -> list[tuple[str, str]]:
        """Return labels and values, top to bottom: faults, figures, and what stays."""
        faults = [("", each.words(monotonic())) for each in self._states() if not each.is_well]
        return [*faults, *hud_rows(snapshot), *self._fixed]

    def status(self, snapshot: Snapshot) -> dict[str, Any]:
        """Return the figures as data, with the panel's rows."""
        return asdict(snapshot) | {"rows": self.rows(snapshot)}

    def draw(self, canvas: Canvas, snapshot: Snapshot) -> None:
        """Draw on the canvas, in place; nothing where it is too small for type."""
        size = type_size(canvas)
        if not size:
            return
        rows = self.rows(snapshot)
        gap, line = size, round(1.5 * size)
        rows = rows[: int(0.45 * canvas.shape[0] / line)]  # the lower half is the picture's
        labels = max(text_width(label, size) for label, _ in rows) + gap
        space = canvas.shape[1] - 4 * gap - labels
        rows = [(label, _fitted(value, size, space)) for label, value in rows]
        values = max(text_width(value, size) for _, value in rows)
        values += -values % (4 * size)  # in steps, so that the panel does not quiver
        width = min(labels + values + 2 * gap, canvas.shape[1] - 2 * gap)
        panel(canvas, gap, gap, width, line * len(rows) + gap, radius=size // 2)
        for i, (label, value) in enumerate(rows):
            baseline = gap + gap // 2 + line * i + round(1.1 * size)
            text(canvas, 2 * gap, baseline, label, size, GREY)
            text(canvas, 2 * gap + labels, baseline, value, size, WHITE)


def marked_stale(canvas: Canvas, words: str) -> Canvas:
    """Return a copy of the last canvas that nobody takes for a new one: dark, and saying why."""
    stale = (canvas // 3).astype(canvas.dtype)
    size = type_size(stale)
    if size:
        words = _fitted(words, size, stale.shape[1] - 4 * size)
        left = (stale.shape[1] - text_width(words, size)) // 2
        text(stale, left, stale.shape[0] // 2, words, size, WHITE)
    return stale


def hud_rows(snapshot: Snapshot) -> list[tuple[str, str]]:
    """Return the labels and values that change, top to bottom."""
    p50, p95 = _ms(snapshot.latency_p50_ms), _ms(snapshot.latency_p95_ms)
    slow = ", too slow for more" if snapshot.fps_out < KEPT_SHARE * snapshot.fps_in else ""
    return [
        ("frames", f"{snapshot.fps_out:.1f} of {snapshot.fps_in:.1f} fps{slow}"),
        ("latency", f"{p50}, p95 {p95}"),
        ("sound", _sound(snapshot)),
        ("dropped", _drops(snapshot.drops)),
    ]


def _sound(snapshot: Snapshot) -> str:
    age_ms, skew_ms = snapshot.audio_age_ms, snapshot.av_skew_ms
    if age_ms is None:
        return "none yet"
    words = f"{age_ms:.0f} ms old"
    if skew_ms is not None:
        words += f", {skew_ms:+.0f} ms to its picture"
    if skew_ms is not None and skew_ms < -1000 * AUDIO_AGE_MAX_S:
        words += ": too old to show heat"
    hop_ms = snapshot.gauges.get("hop_ms") or HOP_MS
    return words if hop_ms <= HOP_MS else f"{words}, every {hop_ms:.0f} ms: too slow for more"


def _ms(value_ms: float | None) -> str:
    return "-" if value_ms is None else f"{value_ms:.0f} ms"


def _drops(drops: Mapping[str, int]) -> str:
    causes = {cause: count for cause, count in sorted(drops.items()) if count}
    if not causes:
        return "none"
    listed = ", ".join(f"{count} {cause.replace('_', ' ')}" for cause, count in causes.items())
    return listed if len(causes) == 1 else f"{sum(causes.values())}: {listed}"


@lru_cache(maxsize=64)
def _fitted(value: str, size: int, space: int) -> str:
    """Leave out the middle of a value that is more than `space` pixels wide."""
    if text_width(value, size) <= space:
        return value
    for kept in range(len(value) - 1, 1, -1):
        end = kept // 2
        short = f"{value[: kept - end]}...{value[len(value) - end :]}"
        if text_width(short, size) <= space:
            return short
    return "..."
