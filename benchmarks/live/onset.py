"""How long from a sound's onset to its head's rise, and from an object's move to the map's.

`denseav-live` plays a clip whose truth is known and publishes its heatmaps; this reads them as a
robot would. A head has risen when its score is half way from what it was before the onset to what
it is half a second later. A map has followed when its peak fits best where the object was. Both
end when the message is published; offsets are counted from the moment the clip's own time plays.

The truth is JSON with `frame_rate` and `events`, each with `name`, `head`, `start_s`, `stop_s` and
`boxes`: `[time_s, left, top, right, bottom]`, pixels. Options after `--` go to `denseav-live`.

Axes: N messages, G lags.
"""

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.support.common import ROOT, finish, program, say
from denseav.stream.feed.client import HeatmapSubscriber, HeatMessage

DEMO = ROOT / "stream" / "demo" / "clip.mp4"
BEFORE_S = 0.5
RISE_MAX_S = 2.0
SETTLED_S = 0.5  # after an onset the level is what it will be
LEAST_RISE = 0.2  # of the span from a head's threshold to its ceiling: less is no rise
LEAST_MOVE = 0.25  # of the object's width
OFF_MAX = 0.5  # of the object's width, on average: a map farther off does not follow it
LAG_G = np.arange(0.0, 1.0, 0.01)


@dataclass(frozen=True)
class Heads:
    """What the messages said of one head.

    Attributes
    ----------
    publish_s_N : when, in seconds of the clip that was playing.
    score_N : of the hottest cell; the threshold where the head was not valid.
    peak_N2 : its place in pixels; NaN where there is none.
    span : from the threshold to the ceiling.
    """

    publish_s_N: NDArray[np.float64]
    score_N: NDArray[np.float64]
    peak_N2: NDArray[np.float64]
    span: float


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a bundle; default: the demo's")
    parser.add_argument("--clip", type=Path, default=DEMO, help="default: the demo's")
    parser.add_argument("--truth", type=Path, help="default: the clip's name with .json")
    parser.add_argument("--port", type=int, default=5571, help="default: %(default)s")
    parser.add_argument("live", nargs="*", help="options of denseav-live, after --")
    options = parser.parse_args()
    truth = json.loads((options.truth or options.clip.with_suffix(".json")).read_text())
    messages = _run(options)
    if not messages:
        raise SystemExit("no heatmap was published")
    events = [_event(event, messages, truth["frame_rate"]) for event in truth["events"]]
    record = {
        "benchmark": "onset",
        "clip": options.clip.name,
        "model": messages[-1].header["model"],
        "live": options.live,
        "messages": len(messages),
        "capture_to_publish_ms": _middle([(m.publish_ns - m.capture_ns) / 1e6 for m in messages]),
        "onset_to_rise_ms": _middle([event["rise_ms"] for event in events]),
        "move_to_map_ms": _middle([event["move_ms"] for event in events]),
        "events": events,
    }
    return finish([_table(record)], record, [])


def _run(options: argparse.Namespace) -> list[HeatMessage]:
    """Play the clip once and return all messages."""
    endpoint = f"tcp://127.0.0.1:{options.port}"
    command = [program("denseav-live"), "--source", str(options.clip), "--headless"]
    command += ["--publish", endpoint, *options.live]
    if options.model is not None:
        command += ["--model", str(options.model)]
    say(" ".join(command))
    messages: list[HeatMessage] = []
    with HeatmapSubscriber(endpoint, tap=messages.append):
        ran = subprocess.run(command, stdout=sys.stderr, check=False)
    if ran.returncode:
        raise SystemExit(f"denseav-live ended with code {ran.returncode}")
    return messages


def _event(event: dict[str, Any], messages: list[HeatMessage], fps: float) -> dict[str, Any]:
    heads = _heads(messages, event["head"], fps)
    return {
        "name": event["name"],
        "head": event["head"],
        "start_s": event["start_s"],
        "rise_ms": rise_ms(heads, event["start_s"], event["stop_s"]),
        "move_ms": move_ms(heads, event),
    }


