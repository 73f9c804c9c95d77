"""`denseav-live --bench`: each setting measured by the live run itself, and held to a target."""

import csv
import gc
import itertools
import json
import re
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from denseav.stream.app import build
from denseav.stream.cli import bench
from denseav.stream.cli.live_options import parse
from denseav.stream.errors import SourceError, UsageError
from denseav.stream.stats.stats import Stats
from tests.support.live_command import LiveProcess, environment, live, live_here

pytestmark = pytest.mark.realtime

DEMO = ("--demo", "--headless", "--device", "cpu")


def test_every_combination_is_measured(tmp_path: Path) -> None:
    over = ("--bench-over", "threads=1,2", "device=cpu")
    outputs = ("--cdf", "cdf.csv", "--stats-json", "s.jsonl")
    done = live(tmp_path, *DEMO, "--bench", "1", *over, *outputs)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("READY") == 2
    names = ["threads=1 device=cpu", "threads=2 device=cpu"]
    rows = re.findall(r"│ (threads=\d) .*│ +[\d.]+ of +[\d.]+ │", done.stdout)
    assert rows == ["threads=1", "threads=2"]  # what follows may wrap
    for kind in ("capture to heatmap", "capture to sink", "image", "audio", "similarity"):
        assert re.search(rf"│ {kind} +│ +[\d.]+ │ +[\d.]+ │ +[\d.]+ │", done.stdout), kind
    records = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert [record["setting"] for record in records] == names
    for record in records:
        assert record["frames_out"] >= 1
        assert 0.5 < record["seconds"] < 15


