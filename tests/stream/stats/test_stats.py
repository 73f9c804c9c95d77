import threading
import time

import pytest

from denseav.stream.stats.series import EDGES_MS, NEWEST_VALUES
from denseav.stream.stats.stats import Stats

WHAT_RAN = {"backend": "onnxruntime-cpu", "precision": "int8", "model": "demo", "trained": False}


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def run(stats: Stats, clock: Clock, frames: int, period_s: float, latency_s: float) -> None:
    for _ in range(frames):
        capture_s = clock.now_s
        stats.frame_in()
        stats.heatmap(capture_s, capture_s + latency_s, capture_s - 0.1)
        stats.sink(capture_s, capture_s + latency_s + 0.005)
        clock.now_s += period_s


def test_a_report_of_nothing_has_nulls_and_zeros():
    report = Stats().report(**WHAT_RAN)
    assert abs(report.pop("unix_s") - time.time()) < 5
    nothing = {"p50": None, "p95": None, "p99": None}
    assert report == {
        "final": True,
        "frames_in": 0,
        "frames_out": 0,
        "fps_in": 0.0,
        "fps": 0.0,
        "seconds": 0.0,
        "latency_ms": {
            "capture_to_heatmap": nothing,
            "capture_to_sink": nothing,
            "capture_to_feed": nothing,
            "capture_to_viewer": nothing,
        },
        "stage_ms": {},
        "audio_hops": 0,
        "audio_age_ms": {"p50": None, "p95": None},
        "av_skew_ms": {"p5": None, "p50": None, "p95": None},
        "drops": {},
        "gauges": {},
        **WHAT_RAN,
    }


def test_report_counts_times_and_percentiles():
    clock = Clock()
    stats = Stats(clock)
    clock.now_s += 60  # loading the model is no part of the run
    for latency_ms in range(1, 101):
        stats.frame_in()
        stats.heatmap(clock.now_s, clock.now_s + latency_ms / 1000, clock.now_s - 0.2)
        stats.sink(clock.now_s, clock.now_s + 2 * latency_ms / 1000)
        clock.now_s += 0.05
    stats.frame_in()
    for _ in range(28):
        stats.audio_hop()
    stats.drop("busy")
    stats.drop("busy", 4)
    stats.drop("late", 2)
    report = stats.report(**WHAT_RAN)
    assert (report["frames_in"], report["frames_out"], report["audio_hops"]) == (101, 100, 28)
    assert report["seconds"] == pytest.approx(5.0)
    assert report["fps"] == pytest.approx(20.0)
    to_heatmap = report["latency_ms"]["capture_to_heatmap"]
    assert to_heatmap == pytest.approx({"p50": 50.5, "p95": 95.05, "p99": 99.01})
    to_sink = report["latency_ms"]["capture_to_sink"]
    assert to_sink == pytest.approx({"p50": 101.0, "p95": 190.1, "p99": 198.02})
    assert report["audio_age_ms"] == pytest.approx({"p50": 250.5, "p95": 295.05})
    assert report["drops"] == {"busy": 5, "late": 2}


def test_snapshot_forgets_what_is_older_than_ten_seconds():
    clock = Clock()
    stats = Stats(clock)
    run(stats, clock, frames=200, period_s=0.1, latency_s=0.5)
    run(stats, clock, frames=300, period_s=1 / 30, latency_s=0.04)
    stats.drop("busy", 7)
    seen = stats.snapshot()
    assert seen.fps_in == pytest.approx(30, abs=0.2)
    assert seen.fps_out == pytest.approx(30, abs=0.2)
    assert seen.latency_p50_ms == pytest.approx(40)
    assert seen.latency_p95_ms == pytest.approx(40)
    assert seen.audio_age_ms == pytest.approx(140)
    assert seen.drops == {"busy": 7}


def test_a_stall_brings_the_rate_down_to_nothing():
    clock = Clock()
    stats = Stats(clock)
    run(stats, clock, frames=300, period_s=1 / 30, latency_s=0.04)
    clock.now_s += 5
    assert 10 < stats.snapshot().fps_out < 31
    clock.now_s += 5.1
    seen = stats.snapshot()
    assert (seen.fps_in, seen.fps_out, seen.latency_p50_ms) == (0.0, 0.0, None)


def test_without_sound_there_is_no_audio_age():
    stats = Stats()
    stats.heatmap(1.0, 1.1, None)
    assert stats.snapshot().audio_age_ms is None
    assert stats.snapshot().latency_p50_ms == pytest.approx(100)


