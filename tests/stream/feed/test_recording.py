"""Recordings: whole or refused."""

from pathlib import Path

import pytest

from denseav.stream.errors import OutputError, SourceError
from denseav.stream.feed.recording import Recording, messages
from tests.support.feeds import make_recording


def test_a_recording_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.feed"
    make_recording(path, 3)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(SourceError, match=r"cut short|no recording"):
            list(messages(path))
    path.write_bytes(whole + b"x")
    with pytest.raises(SourceError, match="goes on"):
        list(messages(path))


def test_a_recording_does_not_overwrite(tmp_path: Path) -> None:
    make_recording(tmp_path / "run.feed")
    with pytest.raises(OutputError, match="exists already"):
        Recording(tmp_path / "run.feed")


def test_a_recording_keeps_bytes_and_spacing(tmp_path: Path) -> None:
    kept = make_recording(tmp_path / "run.feed", 4)
    times_s, data = zip(*messages(tmp_path / "run.feed"), strict=True)
    assert list(data) == kept
    assert times_s[0] == 0
    assert list(times_s) == sorted(times_s)
    assert list(tmp_path.iterdir()) == [tmp_path / "run.feed"]


def test_a_recording_that_is_not_closed_has_no_name(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "run.feed")
    recording.add(b"something")
    assert not (tmp_path / "run.feed").exists()
    recording.close()
    recording.close()
    assert len(list(messages(tmp_path / "run.feed"))) == 1
