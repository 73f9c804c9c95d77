"""`denseav-live --bench`: the live run itself, once with each setting; a table and a CDF leave.

Figures begin at the first heatmap that is worth announcing: loading and warming up are no part
of them. A setting that cannot run here has its reason in the table, and the others go on.
"""

import csv
import io
import itertools
import json
import math
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from denseav.export.runtime.bundle import BundleError
from denseav.export.terminal_text import safe_console, safe_text
from denseav.stream.app.build import print_ready, run
from denseav.stream.cli.live_options import parse
from denseav.stream.errors import OutputError, SloError, SourceError, StreamError, UsageError
from denseav.stream.options import LiveOptions
from denseav.stream.sources.camera import public_name
from denseav.stream.stats.json_lines import check_destination
from denseav.stream.stats.stats import Stats

START_S = 60.0  # for the first heatmap with sound: a large model takes seconds for one pass
_WIDTH = 120


@dataclass(frozen=True, kw_only=True)
class _Case:
    """One setting: its name, and all the options that make it."""

    name: str
    options: LiveOptions


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What one case came to: its report and its sorted latencies, or why there are none."""

    name: str
    report: dict[str, Any] = field(default_factory=dict)
    latencies_ms: dict[str, list[float]] = field(default_factory=dict)
    error: StreamError | BundleError | None = None

    @property
    def p99_ms(self) -> float:
        """The p99 of the way that takes longest; without any heatmap it is infinite."""
        if not self.report["frames_out"]:
            return math.inf
        return max(latency["p99"] or 0.0 for latency in self.report["latency_ms"].values())


def bench(
    arguments: Sequence[str] | None,
    options: LiveOptions,
    stop: threading.Event,
    opened: threading.Event,
) -> None:
    """Measure every setting, print the table, and write what was asked for.

    Parameters
    ----------
    arguments : the command line that `options` were parsed from; None for this process's.
    stop, opened : as `app.build.run` has them; a stop leaves out the settings not yet begun.

    Raises
    ------
    StreamError, BundleError
        The first reason why a setting could not be measured, after all others were; else an
        SloError when one was slower than `--slo-ms`.
    """
    cases = list(_cases(sys.argv[1:] if arguments is None else arguments, options))
    for path in (options.bench.cdf, options.stats_json):
        if path is not None:
            check_destination(path)
    outcomes = list(_measured(cases, stop, opened))
    console = safe_console(stderr=options.stats_json == "-", width=_WIDTH)
    console.print(_table(outcomes))
    for outcome in outcomes:
        if outcome.error is not None:
            console.print(f"{outcome.name}: {outcome.error}", soft_wrap=True, markup=False)
    measured = [outcome for outcome in outcomes if outcome.error is None]
    if options.bench.cdf is not None:
        _write(options.bench.cdf, _cdf(measured))
    if options.stats_json is not None:
        records = (json.dumps({"setting": found.name} | found.report) for found in measured)
        _write(options.stats_json, (f"{record}\n" for record in records))
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
        slo_ms = options.bench.slo_ms
        if slo_ms is not None and outcome.p99_ms > slo_ms:
            raise SloError(f"p99 of {outcome.p99_ms:.1f} ms is over {slo_ms:g} ms ({outcome.name})")


def _cases(arguments: Sequence[str], options: LiveOptions) -> Iterator[_Case]:
    """Yield every combination; each is parsed like a command line, so that its errors are too."""
    over = options.bench.over
    if "camera" in over and len(options.sources.cameras) > 1:
        raise UsageError("--bench-over camera=… tries one at a time; leave --camera out")
    for values in itertools.product(*over.values()):
        chosen = [f"{option}={value}" for option, value in zip(over, values, strict=True)]
        case = parse([*arguments, *(f"--{each}" for each in chosen)])
        if "camera" in over:
            case = replace(case, sources=replace(case.sources, cameras=case.sources.cameras[-1:]))
        seconds = START_S + _seconds(case)
        case = replace(case, seconds=seconds, stats_json=None)
        shown = " ".join(itertools.starmap(_shown, zip(over, values, strict=True)))
        yield _Case(name=shown or "as given", options=case)


def _seconds(options: LiveOptions) -> float:
    assert options.bench.bench is not None
    return options.bench.bench


def _shown(option: str, value: str) -> str:
    return f"{option}={public_name(value) if option == 'camera' else safe_text(value)}"


def _measured(
    cases: Sequence[_Case], stop: threading.Event, opened: threading.Event
) -> Iterator[_Outcome]:
    ends = [threading.Event() for _ in cases]  # the end of one run is not the end of the next

    def pass_on() -> None:
        stop.wait()
        for end in ends:
            end.set()

    threading.Thread(target=pass_on, name="bench", daemon=True).start()
    for case, end in zip(cases, ends, strict=True):
        if stop.is_set():
            return
        outcome = _measure(case, end, opened)
        opened.set()  # from now on there is something to be told, whatever is being opened
        if outcome is not None:
            yield outcome


def _measure(case: _Case, end: threading.Event, opened: threading.Event) -> _Outcome | None:
    """Run one case; None when it was stopped before there was anything to measure."""
    stats, begun = Stats(), threading.Event()
    timer = threading.Timer(_seconds(case.options), end.set)
    timer.daemon = True

    def begin(inputs: str) -> None:
        print_ready(inputs)
        stats.restart()
        timer.start()
        begun.set()

    try:
        report = run(case.options, end, opened, stats=stats, on_ready=begin)
        if not begun.is_set():
            if end.is_set():
                return None
            raise SourceError("no heatmap came, or none that was compared with sound")
    except (StreamError, BundleError) as error:
        # What led to it holds the session, and the next case wants its memory.
        error.__traceback__ = error.__cause__ = error.__context__ = None
        return _Outcome(name=case.name, error=error)
    finally:
        timer.cancel()
        end.set()  # who waits for it holds the session too
    return _Outcome(name=case.name, report=report, latencies_ms=stats.latencies_ms())


def _table(outcomes: Sequence[_Outcome]) -> Table:
    table = Table(title="milliseconds from capture, and in each stage", title_justify="left")
    for column in ("setting", "runs on", "frames/s", "dropped", "way or stage"):
        table.add_column(column)
    for column in ("p50", "p95", "p99"):
        table.add_column(column, justify="right")
    for outcome in outcomes:
        if outcome.error is not None:
            table.add_row(outcome.name, "not measured, see below", end_section=True)
            continue
        about = _about(outcome)
        for name, values_ms in _kinds(outcome.report):
            table.add_row(*about, name, *map(_ms, values_ms.values()))
            about = [""] * len(about)
        table.add_section()
    return table


def _about(outcome: _Outcome) -> list[str]:
    report = outcome.report
    drops = (f"{count} {cause}" for cause, count in sorted(report["drops"].items()))
    return [
        outcome.name,
        f"{report['backend']}, {report['precision']}",
        f"{report['fps']:.1f} of {report['fps_in']:.1f}",
        ", ".join(drops) or "0",
    ]


def _kinds(report: dict[str, Any]) -> list[tuple[str, dict[str, float | None]]]:
    """Return the ways there were and the stages, each with its percentiles."""
    ways = [(name.replace("_", " "), values) for name, values in report["latency_ms"].items()]
    kinds = [*ways, *sorted(report["stage_ms"].items())]
    return [(name, values) for name, values in kinds if values["p50"] is not None]


def _ms(value_ms: float | None) -> str:
    return "-" if value_ms is None else f"{value_ms:.1f}"


def _cdf(outcomes: Sequence[_Outcome]) -> Iterator[str]:
    """Yield CSV lines: the share of frames that took at most so long."""
    yield _row("setting", "latency", "ms", "share")
    for outcome in outcomes:
        for way, latencies_ms in outcome.latencies_ms.items():
            for rank, latency_ms in enumerate(latencies_ms, 1):
                share = f"{rank / len(latencies_ms):.5f}"
                yield _row(outcome.name, way, f"{latency_ms:.3f}", share)


def _row(*cells: str) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


def _write(destination: str, lines: Iterable[str]) -> None:
    try:
        if destination == "-":
            sys.stdout.writelines(lines)
            sys.stdout.flush()
        else:
            with Path(destination).open("w") as file:
                file.writelines(lines)
    except OSError as error:
        raise OutputError(
            f"cannot write {destination} ({error.strerror}); choose another path"
        ) from None
