import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from denseav.stream.display.mp4_recorder import Recorder, snapshot
from denseav.stream.errors import OutputError


def test_an_existing_file_is_not_overwritten(tmp_path: Path):
    (tmp_path / "run.mp4").write_text("precious")
    with pytest.raises(OutputError, match="choose another name or delete it"):
        Recorder(tmp_path / "run.mp4", 128, 96)
    assert (tmp_path / "run.mp4").read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing/run.mp4", "No such file or directory"),
        ("file/run.mp4", "Not a directory"),
        ("run.avi", "name it NAME.mp4"),
    ],
)
def test_where_nothing_can_be_written_one_line_says_so(tmp_path: Path, name: str, message: str):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=message) as caught:
        Recorder(tmp_path / name, 128, 96)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from denseav.stream.errors import OutputError
from denseav.stream.types import AudioBlock
from denseav.stream.display.mp4_recorder import Recorder

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit, frames = int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
rng = np.random.default_rng(0)
try:
    recorder = Recorder(Path(sys.argv[1]), 320, 240)
    for i in range(frames):
        recorder.frame(rng.integers(0, 255, (240, 320, 3), np.uint8), i / 30)
    print("closing")
    recorder.close()
except OutputError as error:
    print(error)
    recorder.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize(("limit", "frames"), [(200_000, 60), (20_000, 4)])
def test_a_full_disk_is_one_line_and_leaves_nothing_behind(tmp_path: Path, limit: int, frames: int):
    path = tmp_path / "run.mp4"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path), str(limit), str(frames)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert f"cannot write the recording {path} (" in done.stdout.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_snapshots_are_lossless_and_never_overwrite(tmp_path: Path):
    image_HW3 = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    paths = [snapshot(image_HW3, tmp_path) for _ in range(4)]
    assert len(set(paths)) == 4
    for path in paths:
        assert re.fullmatch(r"denseav-\d{8}-\d{6}(-\d)?\.png", path.name)
        np.testing.assert_array_equal(cv2.imread(str(path)), image_HW3)


def test_a_snapshot_into_a_missing_folder_is_an_output_error(tmp_path: Path):
    with pytest.raises(OutputError, match="No such file or directory"):
        snapshot(np.zeros((48, 64, 3), np.uint8), tmp_path / "missing")
