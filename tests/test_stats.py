import json
import threading
from pathlib import Path

import pytest

from denseav.stream.errors import OutputError
from denseav.stream.stats import NEWEST_VALUES, Stats, write_report

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
    nothing = {"p50": None, "p95": None, "p99": None}
    assert report == {
        "frames_in": 0,
        "frames_out": 0,
        "fps": 0.0,
        "seconds": 0.0,
        "latency_ms": {"capture_to_heatmap": nothing, "capture_to_sink": nothing},
        "audio_hops": 0,
        "audio_age_ms": {"p50": None, "p95": None},
        "drops": {},
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


def test_report_goes_to_a_file_and_replaces_the_last(tmp_path: Path):
    path = tmp_path / "run.json"
    path.write_text("the last run")
    report = Stats().report(**WHAT_RAN)
    write_report(report, str(path))
    assert json.loads(path.read_text()) == report
    assert list(tmp_path.iterdir()) == [path]


def test_report_goes_to_standard_output(capsys: pytest.CaptureFixture[str]):
    report = Stats().report(**WHAT_RAN)
    write_report(report, "-")
    assert json.loads(capsys.readouterr().out) == report


def test_report_into_a_missing_folder_is_an_output_error(tmp_path: Path):
    with pytest.raises(OutputError, match="No such file or directory"):
        write_report({}, str(tmp_path / "missing" / "run.json"))


def test_report_onto_a_folder_leaves_nothing_behind(tmp_path: Path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError, match="taken"):
        write_report({}, str(tmp_path / "taken"))
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
