"""Real parts without hardware: files, a camera on the network, a sound server with a microphone."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

# Tiny networks are many times slower on several threads that wait for one another. Read by torch
# when it is loaded, here and in the programs that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Commands of this environment are found by name, though it may not have been activated.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

import psutil
import pytest
from hypothesis import settings

from tests.support.live_command import LiveProcess
from tests.support.media import LEVELS, ffmpeg, grey, tone, write_clip
from tests.support.screen.desktop import XServer
from tests.support.servers import MjpegServer, PulseServer, RtspServer

# A shell's background jobs ignore Ctrl-C, and so would each program that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

PACED = pytest.StashKey[bool]()

# Files of ten seconds and more, the longest first: none is left to one process at the end.
LONG = (
    "trainer/test_resume",
    "cli/test_standard_error",
    "distributed/test_launch",
    "sources/test_supervisor",
    "export/test_cli",
    "distributed/test_fsdp",
    "sources/test_network_capture",
    "cli/test_feed",
    "cli/test_live_recording",
    "cli/test_eval",
    "cli/test_live_errors",
    "nvidia/test_trt_session",
    "data/test_batch",
    "distributed/test_rank0_files",
    "display/test_rerun_viewer",
    "world/test_run",
    "trainer/test_loop",
    "models/test_fidelity",
    "sources/test_camera",
)

# An example that the machine stalls in is not a slow one.
settings.register_profile("tests", deadline=None, derandomize=True)
settings.load_profile("tests")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run one process more than there are cores: tests in real time mostly wait."""
    return (psutil.cpu_count() or 1) + 1


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file in one process, for its fixtures; what takes its time comes first, one by one."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    turns = {group: turn for turn, group in enumerate(("realtime", *LONG))}
    items.sort(key=lambda item: turns.get(_group(item), len(turns)))


def _group(item: pytest.Item) -> str:
    if item.get_closest_marker("realtime"):
        return "realtime"
    return f"{item.path.parent.name}/{item.path.stem}"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let the process that runs in real time have a core whenever it asks for one.

    It is the first to get a test, and goes on with others when it is done; all others give way.
    """
    if "PYTEST_XDIST_WORKER" in os.environ and not item.session.stash.get(PACED, False):
        item.session.stash[PACED] = True
        if item.get_closest_marker("realtime") is None:
            os.nice(5)


@pytest.fixture(autouse=True)
def _no_live_run_is_left() -> Iterator[None]:
    yield
    LiveProcess.kill_all()


@pytest.fixture
def begin() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start processes that do not outlive the test."""
    with ExitStack() as stack:

        def begin(command: list[str], **options: Any) -> subprocess.Popen[str]:
            process = stack.enter_context(subprocess.Popen(command, text=True, **options))
            stack.callback(process.kill)
            return process

        yield begin


@pytest.fixture(scope="session")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One second without loss: 25 frames of known grey; a tone for 0.9 s."""
    path = tmp_path_factory.mktemp("exact") / "exact.mov"
    return write_clip(path, map(grey, LEVELS), tone(48_000, 0.9))


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of H.264 and AAC, as phones and cameras write them."""
    path = tmp_path_factory.mktemp("common") / "common.mp4"
    pictures, sound = "testsrc=s=320x240:r=25:d=4", "sine=f=440:r=44100:d=4"
    inputs = ("-f", "lavfi", "-i", pictures, "-f", "lavfi", "-i", sound)
    ffmpeg(*inputs, "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-movflags", "+faststart", path)
    return path


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this test run, the same in all its processes."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def shared_graphs(shared_folder: Path) -> Iterator[None]:
    """From now on an export converts only graphs that no test has exported before."""
    from tests.support.export import shared_graphs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            shared_graphs.building, "_export", shared_graphs.SharedGraphs(shared_folder).export
        )
        yield


@pytest.fixture
def mjpeg_server() -> Iterator[MjpegServer]:
    """A camera that serves MJPEG over HTTP on this machine."""
    server = MjpegServer()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def rtsp_server() -> Iterator[RtspServer]:
    """A camera that serves H.264 over RTSP on this machine, by GStreamer."""
    if not RtspServer.possible():
        pytest.skip("GStreamer's RTSP server is not installed")
    server = RtspServer()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def display() -> Iterator[str]:
    """The name of a display that nobody looks at."""
    if not XServer.possible():
        pytest.skip("needs Xvfb, xdotool and ImageMagick")
    server = XServer()
    yield server.display
    server.kill()


@pytest.fixture(scope="module")
def pulse_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulseServer]:
    """A PulseAudio of our own, whose microphone hears what is played to it."""
    if not PulseServer.possible():
        pytest.skip("PulseAudio is not installed")
    server = PulseServer(tmp_path_factory.mktemp("pulse"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server
        server.kill()