def test_memory_is_bounded_while_counts_are_not():
    clock = Clock()
    stats = Stats(clock)
    run(stats, clock, frames=500, period_s=0.001, latency_s=9.0)
    run(stats, clock, frames=NEWEST_VALUES, period_s=0.001, latency_s=0.02)
    report = stats.report(**WHAT_RAN)
    assert report["frames_out"] == NEWEST_VALUES + 500
    assert report["latency_ms"]["capture_to_heatmap"]["p99"] == pytest.approx(20)


def test_counts_from_many_threads_are_all_there():
    stats = Stats()

    def work() -> None:
        for _ in range(500):
            stats.frame_in()
            stats.audio_hop()
            stats.drop("busy")
            stats.snapshot()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = stats.report(**WHAT_RAN)
    assert (report["frames_in"], report["audio_hops"]) == (2000, 2000)
    assert report["drops"] == {"busy": 2000}


def test_a_live_report_covers_ten_seconds_and_counts_the_run():
    clock = Clock()
    stats = Stats(clock)
    run(stats, clock, frames=200, period_s=0.1, latency_s=0.5)
    run(stats, clock, frames=300, period_s=1 / 30, latency_s=0.04)
    found = stats.report(**WHAT_RAN, final=False)
    assert (found["final"], found["frames_out"]) == (False, 500)
    assert found["fps"] == pytest.approx(30, abs=0.2)
    assert found["latency_ms"]["capture_to_heatmap"] == pytest.approx(
        {"p50": 40, "p95": 40, "p99": 40}
    )
    whole = stats.report(**WHAT_RAN)
    assert whole["fps"] == pytest.approx(500 / 30, abs=0.001)
    assert whole["latency_ms"]["capture_to_heatmap"]["p95"] == pytest.approx(500)


def test_stages_are_timed_each_for_itself():
    clock = Clock()
    stats = Stats(clock)
    for milliseconds in range(1, 101):
        with stats.timed("image"):
            clock.now_s += milliseconds / 1000
    stats.stage("audio", 0.25)
    found = stats.report(**WHAT_RAN)["stage_ms"]
    assert found["image"] == pytest.approx({"p50": 50.5, "p95": 95.05, "p99": 99.01})
    assert found["audio"] == pytest.approx({"p50": 250, "p95": 250, "p99": 250})


def test_a_pass_that_fails_is_not_timed():
    stats = Stats()
    with pytest.raises(ValueError, match="broken"), stats.timed("image"):
        raise ValueError("broken")
    assert stats.report(**WHAT_RAN)["stage_ms"] == {}


def test_what_was_sent_has_a_latency_of_its_own():
    stats = Stats()
    stats.sent(1.0, 1.07)
    found = stats.report(**WHAT_RAN)["latency_ms"]
    assert found["capture_to_feed"]["p50"] == pytest.approx(70)
    assert found["capture_to_sink"]["p50"] is None


@pytest.mark.parametrize("unknown", [None, float("nan"), float("inf")])
def test_a_gauge_is_its_newest_value_or_unknown(unknown: float | None):
    stats = Stats()
    stats.gauge("hop_ms", 3.0)
    stats.gauge("hop_ms", -12.5)
    assert stats.snapshot().gauges == {"hop_ms": -12.5}
    stats.gauge("hop_ms", unknown)
    assert stats.report(**WHAT_RAN)["gauges"] == {"hop_ms": None}


def test_a_restart_forgets_what_came_before():
    clock = Clock()
    stats = Stats(clock)
    run(stats, clock, frames=10, period_s=0.1, latency_s=5.0)
    stats.drop("busy")
    stats.restart()
    assert stats.report(**WHAT_RAN) | {"unix_s": 0} == Stats().report(**WHAT_RAN) | {"unix_s": 0}
    run(stats, clock, frames=10, period_s=0.1, latency_s=0.01)
    assert stats.latencies_ms()["capture_to_heatmap"] == pytest.approx([10.0] * 10)


def test_totals_count_every_value_into_its_interval():
    stats = Stats()
    for latency_ms in (0.5, 1.0, 1.5, 40.0, 9000.0):
        stats.heatmap(0.0, latency_ms / 1000, None)
    seen = stats.totals().latency["capture_to_heatmap"]
    expected = {1: 2, 2: 1, 50: 1, None: 1}
    assert dict(zip((*EDGES_MS, None), seen.count_L, strict=True)) == {
        edge: expected.get(edge, 0) for edge in (*EDGES_MS, None)
    }
    assert seen.sum_ms == pytest.approx(9043.0)
