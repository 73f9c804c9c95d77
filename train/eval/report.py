"""Results: rows enter, a table for people and JSON for machines leave."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from denseav.models.checkpoints.atomic_files import replacing
from denseav.train.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number.

    Attributes
    ----------
    audio : what was heard: `clean`, or what was mixed in.
    head : `total` (all heads) or one head's name.
    value, low, high : in percent with their 95 % interval, which follows from resampling the
        `count` units; a threshold (in units of similarity) and a count have no interval.
    """

    data: str
    audio: str
    metric: str
    head: str
    value: float
    low: float | None = None
    high: float | None = None
    count: int
    unit: str


def tables(rows: Iterable[Row]) -> Iterator[Table]:
    """Yield a table for each set and way of hearing it: a line a metric, a column a head."""
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(f"{row.data}, {row.audio}", []).append(row)
    for title, found in parts.items():
        counts = dict.fromkeys(f"{row.count} {row.unit}" for row in found)
        title = ", ".join((title, *counts))
        shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        shown.add_column("metric")
        heads = dict.fromkeys(row.head for row in found)
        for head in heads:
            shown.add_column(head, justify="right")
        lines: dict[str, dict[str, Row]] = {}
        for row in found:
            lines.setdefault(row.metric, {})[row.head] = row
        for metric, row_of in lines.items():
            shown.add_row(metric, *(_cell(row_of.get(head)) for head in heads))
        yield shown


def write_json(path: Path, about: dict[str, Any], rows: Iterable[Row]) -> None:
    """Write everything, whole or not at all.

    Raises
    ------
    DataError
        When it cannot be written.
    """
    text = json.dumps({**about, "results": [asdict(row) for row in rows]}, indent=2, default=str)
    try:
        with replacing(path) as partial:
            partial.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error}); name another with --json") from None


def _cell(row: Row | None) -> str:
    """Return a number and its interval, for people."""
    if row is None:
        return ""
    if row.low is None or row.high is None:
        return f"{row.value:.4g}"
    return f"{row.value:.1f} {row.low:.1f}-{row.high:.1f}"
