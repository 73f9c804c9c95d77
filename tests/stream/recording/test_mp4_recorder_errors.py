import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest

from denseav.stream.errors import OutputError
from denseav.stream.recording.mp4_recorder import Recorder
from denseav.stream.recording.places import snapshot


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
from denseav.stream.recording.mp4_recorder import Recorder

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit, frames = int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
rng = np.random.default_rng(0)
try:
    recorder = Recorder(Path(sys.argv[1]), 320, 240)
    for i in range(frames):
        recorder.frame(rng.integers(0, 255, (240, 320, 3), np.uint8), i / 30)
    recorder.close()
except OutputError as error:
    print(error)
else:
    sys.exit("nothing failed")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize(("limit", "frames"), [(2_500_000, 120), (2_680_000, 89)])
def test_a_full_disk_is_one_line_and_what_was_recorded_plays(
    tmp_path: Path, limit: int, frames: int
):
    path = tmp_path / "run.mp4"
    said = full_disk(path, limit, frames)
    assert f"cannot write the recording {path} (" in said
    assert f"kept in {tmp_path / 'run.part.mp4'}" in said
    assert [path.name for path in tmp_path.iterdir()] == ["run.part.mp4"]
    assert 29 <= pictures(tmp_path / "run.part.mp4") < frames


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize(("limit", "frames"), [(200_000, 20), (20_000, 4), (0, 4)])
def test_a_disk_full_from_the_start_leaves_nothing_behind(tmp_path: Path, limit: int, frames: int):
    said = full_disk(tmp_path / "run.mp4", limit, frames)
    assert "choose a folder that exists, can be written and has space left" in said
    assert list(tmp_path.iterdir()) == []


def full_disk(path: Path, limit: int, frames: int) -> str:
    """Record on a disk that takes so many bytes, and return the last line that was said."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path), str(limit), str(frames)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines()[-1]


def pictures(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from denseav.stream.types import AudioBlock
from denseav.stream.recording.mp4_recorder import Recorder

recorder = Recorder(Path(sys.argv[1]), 320, 240)
for i in range(int(sys.argv[2])):
    recorder.frame(np.full((240, 320, 3), i % 250, np.uint8), i / 25)
    sound_SC = np.full((1920, 1), 0.1, np.float32)
    recorder.audio(AudioBlock(sound_SC, 48_000, 1920 * i, i / 25))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_recording_plays_but_for_its_last_seconds(tmp_path: Path):
    path = tmp_path / "run.mp4"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), "200"], timeout=60)
    assert done.returncode < 0
    assert [path.name for path in tmp_path.iterdir()] == ["run.part.mp4"]
    assert pictures(tmp_path / "run.part.mp4") >= 200 - 25 * 2
    with av.open(str(tmp_path / "run.part.mp4")) as container:
        heard_s = sum(frame.samples for frame in container.decode(audio=0)) / 48_000
    assert heard_s >= 8 - 2


@pytest.mark.parametrize("kind", ["file", "link", "dangling link"])
@pytest.mark.parametrize("name", ["run.mp4", "run.part.mp4"])
def test_what_is_there_is_neither_overwritten_nor_followed(tmp_path: Path, name: str, kind: str):
    there, target = tmp_path / name, tmp_path / "elsewhere"
    if kind != "dangling link":
        target.write_text("precious")
    if kind == "file":
        target.rename(there)
    else:
        there.symlink_to(target)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match="exists already"):
        Recorder(tmp_path / "run.mp4", 128, 96)
    assert sorted(tmp_path.iterdir()) == before
    assert kind == "dangling link" or there.read_text() == "precious"


def test_of_two_recordings_into_one_file_the_second_is_refused(tmp_path: Path):
    first = Recorder(tmp_path / "run.mp4", 128, 96)
    with pytest.raises(OutputError, match="another run records there"):
        Recorder(tmp_path / "run.mp4", 128, 96)
    first.frame(np.zeros((96, 128, 3), np.uint8), 0.0)
    assert first.close() == tmp_path / "run.mp4"


def test_a_name_that_is_taken_meanwhile_stays_the_others_and_the_recording_is_kept(tmp_path: Path):
    recorder = Recorder(tmp_path / "run.mp4", 128, 96)
    recorder.frame(np.zeros((96, 128, 3), np.uint8), 0.0)
    (tmp_path / "run.mp4").write_text("precious")
    with pytest.raises(OutputError, match="File exists"):
        recorder.close()
    assert (tmp_path / "run.mp4").read_text() == "precious"
    assert pictures(tmp_path / "run.part.mp4") == 1


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


def test_where_memory_runs_out_what_was_recorded_plays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> None:
        raise MemoryError("cannot allocate a picture")

    recorder = Recorder(tmp_path / "run.mp4", 128, 96, sound=False)
    rng = np.random.default_rng(0)
    for index in range(200):
        recorder.frame(rng.integers(0, 255, (96, 128, 3), np.uint8), index / 30)
    monkeypatch.setattr(recorder._film, "_video", SimpleNamespace(encode=fail))
    with pytest.raises(OutputError, match=r"\(MemoryError: cannot .*kept in .*run\.part\.mp4"):
        recorder.close()
    assert pictures(tmp_path / "run.part.mp4") > 60
