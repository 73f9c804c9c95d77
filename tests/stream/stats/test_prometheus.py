"""Figures for Prometheus: read as Prometheus reads them, from this machine only."""

import socket
import threading
import time
import urllib.request
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.support.adversaries import LIES
from denseav.stream.errors import OutputError
from denseav.stream.stats import prometheus
from denseav.stream.stats.prometheus import CONNECTIONS_MAX, Metrics
from denseav.stream.stats.stats import Stats
from tests.support.live_command import LiveProcess, live_here
from tests.support.ports import free_port
from tests.support.stalls import until

pytestmark = pytest.mark.realtime

RUN = {"backend": "fake", "model": "demo"}


def read(url: str) -> dict[str, float]:
    """Return every sample, named as Prometheus writes it, labels in order."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        text = answer.read().decode()
    return {
        sample.name
        + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_figure_is_there_in_base_units() -> None:
    stats = Stats()
    for latency_s in (0.004, 0.04, 0.4):
        stats.frame_in()
        stats.heatmap(0.0, latency_s, -0.1)
    stats.sent(0.0, 0.06)
    stats.audio_hop()
    stats.drop("model_busy", 7)
    stats.stage("image", 0.02)
    stats.gauge("hop_ms", 360.0)
    for skew_s in (-0.02, -0.015, 0.05):
        stats.skew(skew_s)
    stats.gauge("microphone_level_dbfs", None)
    metrics = Metrics(free_port(), stats, RUN)
    found = read(metrics.url)
    metrics.close()
    expected = {
        "denseav_run_info backend=fake model=demo": 1,
        "denseav_frames_total": 3,
        "denseav_heatmaps_total": 3,
        "denseav_audio_passes_total": 1,
        "denseav_drops_total cause=model_busy": 7,
        "denseav_latency_seconds_count to=heatmap": 3,
        "denseav_latency_seconds_sum to=heatmap": 0.444,
        "denseav_latency_seconds_bucket le=0.005 to=heatmap": 1,
        "denseav_latency_seconds_bucket le=0.05 to=heatmap": 2,
        "denseav_latency_seconds_bucket le=+Inf to=heatmap": 3,
        "denseav_latency_seconds_count to=feed": 1,
        "denseav_latency_seconds_count to=sink": 0,
        "denseav_stage_seconds_sum stage=image": 0.02,
        "denseav_audio_age_seconds_sum": 0.744,
        "denseav_av_skew_seconds": -0.015,
        "denseav_hop_seconds": 0.36,
    }
    assert {name: found.get(name) for name in expected} == pytest.approx(expected)
    assert not any("microphone_level" in name for name in found)


def test_an_answer_is_of_now() -> None:
    stats = Stats()
    metrics = Metrics(free_port(), stats, RUN)
    before = read(metrics.url)
    stats.frame_in()
    assert read(metrics.url)["denseav_frames_total"] == before["denseav_frames_total"] + 1
    metrics.close()


def test_closing_gives_port_and_threads_back() -> None:
    threads, port = threading.active_count(), free_port()
    for _ in range(3):
        metrics = Metrics(port, Stats(), RUN)
        read(metrics.url)
        metrics.close()
    end_s = time.monotonic() + 5
    while threading.active_count() > threads:
        assert time.monotonic() < end_s, threading.enumerate()
        time.sleep(0.01)


def test_connections_that_say_nothing_take_no_threads_and_hold_nobody_up() -> None:
    threads, metrics = threading.active_count(), Metrics(free_port(), Stats(), RUN)
    address = ("127.0.0.1", int(metrics.url.split(":")[2].partition("/")[0]))
    with ExitStack() as held:
        for _ in range(100):
            held.enter_context(socket.create_connection(address))
        assert read(metrics.url)
        until(lambda: threading.active_count() <= threads + 1 + CONNECTIONS_MAX)
        for line in [held.enter_context(socket.create_connection(address)) for _ in range(20)]:
            with suppress(OSError):
                line.sendall(b"GET /metr")
        assert read(metrics.url)
    metrics.close()
    until(lambda: threading.active_count() <= threads)


@pytest.mark.parametrize("lie", LIES)
def test_a_request_that_lies_is_answered_or_ended_at_once_and_read_no_further(lie: bytes) -> None:
    with closing(Metrics(free_port(), Stats(), RUN)) as metrics:
        address = ("127.0.0.1", int(metrics.url.split(":")[2].partition("/")[0]))
        with socket.create_connection(address, timeout=20) as line, suppress(ConnectionError):
            line.sendall(lie)
            first = line.recv(100)
            assert first == b"" or first.startswith(b"HTTP/1.0 405")
        assert read(metrics.url)


def test_where_descriptors_run_out_nobody_is_let_in_and_then_all_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with closing(Metrics(free_port(), Stats(), RUN)) as metrics:
        address = ("127.0.0.1", int(metrics.url.split(":")[2].partition("/")[0]))
        with socket.create_connection(address, timeout=20) as silent:
            until(lambda: metrics._server._open)
            with monkeypatch.context() as patched:
                patched.setattr(prometheus, "descriptors_are_few", lambda: True)
                with pytest.raises(OSError, match=r"reset|closed|without response"):
                    read(metrics.url)
                assert silent.recv(1) == b""
        assert read(metrics.url)


def test_a_port_in_use_is_an_output_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OutputError, match=f"127.0.0.1:{port} .*in use.*choose another port"):
            Metrics(port, Stats(), RUN)


def test_the_command_serves_what_it_does_to_this_machine_only(tmp_path: Path) -> None:
    port = free_port()
    arguments = ("--demo", "--headless", "--prometheus", str(port))
    process = LiveProcess(tmp_path, *arguments)
    try:
        process.until(f"metrics at http://127.0.0.1:{port}/metrics")
        process.until("READY")
        found = read(f"http://127.0.0.1:{port}/metrics")
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", port), timeout=5)
    finally:
        process.process.terminate()
        assert process.end() == 0
    assert found["denseav_heatmaps_total"] >= 1
    assert found["denseav_stage_seconds_count stage=image"] >= 1
    assert found["process_open_fds"] > 0


def test_the_command_ends_at_once_where_the_port_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = live_here(tmp_path, "--demo", "--headless", "--prometheus", str(port))
    assert done.returncode == 7
    assert done.stderr.splitlines()[-1].startswith("denseav-live: error: cannot serve metrics at")
