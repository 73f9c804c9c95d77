"""Figures as JSON lines: whole lines, a final one always, and a run that goes on without them."""

import fcntl
import itertools
import json
import os
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from denseav.stream.errors import OutputError
from denseav.stream.stats import json_lines
from denseav.stream.stats.json_lines import StatsLines, check_destination
from tests.support.live_command import COMMAND, environment, live

pytestmark = pytest.mark.realtime


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "PERIOD_S", 0.02)


def counted() -> Callable[[bool], dict[str, Any]]:
    numbers = itertools.count()
    return lambda final: {"number": next(numbers), "final": final}


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def wait_for(true: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.005)


def test_lines_can_be_read_while_the_run_goes_on_and_the_last_is_final(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text("the last run, which was longer than any line of this one will ever be")
    lines = StatsLines(str(path), counted(), print)
    wait_for(lambda: len(path.read_text().splitlines()) >= 3)
    assert not any(line["final"] for line in lines_of(path)[:3])
    lines.close()
    found = lines_of(path)
    assert [line["number"] for line in found] == list(range(len(found)))
    assert [line["final"] for line in found] == [False] * (len(found) - 1) + [True]
    assert "stats" not in {thread.name for thread in threading.enumerate()}


def test_standard_output_gets_them_and_stays_open(capfd: pytest.CaptureFixture[str]) -> None:
    lines = StatsLines("-", counted(), print)
    lines.close()
    print("after")  # noqa: T201
    *found, after = capfd.readouterr().out.splitlines()
    assert json.loads(found[-1])["final"]
    assert after == "after"


def test_a_full_disk_is_said_once_and_the_whole_line_comes_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, said, full = tmp_path / "s.jsonl", [], True
    real = os.write

    def write(file: int, data: bytes) -> int:
        if not full:
            return real(file, data)
        if len(data) < 10:
            raise OSError(28, "No space left on device")
        return real(file, data[:7])

    monkeypatch.setattr(os, "write", write)
    lines = StatsLines(str(path), lambda final: {"final": final, "x": "y" * 30}, said.append)
    wait_for(lambda: bool(said))
    full = False
    lines.close()
    torn, *_, whole = path.read_text().splitlines()
    assert not torn.endswith("}")
    assert json.loads(whole)["final"]
    assert said == [
        f"cannot write the report {path} (No space left on device); the run goes on and tries again"
    ]


def test_a_final_line_that_cannot_be_written_is_an_error() -> None:
    said: list[str] = []
    lines = StatsLines("/dev/full", counted(), said.append)
    wait_for(lambda: bool(said))
    with pytest.raises(OutputError, match="No space left on device"):
        lines.close()
    assert len(said) == 1


def unread(pipe: int) -> int:
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_a_pipe_whose_reader_sleeps_holds_nothing_up(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    lines = StatsLines(str(path), lambda final: {"x": "y" * 40_000, "final": final}, [].append)
    wait_for(lambda: unread(reader) > 50_000)
    began_s = time.monotonic()
    with pytest.raises(OutputError, match="nobody reads the report"):
        lines.close()
    assert time.monotonic() - began_s < 10
    os.close(reader)


def test_a_pipe_that_nobody_reads_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="pipe"):
        StatsLines(str(tmp_path / "pipe"), counted(), print)


@pytest.mark.parametrize("name", ["missing/s.jsonl", ".", "x" * 300])
def test_a_place_that_takes_no_file_is_known_before(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="choose another path"):
        check_destination(str(tmp_path / name))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_not_ours_is_known_before() -> None:
    with pytest.raises(OutputError, match=r"Permission denied|Read-only"):
        check_destination("/sys/s.jsonl")  # closed to the administrator too


def test_asking_leaves_no_file_and_harms_none(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    check_destination(str(path))
    assert not path.exists()
    path.write_text("the last run")
    check_destination(str(path))
    assert path.read_text() == "the last run"


def test_the_run_goes_on_while_its_lines_cannot_be_written(tmp_path: Path) -> None:
    arguments = ("--demo", "--headless", "--seconds", "3", "--record", "r.mp4")
    done = live(tmp_path, *arguments, "--stats-json", "/dev/full")
    said = [line for line in done.stderr.splitlines() if "No space left on device" in line]
    assert done.returncode == 7
    assert said == [
        "denseav-live: cannot write the report /dev/full (No space left on device); "
        "the run goes on and tries again",
        "denseav-live: error: cannot write the report /dev/full (No space left on device); "
        "choose another path",
    ]
    assert "recorded: r.mp4" in done.stderr


def test_every_line_of_the_command_has_the_same_figures(tmp_path: Path) -> None:
    done = live(tmp_path, "--demo", "--headless", "--seconds", "4", "--stats-json", "s.jsonl")
    assert done.returncode == 0, done.stderr
    found = lines_of(tmp_path / "s.jsonl")
    assert [line["final"] for line in found] == [False] * (len(found) - 1) + [True]
    assert len(found) >= 3
    assert {frozenset(line) for line in found} == {frozenset(found[0])}
    stages = {"capture", "queue", "image", "audio", "similarity", "show"}
    assert stages <= set(found[-1]["stage_ms"])
    assert all(0 <= at["p50"] <= at["p99"] for at in found[-1]["stage_ms"].values())
    counts = [line["frames_out"] for line in found]
    assert counts == sorted(counts)


def test_a_reader_that_has_enough_does_not_end_the_run(
    tmp_path: Path, begin: Callable[..., subprocess.Popen[str]]
) -> None:
    command = [*COMMAND, "--demo", "--headless", "--seconds", "3", "--stats-json", "-"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = begin(command, cwd=tmp_path, env=environment(tmp_path), **pipes)
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["final"] is False
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(30) == 7
    assert "Broken pipe); the run goes on" in said
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("denseav-live: error: cannot write the report -")
