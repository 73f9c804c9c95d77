"""Animations: small, timed, bounded, whole or not there."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from denseav.export.runtime.bundle import demo_folder
from denseav.stream.cli.live import main
from denseav.stream.errors import OutputError
from denseav.stream.recording.animation_recorder import AnimationRecorder
from tests.support.disk import room
from tests.support.media import grey

SUFFIX = pytest.mark.parametrize("suffix", [".gif", ".webp"])


@SUFFIX
def test_pictures_are_kept_ten_times_a_second_at_their_times(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    recorder = AnimationRecorder(path, 1280, 720)
    for index in range(31):
        recorder.frame(grey(8 * index, 1280, 720), 5 + index / 30)
    assert not path.exists()
    assert recorder.close() == path
    with Image.open(path) as image:
        assert image.size == (480, 270)
        assert image.n_frames == 11
        assert image.info["loop"] == 0
        levels, shown_ms = [], []
        for index in range(image.n_frames):
            image.seek(index)
            image.load()
            shown_ms.append(image.info["duration"])
            levels.append(np.asarray(image.convert("L")).mean())
    assert shown_ms[:10] == pytest.approx([100] * 10, abs=10)
    assert levels == pytest.approx([24 * index for index in range(11)], abs=6)
    assert list(tmp_path.iterdir()) == [path]


@SUFFIX
def test_a_minute_is_all(suffix: str, tmp_path: Path) -> None:
    recorder = AnimationRecorder(tmp_path / f"a{suffix}", 32, 32)
    recorder.frame(grey(0, 32, 32), 0.0)
    recorder.frame(grey(9, 32, 32), 59.9)
    assert not recorder.is_full
    recorder.frame(grey(99, 32, 32), 60.0)
    assert recorder.is_full
    path = recorder.close()
    with Image.open(path) as image:
        assert image.n_frames == 2


@SUFFIX
def test_without_a_picture_there_is_no_file_and_none_is_replaced(
    suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"a{suffix}"
    assert AnimationRecorder(path, 64, 48).close() is None
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists already; choose another name or delete it"):
        AnimationRecorder(path, 64, 48)
    assert path.read_bytes() == b"mine"
    with pytest.raises(OutputError, match=r"cannot record to .* \(No such file"):
        AnimationRecorder(tmp_path / "missing" / f"a{suffix}", 64, 48)


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    recorder = AnimationRecorder(tmp_path / "a.gif", 64, 64)
    noise = np.random.default_rng(0)

    def fill() -> None:
        for index in range(25):
            recorder.frame(noise.integers(0, 255, (64, 64, 3), np.uint8), index / 10)
        recorder.close()

    with room(40_000), pytest.raises(OutputError, match="cannot record to"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_the_command_records_one(
    exact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--offline", "--headless", "--model", str(demo_folder()), "--device", "cpu"]
    path = tmp_path / "run.webp"
    assert main(["--source", str(exact), "--record", str(path), *options]) == 0
    assert f"recorded: {path}" in capsys.readouterr().err
    with Image.open(path) as image:
        assert image.n_frames == 10