def _heads(messages: list[HeatMessage], name: str, fps: float) -> Heads:
    # The clip's own time of a frame is its index; that of the clock, its capture.
    begin_ns = statistics.median(m.capture_ns - 1e9 * m.header["frame"] / fps for m in messages)
    records = [m.heads[name] for m in messages]
    ceiling = next(h["ceiling"] for h in messages[0].header["heads"] if h["name"] == name)
    nowhere = (np.nan, np.nan)
    return Heads(
        publish_s_N=np.array([(m.publish_ns - begin_ns) / 1e9 for m in messages]),
        score_N=np.array([r.score if r.valid else r.threshold for r in records]),
        peak_N2=np.array([r.peak if r.peak else nowhere for r in records]),
        span=ceiling - records[0].threshold,
    )


def rise_ms(heads: Heads, start_s: float, stop_s: float) -> float | None:
    """Return how long after its onset a head had risen half way; None when it did not."""
    time_N = heads.publish_s_N
    before_N = heads.score_N[(time_N >= start_s - BEFORE_S) & (time_N < start_s)]
    end_s = min(stop_s, start_s + RISE_MAX_S)
    after_N = heads.score_N[(time_N >= start_s + SETTLED_S) & (time_N < end_s)]
    if not len(before_N) or not len(after_N):
        return None
    before, after = float(np.median(before_N)), float(np.median(after_N))
    if after - before < LEAST_RISE * heads.span:
        return None
    risen = (time_N >= start_s) & (heads.score_N >= (before + after) / 2)
    return round(1000 * float(time_N[risen][0] - start_s), 1)


def move_ms(heads: Heads, event: dict[str, Any]) -> float | None:
    """Return the lag at which the peak fits the object's way best.

    None when the object stands still or the map is not on it.
    """
    box_T5 = np.array(event["boxes"], np.float64)
    time_T = box_T5[:, 0]
    centre_T2 = np.stack([box_T5[:, [1, 3]].mean(axis=1), box_T5[:, [2, 4]].mean(axis=1)], axis=1)
    inside = (heads.publish_s_N >= event["start_s"] + SETTLED_S) & np.isfinite(heads.peak_N2[:, 0])
    inside &= heads.publish_s_N < event["stop_s"]
    width = float(np.mean(box_T5[:, 3] - box_T5[:, 1]))
    if inside.sum() < 10 or np.ptp(centre_T2, axis=0).max() < LEAST_MOVE * width:
        return None
    at_N, peak_N2 = heads.publish_s_N[inside], heads.peak_N2[inside]
    off_G = np.zeros(len(LAG_G))
    for g, lag_s in enumerate(LAG_G):
        way_N2 = [np.interp(at_N - lag_s, time_T, centre_T2[:, axis]) for axis in (0, 1)]
        off_G[g] = np.linalg.norm(peak_N2 - np.stack(way_N2, axis=1), axis=1).mean()
    if off_G.min() > OFF_MAX * width:
        return None
    return round(1000 * float(LAG_G[off_G.argmin()]), 1)


def _middle(values: list[float | None]) -> dict[str, float | int | None]:
    known = [value for value in values if value is not None]
    if not known:
        return {"count": 0, "p50": None, "p95": None}
    p50, p95 = np.percentile(known, (50, 95))
    return {"count": len(known), "p50": round(float(p50), 1), "p95": round(float(p95), 1)}


def _table(record: dict[str, Any]) -> Table:
    table = Table("event", "head", "at", "onset to rise", "move to map", title=record["clip"])
    for event in record["events"]:
        figures = [event["rise_ms"], event["move_ms"]]
        shown = ["-" if value is None else f"{value:.0f} ms" for value in figures]
        table.add_row(event["name"], event["head"], f"{event['start_s']:g} s", *shown)
    for key in ("onset_to_rise_ms", "move_to_map_ms", "capture_to_publish_ms"):
        middle = record[key]
        label = key.removesuffix("_ms").replace("_", " ")
        shown = "-" if middle["p50"] is None else f"{middle['p50']:.0f} / {middle['p95']:.0f} ms"
        table.add_row(f"{label}, p50 / p95 of {middle['count']}", "", "", shown, "")
    return table


if __name__ == "__main__":
    raise SystemExit(main())
