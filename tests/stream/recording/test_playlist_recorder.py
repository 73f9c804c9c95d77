import errno
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from denseav.stream.errors import OutputError
from denseav.stream.recording.playlist_recorder import SEGMENT_S, PlaylistRecorder
from denseav.stream.types import AudioBlock

FPS, RATE_HZ = 10, 16_000


def record(recorder: PlaylistRecorder, seconds: float, begin_s: float = 500.0) -> None:
    """A second bright, a second dark; noise all the while."""
    rng = np.random.default_rng(0)
    for index in range(round(seconds * FPS)):
        samples_SC = rng.normal(0, 0.1, (RATE_HZ // FPS, 1)).astype(np.float32)
        first = index * RATE_HZ // FPS
        recorder.audio(AudioBlock(samples_SC, RATE_HZ, first, begin_s + index / FPS))
        value = 200 if (index // FPS) % 2 else 30
        recorder.frame(np.full((96, 128, 3), value, np.uint8), begin_s + index / FPS)


def seen(path: Path) -> tuple[list[float], list[int], float]:
    """The times of pictures from the first on, their brightness, and how long there is sound."""
    with av.open(f"file:{path}") as container:
        frames = list(container.decode(video=0))
    with av.open(f"file:{path}") as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    times_s = [round(frame.time - frames[0].time, 3) for frame in frames]
    bright = [round(float(frame.to_ndarray(format="gray").mean())) for frame in frames]
    return times_s, bright, samples / 48_000


def test_pictures_and_sound_are_in_a_playlist_of_whole_segments(tmp_path: Path) -> None:
    path = tmp_path / "Run-12.30_a.m3u8"
    recorder = PlaylistRecorder(path, 128, 96)
    record(recorder, 7)
    assert recorder.close() == path
    names = sorted(each.name for each in tmp_path.iterdir())
    assert names == ["Run-12.30_a" + end for end in (*(f"-0000{i}.ts" for i in range(4)), ".m3u8")]
    lasts = [float(line[8:-1]) for line in path.read_text().splitlines() if "EXTINF" in line]
    assert lasts == [2, 2, 2, 1]
    times_s, bright, sound_s = seen(path)
    assert times_s == [index / FPS for index in range(7 * FPS)]
    assert all(
        abs(b - (200 if int(t) % 2 else 30)) < 10 for t, b in zip(times_s, bright, strict=True)
    )
    assert abs(sound_s - 7) < 0.1


def test_a_playlist_in_this_folder_names_its_segments_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recorder = PlaylistRecorder(Path("run.m3u8"), 128, 96)
    record(recorder, 1)
    assert recorder.close() == Path("run.m3u8")
    assert "\nrun-00000.ts\n" in Path("run.m3u8").read_text()


def test_it_plays_while_it_grows(tmp_path: Path) -> None:
    recorder = PlaylistRecorder(tmp_path / "run.m3u8", 128, 96)
    record(recorder, 9)
    said = (tmp_path / "run.m3u8").read_text()
    assert "#EXT-X-ENDLIST" not in said
    assert said.count("#EXTINF") >= 2
    # To the end as it is now, and not waiting for more.
    (tmp_path / "now.m3u8").write_text(said + "#EXT-X-ENDLIST\n")
    times_s, _, _ = seen(tmp_path / "now.m3u8")
    assert times_s == [index / FPS for index in range(len(times_s))]
    assert len(times_s) >= 2 * SEGMENT_S * FPS
    recorder.close()


@pytest.mark.parametrize("name", ["12:30.m3u8", "a%d.m3u8", "ein Film.m3u8", "höre.m3u8"])
def test_a_name_that_players_would_misread_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="alone"):
        PlaylistRecorder(tmp_path / name, 128, 96)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    for name in ("run.m3u8", "run-00000.ts"):
        (tmp_path / name).write_text("precious")
        with pytest.raises(OutputError, match="exists already"):
            PlaylistRecorder(tmp_path / "run.m3u8", 128, 96)
        assert (tmp_path / name).read_text() == "precious"
        (tmp_path / name).unlink()
    (tmp_path / "run-down.ts").write_text("another's")
    PlaylistRecorder(tmp_path / "run.m3u8", 128, 96).close()
    assert [each.name for each in tmp_path.iterdir()] == ["run-down.ts"]


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="choose a folder that exists") as caught:
        PlaylistRecorder(tmp_path / "none" / "run.m3u8", 128, 96)
    assert "\n" not in str(caught.value)


def test_a_disk_that_is_full_at_the_playlist_leaves_the_one_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, whole = tmp_path / "run.m3u8", Path.write_bytes

    def full(part: Path, data: bytes) -> int:
        whole(part, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    recorder = PlaylistRecorder(path, 128, 96)
    record(recorder, 5)
    before = path.read_bytes()
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="kept there"):
        record(recorder, 3, 505.0)
    assert path.read_bytes() == before
    named = [line for line in before.decode().splitlines() if line.endswith(".ts")]
    assert sorted(each.name for each in tmp_path.iterdir()) == [*named, "run.m3u8"]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from denseav.stream.errors import OutputError
from denseav.stream.recording.playlist_recorder import PlaylistRecorder
from tests.stream.recording.test_playlist_recorder import record
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
recorder = PlaylistRecorder(Path(sys.argv[1]), 128, 96)
try:
    record(recorder, 7)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    record(recorder, 5, 510.0)
    recorder.close()
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_on_a_full_disk_what_was_whole_stays_and_plays(tmp_path: Path) -> None:
    path = tmp_path / "run.m3u8"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True
    )
    assert "kept there" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    (tmp_path / "now.m3u8").write_text(
        path.read_text().replace("#EXT-X-ENDLIST\n", "") + "#EXT-X-ENDLIST\n"
    )
    times_s, _, _ = seen(tmp_path / "now.m3u8")
    assert len(times_s) >= 2 * SEGMENT_S * FPS
