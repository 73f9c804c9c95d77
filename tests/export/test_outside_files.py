"""What is read from outside: bounded, and by no other name than its own."""

import os
import shutil
from pathlib import Path

import av
import pytest

from denseav.export.outside_files import (
    ffmpeg_name,
    parse_json,
    read_bounded,
    require_file,
    within,
)

NAMES = [
    "2024-05-01T12:30:15.mp4",
    "http:__camera.mp4",
    "take%03d.mp4",
    "-i.mp4",
    "pipe:0",
    "concat:a|b.mp4",
    "a b'\"#?&.mp4",
    "line\nbreak.mp4",
    "日本.mp4",
    os.fsdecode(b"caf\xe9.mp4"),
]


@pytest.mark.parametrize("name", NAMES)
def test_ffmpeg_opens_the_file_of_any_name(
    tmp_path: Path, name: str, exact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(exact, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for path in (name, Path(name), tmp_path / name):
        with av.open(ffmpeg_name(path)) as container:
            assert container.streams.video[0].frames == 25


@pytest.mark.parametrize("name", NAMES)
def test_ffmpeg_writes_the_file_of_any_name(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with av.open(ffmpeg_name(name), "w", format="wav") as container:
        container.add_stream("pcm_s16le", rate=8000)
        container.start_encoding()
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_reading_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bounded(tmp_path / "file", 5) == b"12345"
    assert read_bounded(tmp_path / "file", 2**50) == b"12345"  # a bound is not allocated
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_bounded(tmp_path / "file", 4)


def test_a_pipe_a_folder_and_a_device_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero"), tmp_path / "a\0b"):
        with pytest.raises(OSError):  # noqa: PT011 - each system says it otherwise
            read_bounded(path, 10)
        with pytest.raises(OSError):  # noqa: PT011
            require_file(path)


@pytest.mark.parametrize("name", ["..", "../x", "a/../../x", "/x", "a/../../folder2/x"])
def test_names_do_not_lead_out_of_a_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    with pytest.raises(ValueError, match="leads out of"):
        within(folder, name)
    assert within(folder, "a/../b") == folder / "a/../b"


def test_names_in_the_folder_one_stands_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert within(Path(), "a/b") == Path("a/b")
    with pytest.raises(ValueError, match="leads out of"):
        within(Path(), "../b")


@pytest.mark.parametrize("text", ["[" * 10**6, '{"a":' * 10**6, "NaN", "1e999", '"\\ud800"', ""])
def test_json_is_read_or_refused_in_a_line(text: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        parse_json(text.encode(), float)
    assert "\n" not in str(refused.value)
