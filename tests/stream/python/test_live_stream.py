"""`denseav.live`: the command's run, in a loop, a coroutine or a call; bad input never hangs."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import denseav
from denseav.export.runtime.bundle import demo_folder, open_bundle
from denseav.export.runtime.onnx_session import OnnxSession
from denseav.stream.app.offline_loop import run_offline
from denseav.stream.inference.pipeline import Pipeline
from denseav.stream.sources.media_file import Clip
from denseav.stream.stats.stats import Stats
from denseav.stream.types import AudioBlock, Frame, Heatmap
from tests.support.live_command import environment
from tests.support.media import grey, tone
from tests.support.servers import MjpegServer
from tests.support.stalls import until

DEMO: dict[str, Any] = {"model": demo_folder()}
IMAGES = np.stack([grey(10 * index) for index in range(5)])
ARRAYS: dict[str, Any] = {
    "images": IMAGES,
    "fps": 25,
    "audio": tone(16_000, 0.5)[:, 0],
    "rate_hz": 16_000,
}


class Unseen:
    """A view that nobody looks at."""

    quit_asked = wants_features = False

    def audio(self, block: AudioBlock) -> None:
        """Take it."""

    def show(self, heatmap: Heatmap) -> None:
        """Take it."""

    def poll(self, fault: str | None = None) -> None:
        """Look away."""


@pytest.fixture(scope="module")
def heatmaps(exact: Path) -> list[Heatmap]:
    """What the pipeline makes of a file, without anything of the interface."""
    bundle, found = open_bundle(demo_folder()), list[Heatmap]()
    pipeline = Pipeline(OnnxSession(bundle), bundle.manifest)
    view: Any = Unseen()
    run_offline(
        Clip(exact), pipeline, view, Stats(), stop=threading.Event(), publish=[found.append]
    )
    assert len(found) == 25
    assert any(any(heatmap.valid_K) for heatmap in found)
    return found


def test_every_frame_of_a_file_comes_once_with_the_heat_of_the_pipeline(
    exact: Path, heatmaps: list[Heatmap]
) -> None:
    with denseav.live(source=exact, offline=True, **DEMO) as stream:
        for frame, heatmap in zip(stream, heatmaps, strict=True):
            assert frame.index == heatmap.frame.index
            assert frame.capture_s == heatmap.frame.capture_s
            assert frame.skew_s == heatmap.skew_s
            heat_KHW = np.stack([head.heat for head in frame.heads.values()])
            np.testing.assert_array_equal(heat_KHW, heatmap.heat_KHW)
            assert tuple(head.valid for head in frame.heads.values()) == heatmap.valid_K
            np.testing.assert_array_equal(frame.image, heatmap.frame.image_HW3)
        assert stream.stats.drops == {}


def test_arrays_give_the_heat_that_their_file_does(exact: Path) -> None:
    items = list(Clip(exact))
    images = (item.image_HW3 for item in items if isinstance(item, Frame))
    blocks = [item for item in items if isinstance(item, AudioBlock)]
    audio = np.concatenate([block.samples_SC for block in blocks])
    arrays: dict[str, Any] = {"images": images, "fps": 25, "audio": audio}
    arrays["rate_hz"] = blocks[0].rate_hz
    found = []
    for given in ({"source": exact}, arrays):
        # Blocks of other lengths make the newest token another; the frame's own is the same.
        with denseav.live(**given, sync="exact", offline=True, **DEMO) as stream:
            found.append([[head.heat for head in frame.heads.values()] for frame in stream])
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)
    assert np.max(found) > 0.1


def test_a_coroutine_gets_the_same_frames() -> None:
    async def indices() -> list[int]:
        with denseav.live(**ARRAYS, offline=True, **DEMO) as stream:
            return [frame.index async for frame in stream]

    assert asyncio.run(indices()) == list(range(5))


def test_live_the_newest_wins_and_what_it_replaced_is_counted() -> None:
    with denseav.live(demo=True) as stream:
        first = next(stream)
        until(lambda: stream.stats.drops.get("sink_busy", 0) >= 2)
        second = next(stream)
        assert second.index >= first.index + 3
        assert 0 <= second.age_s < 5
        assert second.draw().shape == second.image.shape
        assert stream.stats.fps_out > 0


def test_a_function_is_called_with_each_frame() -> None:
    found: list[denseav.HeatFrame] = []
    with denseav.live(**ARRAYS, offline=True, on_frame=found.append, **DEMO) as stream:
        with pytest.raises(denseav.UsageError, match="the frames go to on_frame"):
            next(stream)
        assert stream.wait(30)
    assert [frame.index for frame in found] == list(range(5))


def test_what_the_function_raises_ends_the_stream_and_is_raised_once() -> None:
    def fail(frame: denseav.HeatFrame) -> None:
        raise ZeroDivisionError(frame.index)

    stream = denseav.live(demo=True, on_frame=fail)
    with pytest.raises(ZeroDivisionError):
        stream.wait(30)
    stream.close()
    with pytest.raises(ZeroDivisionError), denseav.live(demo=True, on_frame=fail) as stream:
        until(lambda: not stream._thread.is_alive())


def test_a_function_may_close_the_stream() -> None:
    streams: list[denseav.LiveStream] = []
    stream = denseav.live(demo=True, on_frame=lambda _: streams and streams[0].close())
    streams.append(stream)
    assert stream.wait(30)


def test_after_close_asking_is_refused_and_closing_again_is_nothing() -> None:
    stream = denseav.live(demo=True)
    next(stream)
    stream.close()
    stream.close()
    with pytest.raises(denseav.UsageError, match="the stream is closed; open another one"):
        next(stream)


def test_close_ends_a_loop_that_waits() -> None:
    def images() -> Iterator[np.ndarray]:
        yield IMAGES[0]
        waits.set()
        closed.wait(30)

    waits, closed = threading.Event(), threading.Event()
    stream = denseav.live(**ARRAYS | {"images": images()}, offline=True, **DEMO)
    closer = threading.Thread(target=lambda: (waits.wait(30), closed.set(), stream.close()))
    closer.start()
    assert [frame.index for frame in stream] in ([0], [])
    closer.join()


def test_a_source_that_fails_raises_from_the_loop_and_not_again() -> None:
    images = [*IMAGES[:2], IMAGES[2].astype(float)]
    with denseav.live(**ARRAYS | {"images": images}, offline=True, **DEMO) as stream:
        assert [next(stream).index, next(stream).index] == [0, 1]
        with pytest.raises(denseav.UsageError, match="an image is a uint8 array, not float64"):
            next(stream)
        with pytest.raises(StopIteration):
            next(stream)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "name one thing to look at"),
        ({"camera": 0, "demo": True}, "name one thing to look at"),
        ({"camera": [0, 1]}, "denseav.live looks at one camera; for several, open one stream"),
        ({"camera": True}, "camera is a number, a path or an address, not True"),
        ({"demo": True, "offline": True}, "offline=True goes with source=… or images=… only"),
        ({"demo": True, "mic": 3}, "mic goes with camera=… only"),
        ({"demo": True, "fps": 3}, "go with images=… only"),
        ({"demo": True, "sync": "now"}, "sync is 'latest' or 'exact', not 'now'"),
        ({"demo": True, "seconds": 0}, "seconds is a number above 0, not 0"),
        (ARRAYS | {"fps": None}, "images need their fps"),
        (ARRAYS | {"rate_hz": 16_000.5}, "audio needs its rate_hz"),
        (ARRAYS | {"audio": [0.0]}, "audio is an array, not list"),
        (ARRAYS | {"audio": np.zeros(9, np.int64)}, "floating in .* or int16, not int64"),
        (ARRAYS | {"audio": np.zeros((2, 90))}, r"not \[2, 90\]"),
        (ARRAYS | {"audio": np.full(9, np.nan)}, "samples that are not numbers"),
    ],
)
def test_what_does_not_go_together_is_refused_at_once(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(denseav.UsageError, match=words):
        denseav.live(**asked)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((48, 64), np.uint8), r"\[height, width, 3\], not \[48, 64\]"),
        (np.zeros((4, 64, 3), np.uint8), "16 to 8192 pixels on a side, not 64x4"),
        ("a picture", "a uint8 array, not str"),
    ],
)
def test_an_image_that_is_none_is_refused_when_it_is_read(image: Any, words: str) -> None:
    with (
        pytest.raises(denseav.UsageError, match=words),
        denseav.live(**ARRAYS | {"images": [image]}, offline=True, **DEMO) as stream,
    ):
        next(stream)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"source": "missing.mp4"}, "there is no such file"),
        ({"camera": "/dev/null", "mic": "none"}, "another program uses it"),
        ({"camera": 99, "mic": "none"}, "absent, in use or not permitted"),
    ],
)
def test_a_source_that_cannot_be_opened_is_told_at_once(asked: Any, words: str) -> None:
    before = set(threading.enumerate())
    with pytest.raises(denseav.SourceError, match=words):
        denseav.live(**asked, **DEMO)
    until(lambda: not any(t.name == "denseav.live" for t in set(threading.enumerate()) - before))


class Once(MjpegServer):
    """A camera that serves one stream, and nobody else."""

    def __init__(self) -> None:
        self.taken = threading.Semaphore(1)
        super().__init__()

    def serve(self, connection: Any) -> None:
        if self.taken.acquire(blocking=False):
            super().serve(connection)


def test_two_streams_on_one_camera(mjpeg_server: MjpegServer) -> None:
    camera: dict[str, Any] = {"camera": mjpeg_server.url, "mic": "none", **DEMO}
    with denseav.live(**camera) as first, denseav.live(**camera) as second:
        assert {next(first).image.shape, next(second).image.shape} == {(120, 160, 3)}


def test_a_camera_that_another_stream_has_is_told() -> None:
    server = Once()
    camera: dict[str, Any] = {"camera": server.url, "mic": "none", **DEMO}
    try:
        with denseav.live(**camera) as first:
            next(first)
            with pytest.raises(denseav.SourceError, match=server.address):
                denseav.live(**camera)
            next(first)
    finally:
        server.kill()


def test_a_model_that_is_none_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(denseav.BundleError, match=r"holds no manifest\.json"):
        denseav.live(demo=True, model=tmp_path)


def test_a_silent_source_is_an_error_and_not_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    def images() -> Iterator[np.ndarray]:
        end.wait(30)
        yield IMAGES[0]

    monkeypatch.setattr("denseav.stream.python.live_stream._SILENCE_S", 0.1)
    end = threading.Event()
    with denseav.live(**ARRAYS | {"images": images()}, offline=True, **DEMO) as stream:
        with pytest.raises(denseav.FrameStaleError, match=r"no frame for 0\.1 s; the last that"):
            next(stream)
        with pytest.raises(TimeoutError):
            asyncio.run(anext(stream))  # type: ignore[arg-type]
        end.set()
        monkeypatch.setattr("denseav.stream.python.live_stream._SILENCE_S", 30)
        assert next(stream).index == 0  # asking again may bring one


FORGETFUL = """
import denseav
import numpy as np
stream = denseav.live(demo=True)
print(next(stream).heads["sound"].name)
frames = [np.zeros((48, 64, 3), np.uint8)] * 90
offline = denseav.live(images=frames, fps=30, audio=np.zeros(48000), rate_hz=16000, offline=True)
"""


def test_a_program_that_forgets_to_close_ends_all_the_same(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORGETFUL],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "sound\n"
    assert "Traceback" not in done.stderr
