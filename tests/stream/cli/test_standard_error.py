"""A log that nobody reads, or can read any more, and a process that ends with its promised code."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from denseav.stream.cli.standard_error import StandardError
from tests.support.live_command import COMMAND, environment, live
from tests.support.servers import MjpegServer
from tests.support.stalls import until


def begin(folder: Path, *arguments: str, stderr: int = subprocess.DEVNULL) -> subprocess.Popen[Any]:
    return subprocess.Popen(
        [*COMMAND, *arguments, "--stats-json", "s.json"],
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
    )


def frames_in(folder: Path) -> int:
    """Return how many frames were captured, by the newest whole line of the figures."""
    path = folder / "s.json"
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:  # not there yet, or only tried whether it can be
        lines = []
    return max((json.loads(line)["frames_in"] for line in lines if line.endswith("}")), default=0)


@pytest.mark.parametrize("log", ["blocked", "gone"])
def test_capture_goes_on_whatever_becomes_of_the_log(
    log: str, mjpeg_server: MjpegServer, tmp_path: Path
) -> None:
    reader, writer = os.pipe()
    if log == "blocked":
        os.set_blocking(writer, False)
        try:
            while os.write(writer, b"x" * 4096):
                pass
        except BlockingIOError:
            os.set_blocking(writer, True)
    else:
        os.close(reader)
    process = begin(
        tmp_path, "--camera", mjpeg_server.url, "--mic", "none", "--headless", stderr=writer
    )
    os.close(writer)
    try:
        for _ in range(2):
            before = frames_in(tmp_path)
            until(lambda before=before: frames_in(tmp_path) > before, 30)  # type: ignore[misc]
            mjpeg_server.kill()  # which is said, as is the return
            time.sleep(0.3)
            mjpeg_server.start()
        before = frames_in(tmp_path)
        until(lambda: frames_in(tmp_path) > before, 30)
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        if log == "blocked":
            os.close(reader)
    assert json.loads((tmp_path / "s.json").read_text().splitlines()[-1])["sources"][0]["losses"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("hangs", [False, True])
def test_a_second_signal_changes_nothing(
    number: signal.Signals, hangs: bool, mjpeg_server: MjpegServer, tmp_path: Path
) -> None:
    process = begin(tmp_path, "--camera", mjpeg_server.url, "--mic", "none", "--headless")
    try:
        until(lambda: frames_in(tmp_path) > 0, 30)
        if hangs:
            mjpeg_server.frozen.set()
            time.sleep(0.5)
        for _ in range(20):
            process.send_signal(number)
            time.sleep(0.1)
            if process.poll() is not None:
                break
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


THREAD = """
import sys
from {module} import {name}
def fail(self, *_, **__):
    raise MemoryError("no memory for a thread")
{name}.{method} = fail
from denseav.stream.cli.live import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("module", "name", "method", "code"),
    [
        ("denseav.stream.sources.media_file", "Clip", "_frames", 3),
        ("denseav.stream.stats.json_lines", "StatsLines", "_line", 1),
    ],
)
def test_a_thread_that_dies_ends_the_run_and_is_named(
    module: str, name: str, method: str, code: int, tmp_path: Path
) -> None:
    script = THREAD.format(module=module, name=name, method=method)
    if name == "Clip":  # its constructor looks at the first picture
        script = script.replace(f"{name}.{method} = fail", f"{name}.__iter__ = fail")
    arguments = ("--demo", "--headless", "--seconds", "20", "--stats-json", "s.json")
    begun_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code
    assert time.monotonic() - begun_s < 18
    assert "failed unexpectedly (MemoryError: no memory for a thread)" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_cannot_command_the_terminal(tmp_path: Path) -> None:
    name = "x\x1b]0;owned\x07\x1b[2J[b].mp4"
    (tmp_path / name).write_bytes(b"no film")
    done = live(tmp_path, "--source", name, "--headless")
    assert done.returncode == 3
    assert "\x1b" not in done.stderr + done.stdout
    assert r"\x1b[2J[b].mp4" in done.stderr


def test_lines_come_whole_in_order_and_more_than_wait_are_counted() -> None:
    reader, writer = os.pipe()
    log = StandardError(writer)
    os.close(writer)
    print("one", "line", file=log)
    print("\x1b[2J", end="\nunfinished", file=log)
    log.drain()
    assert os.read(reader, 1000) == b"one line\n\\x1b[2J\n"
    for index in range(20_000):
        print(f"{index} {'x' * 200}", file=log)
    log.drain(0.1)
    shown = b""
    while b"left out" not in shown:
        shown += os.read(reader, 65_536)
    assert shown.startswith(b"unfinished0 xxx")
    os.close(reader)
