"""The endpoint for Prometheus: a run's figures in, text over HTTP out, to this machine alone.

It serves on threads of its own, few and none for long, whoever connects.
"""

import errno
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from io import BufferedReader, RawIOBase
from socketserver import ThreadingMixIn
from threading import Lock, Thread
from time import sleep
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from denseav.export.process_limits import descriptors_are_few
from denseav.stream.errors import OutputError
from denseav.stream.stats.series import EDGES_MS, Histogram
from denseav.stream.stats.stats import Stats, Totals

_ADDRESS = "127.0.0.1"
CONNECTIONS_MAX = 8
HEAD_BYTES_MAX = 16 * 1024
_REQUEST_S = 5.0  # for each part of a request
_NO_DESCRIPTOR_S = 0.05


class Metrics:
    """Answers `GET /metrics` until closed.

    Parameters
    ----------
    port : on 127.0.0.1.
    stats : read anew for every answer.
    run : what stays the same, as labels.

    Raises
    ------
    OutputError
        When the port cannot be had.
    """

    def __init__(self, port: int, stats: Stats, run: Mapping[str, str]) -> None:
        registry = CollectorRegistry()
        registry.register(_Figures(stats, run))
        ProcessCollector(registry=registry)
        try:
            app = make_wsgi_app(registry)
            self._server = make_server(_ADDRESS, port, app, _Server, _Handler)
        except OSError as error:
            raise OutputError(
                f"cannot serve metrics at {_ADDRESS}:{port} ({error.strerror}); choose another port"
            ) from None
        self._thread = Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()
        self.url = f"http://{_ADDRESS}:{self._server.server_port}/metrics"

    def close(self) -> None:
        """Answer no more and give the port back."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingMixIn, WSGIServer):
    """Takes few connections: one more takes the place of the oldest, which is ended."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, *arguments: Any) -> None:
        self._lock, self._open = Lock(), list[socket.socket]()
        super().__init__(*arguments)

    def get_request(self) -> Any:
        """Take a connection, or end those that are open where no descriptor is to be had."""
        try:
            request, address = super().get_request()
        except OSError:
            self._end_all()
            sleep(_NO_DESCRIPTOR_S)  # the next try is at once
            raise
        if descriptors_are_few():
            request.close()
            self._end_all()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return request, address

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection on a thread of its own."""
        with self._lock:
            self._open.append(request)
            surplus = self._open[:-CONNECTIONS_MAX]
        _end(surplus)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection that has been served or ended."""
        with self._lock:
            self._open = [each for each in self._open if each is not request]
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Close the port and end all connections."""
        super().server_close()
        self._end_all()

    def _end_all(self) -> None:
        with self._lock:
            surplus = list(self._open)
        _end(surplus)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that break off."""


class _Handler(WSGIRequestHandler):
    timeout = _REQUEST_S

    def setup(self) -> None:
        """Read no more of a request than its head can be; no body is read at all."""
        super().setup()
        self.rfile = _Head(self.rfile.detach())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing of requests."""


class _Head(BufferedReader):
    """A request, of which so many bytes can be read line by line."""

    def __init__(self, raw: RawIOBase) -> None:
        super().__init__(raw)
        self._left = HEAD_BYTES_MAX

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read a line, or raise where the head has become too long."""
        line = super().readline(self._left if size is None or size < 0 else min(size, self._left))
        self._left -= len(line)
        if self._left <= 0:
            raise ConnectionError("a head too long")
        return line


def _end(connections: list[socket.socket]) -> None:
    """Let their threads read an end; they close them."""
    for connection in connections:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


class _Figures(Collector):
    def __init__(self, stats: Stats, run: Mapping[str, str]) -> None:
        self._stats = stats
        self._run = dict(run)

    def collect(self) -> Iterator[Metric]:
        totals = self._stats.totals()
        yield InfoMetricFamily("denseav_run", "What runs.", self._run)
        yield CounterMetricFamily("denseav_frames", "Pictures that came in.", totals.frames_in)
        yield CounterMetricFamily("denseav_heatmaps", "Heatmaps made.", totals.frames_out)
        yield CounterMetricFamily("denseav_audio_passes", "Audio passes.", totals.audio_hops)
        drops = CounterMetricFamily("denseav_drops", "Thrown away, by cause.", labels=["cause"])
        for cause, count in totals.drops.items():
            drops.add_metric([cause], count)
        yield drops
        yield from _of_cameras({name: each.totals() for name, each in self._stats.cameras.items()})
        ways = {way.removeprefix("capture_to_"): seen for way, seen in totals.latency.items()}
        yield _histograms("latency", "From a picture's capture to where it arrived.", "to", ways)
        yield _histograms("stage", "Time taken by one step.", "stage", totals.stages)
        age = {"": totals.audio_age}
        yield _histograms("audio_age", "Age of the sound behind a heatmap.", None, age)
        for name, value in {**totals.gauges, "av_skew_ms": totals.av_skew_ms}.items():
            if value is not None:
                yield _gauge(name, value)


def _of_cameras(cameras: Mapping[str, Totals]) -> Iterator[Metric]:
    """Yield what there is of each camera, where there are several."""
    if not cameras:
        return
    frames = CounterMetricFamily(
        "denseav_camera_frames", "Pictures of one camera.", labels=["camera"]
    )
    heatmaps = CounterMetricFamily(
        "denseav_camera_heatmaps", "Heatmaps of one camera.", labels=["camera"]
    )
    drops = CounterMetricFamily(
        "denseav_camera_drops", "Thrown away of one camera's.", labels=["camera", "cause"]
    )
    for name, totals in cameras.items():
        frames.add_metric([name], totals.frames_in)
        heatmaps.add_metric([name], totals.frames_out)
        for cause, count in totals.drops.items():
            drops.add_metric([name, cause], count)
    yield from (frames, heatmaps, drops)
    ways = {name: totals.latency["capture_to_heatmap"] for name, totals in cameras.items()}
    text = "From a picture's capture to its heatmap."
    yield _histograms("camera_latency", text, "camera", ways)


def _histograms(
    name: str, text: str, label: str | None, kinds: Mapping[str, Histogram]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(
        f"denseav_{name}_seconds", text, labels=[] if label is None else [label]
    )
    for kind, histogram in kinds.items():
        below, buckets = 0, []
        edges = [str(edge_ms / 1000) for edge_ms in EDGES_MS]
        for edge, count in zip([*edges, "+Inf"], histogram.count_L, strict=True):
            below += count
            buckets.append((edge, float(below)))
        family.add_metric([] if label is None else [kind], buckets, histogram.sum_ms / 1000)
    return family


def _gauge(name: str, value: float) -> GaugeMetricFamily:
    """Prometheus counts in seconds."""
    text = "The newest value; absent while unknown."
    if name.endswith("_ms"):
        return GaugeMetricFamily(f"denseav_{name[:-3]}_seconds", text, value / 1000)
    return GaugeMetricFamily(f"denseav_{name}", text, value)