def test_the_cdf_holds_every_latency(tmp_path: Path) -> None:
    arguments = ("--bench", "1", "--cdf", "cdf.csv", "--stats-json", "-", "--slo-ms", "60000")
    done = live(tmp_path, *DEMO, *arguments)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    with (tmp_path / "cdf.csv").open() as file:
        rows = list(csv.DictReader(file))
    by_way = {
        way: list(group) for way, group in itertools.groupby(rows, lambda row: row["latency"])
    }
    assert set(by_way) == {"capture_to_heatmap", "capture_to_sink"}
    found = by_way["capture_to_heatmap"]
    assert len(found) == record["frames_out"]
    values = [float(row["ms"]) for row in found]
    shares = [float(row["share"]) for row in found]
    assert values == sorted(values)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    p50_ms = record["latency_ms"]["capture_to_heatmap"]["p50"]
    last = len(values) - 1
    assert values[last // 2] - 0.002 <= p50_ms <= values[(last + 1) // 2] + 0.002


def test_warming_up_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = bench.run

    def cold(*arguments: Any, stats: Stats, **more: Any) -> dict[str, Any]:
        stats.heatmap(0.0, 99.0, None)
        return real(*arguments, stats=stats, **more)

    monkeypatch.setattr(bench, "run", cold)
    given = [*DEMO, "--bench", "1", "--stats-json", str(tmp_path / "s.jsonl")]
    bench.bench(given, parse(given), threading.Event(), threading.Event())
    record = json.loads((tmp_path / "s.jsonl").read_text())
    assert record["frames_out"] >= 1
    assert record["latency_ms"]["capture_to_heatmap"]["p99"] < 90_000


def test_slower_than_asked_for_is_an_exit_code(tmp_path: Path) -> None:
    done = live(tmp_path, *DEMO, "--bench", "1", "--slo-ms", "0.001")
    assert done.returncode == 6, done.stderr
    assert "capture to heatmap" in done.stdout
    said = r"denseav-live: error: p99 of [\d.]+ ms is over 0.001 ms \(as given\)"
    assert re.fullmatch(said, done.stderr.splitlines()[-1])


def test_a_setting_that_cannot_run_does_not_keep_the_others_from_it(tmp_path: Path) -> None:
    arguments = ("--bench", "1", "--bench-over", "device=cuda,cpu")
    done = live(tmp_path, "--demo", "--headless", *arguments, env={"CUDA_VISIBLE_DEVICES": "-1"})
    assert done.returncode == 4
    assert re.search(r"device=cuda +│ not measured", done.stdout)
    assert re.search(r"device=cpu +│ onnxruntime-cpu,", done.stdout)
    assert "use --device cpu" in done.stderr.splitlines()[-1]


def test_a_source_that_ends_early_is_measured_and_one_that_is_missing_is_not(
    tmp_path: Path, exact: Path
) -> None:
    source = ("--source", exact, "--headless", "--device", "cpu")
    done = live(tmp_path, *source, "--bench", "60", "--slo-ms", "60000")
    assert done.returncode == 0, done.stderr
    done = live(tmp_path, "--source", "missing.mp4", "--headless", "--bench", "1")
    assert done.returncode == 3
    assert "not measured" in done.stdout


def test_ctrl_c_ends_the_setting_in_hand_and_begins_no_other(tmp_path: Path) -> None:
    arguments = ("--bench", "60", "--bench-over", "threads=1,2", "--stats-json", "s.jsonl")
    process = LiveProcess(tmp_path, *DEMO, *arguments)
    process.until("READY")
    process.process.send_signal(signal.SIGINT)
    assert process.end() == 0
    records = (tmp_path / "s.jsonl").read_text().splitlines()
    assert [json.loads(record)["setting"] for record in records] == ["threads=1"]


SLOW_SECOND_CASE = """
import pathlib, sys, time
from denseav.stream.app import build
opened, calls = build.open_for_audio, []
def slow(*arguments):
    calls.append(None)
    if len(calls) == 2:
        print("LOADING", file=sys.stderr, flush=True)
        while not pathlib.Path("interrupted").exists():
            time.sleep(0.01)
    return opened(*arguments)
build.open_for_audio = slow
from denseav.stream.cli.live import main
sys.exit(main())
"""


def test_ctrl_c_while_a_later_setting_loads_leaves_the_finished_ones(tmp_path: Path) -> None:
    arguments = [*DEMO, "--bench", "1", "--bench-over", "threads=1,2", "--stats-json", "s.jsonl"]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_SECOND_CASE, *arguments],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert any("LOADING" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    (tmp_path / "interrupted").touch()
    table, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert re.search(r"threads=1 +│ onnxruntime-cpu", table)
    assert "threads=2" not in table
    records = (tmp_path / "s.jsonl").read_text().splitlines()
    assert [json.loads(record)["setting"] for record in records] == ["threads=1"]


def test_a_case_that_failed_leaves_its_session_to_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sessions: list[weakref.ref[Any]] = []
    opened = build.open_for_audio

    def watched(*arguments: Any) -> Any:
        gc.collect()
        assert [session() for session in sessions] == [None] * len(sessions)
        session, audio = opened(*arguments)
        sessions.append(weakref.ref(session))
        return session, audio

    monkeypatch.setattr(build, "open_for_audio", watched)
    source = ["--source", str(tmp_path / "missing.mp4"), "--headless", "--device", "cpu"]
    given = [*source, "--bench", "1", "--bench-over", "threads=1,2,3"]
    with pytest.raises(SourceError, match="no such file"):
        bench.bench(given, parse(given), threading.Event(), threading.Event())
    assert len(sessions) == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--demo --slo-ms 50", "--slo-ms goes with --bench only"),
        ("--demo --cdf a.csv", "--cdf goes with --bench only"),
        ("--demo --bench-over threads=1", "--bench-over goes with --bench only"),
        ("--demo --bench 5 --seconds 3", "--seconds does not go with --bench"),
        ("--demo --bench 5 --record a.mp4", "--record does not go with --bench"),
        ("--source a.mp4 --offline --bench 5", "--offline does not go with --bench"),
        ("--demo --bench 0", "'0' is not a number above 0"),
        ("--demo --bench 5 --bench-over threads", "'threads' is not OPTION=VALUE,VALUE"),
        ("--demo --bench 5 --bench-over threads=1,", "'threads=1,' is not OPTION=VALUE,VALUE"),
        ("--demo --prometheus 70000", "'70000' is not a port from 1 to 65535"),
    ],
)
def test_senseless_asks_are_refused_in_one_line(given: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(given.split())
    assert message in str(caught.value)


@pytest.mark.parametrize("over", ["threads=1,none", "colour=red", "headless=1"])
def test_a_setting_is_checked_like_the_command_line_before_anything_runs(
    tmp_path: Path, over: str
) -> None:
    done = live_here(tmp_path, *DEMO, "--bench", "5", "--bench-over", over)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("denseav-live: error: ")
    assert "model demo" not in done.stderr


@pytest.mark.parametrize("option", ["--cdf", "--stats-json"])
def test_a_place_that_takes_no_file_is_known_before(tmp_path: Path, option: str) -> None:
    done = live_here(tmp_path, *DEMO, "--bench", "5", option, "missing/x")
    assert done.returncode == 7
    assert done.stderr == (
        "denseav-live: error: cannot write the report missing/x (No such file or directory); "
        "choose another path\n"
    )


def test_a_full_disk_is_told_after_the_table(tmp_path: Path) -> None:
    done = live(tmp_path, *DEMO, "--bench", "1", "--cdf", "/dev/full")
    assert done.returncode == 7
    assert "capture to heatmap" in done.stdout
    assert "No space left on device" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "measured"),
    [
        (("--camera", "1"), [("0", "1")]),
        (("--bench-over", "threads=1,2", "--camera", "1"), 2 * [("0", "1")]),
        (("--bench-over", "camera=1,2"), [("1",), ("2",)]),
    ],
)
def test_cameras_are_measured_together_or_each_in_turn(
    arguments: tuple[str, ...], measured: list[tuple[str, ...]]
) -> None:
    given = ["--camera", "0", *arguments, "--bench", "5"]
    cases = list(bench._cases(given, parse(given)))
    assert [case.options.sources.cameras for case in cases] == measured


def test_cameras_in_turn_and_together_is_refused() -> None:
    given = ["--camera", "0", "--camera", "1", "--bench-over", "camera=2,3", "--bench", "5"]
    with pytest.raises(UsageError, match="tries one at a time"):
        list(bench._cases(given, parse(given)))
