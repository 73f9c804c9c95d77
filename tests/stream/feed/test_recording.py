"""Recordings: whole up to where they were cut, opened by other tools, and those of before."""

import struct
import subprocess
import sys
import threading
import zlib
from contextlib import closing, suppress
from pathlib import Path

import mcap.reader
import pytest

from denseav.stream.errors import OutputError, SourceError
from denseav.stream.feed.client import HeatmapSubscriber, StatusSubscriber, decode
from denseav.stream.feed.message import Envelope
from denseav.stream.feed.recording import Recording, check_whole, messages
from denseav.stream.feed.replay import replay
from denseav.stream.feed.sockets import FeedSockets
from tests.support.feeds import RUN, free_endpoint, make_recording, message, status_of
from tests.support.stalls import until


def old_recording(path: Path, count: int) -> list[bytes]:
    """As versions before MCAP wrote it."""
    envelope = Envelope("heat", "cam0", RUN)
    kept = [message(index, envelope=envelope) for index in range(count)]
    parts = [struct.pack("<QI", index * 10**7, len(each)) + each for index, each in enumerate(kept)]
    path.write_bytes(b"DNAVREC1" + struct.pack("<Q", count) + b"".join(parts))
    return kept


def test_a_recording_cut_anywhere_holds_what_was_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    kept = make_recording(path, 3)
    whole, most = path.read_bytes(), 0
    for length in range(8, len(whole), 97):
        path.write_bytes(whole[:length])
        found = [data for _, data in messages(path)]
        assert found == kept[: len(found)]
        assert len(found) >= most
        most = len(found)
        if found:
            assert not check_whole(path).finished
    assert most == 3
    path.write_bytes(whole)
    assert (check_whole(path).finished, check_whole(path).count) == (True, 3)


def recording_of_two(path: Path) -> list[bytes]:
    """Cameras by turns; of the second, every third message never came."""
    one, other = Envelope("heat", "cam", RUN), Envelope("heat", "cam2", RUN[::-1])
    kept = []
    with closing(Recording(path)) as recording:
        for index in range(12):
            each = message(index, envelope=other if index % 2 else one)
            if index % 6 == 5:
                continue
            recording.add(decode(each))
            kept.append(each)
        assert recording.gaps == 1, "the last one is not missed by anybody yet"
    return kept


def test_several_cameras_are_kept_and_sent_again_each_with_its_topics(tmp_path: Path) -> None:
    path, endpoint, sent = tmp_path / "run.mcap", free_endpoint(), []
    kept = recording_of_two(path)
    contents = check_whole(path)
    assert [first.header["camera"] for first in contents.firsts] == ["cam", "cam2"]
    sockets = FeedSockets(endpoint, ["cam", "cam2"], None)
    replaying = threading.Thread(target=replay, args=(path, contents.firsts, sockets))
    with (
        StatusSubscriber(status_of(endpoint), camera="cam") as first,
        StatusSubscriber(status_of(endpoint), camera="cam2") as second,
    ):
        replaying.start()
        runs = {next(each).run for each in (first, second)}
        assert runs == {message.run for message in contents.firsts}
        with HeatmapSubscriber(endpoint, tap=lambda each: sent.append(each.data)):
            replaying.join()
            until(lambda: {decode(each).header["camera"] for each in sent} == {"cam", "cam2"})
    sockets.close()
    assert sent == [each for each in kept if each in sent], "but for those that a stall has cost"


def test_a_file_that_is_damaged_is_refused_and_its_messages_are_not_altered(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    kept = make_recording(path, 3)
    whole = path.read_bytes()
    for place in range(8, whole.index(kept[2]), 61):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        found: list[bytes] = []
        with suppress(SourceError):
            found.extend(data for _, data in messages(path))
            assert found == kept  # it was no part of a message
        assert found == kept[: len(found)]


@pytest.mark.parametrize("content", [b"", b"DNAV", b"RIFF" + bytes(100), b"\x89MCAP1\r\n"])
def test_what_is_no_recording_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run").write_bytes(content)
    with pytest.raises(SourceError, match="no recording"):
        list(messages(tmp_path / "run"))


def test_a_record_as_large_as_it_likes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    path.write_bytes(b"\x89MCAP0\r\n" + struct.pack("<BQ", 6, 1 << 40))
    with pytest.raises(SourceError, match="exceeds limit"):
        list(messages(path))


def test_a_length_within_a_record_is_not_believed(tmp_path: Path) -> None:
    chunk = struct.pack("<QQQIIQ", 0, 0, 0, 0, 0, 2**50)
    record = b"\x06" + struct.pack("<Q", len(chunk)) + chunk
    (tmp_path / "a.mcap").write_bytes(b"\x89MCAP0\r\n" + record + bytes(100))
    with pytest.raises(SourceError, match=r"damaged \(a length of 1,125,899,906,842,624 bytes\)"):
        list(messages(tmp_path / "a.mcap"))


def test_a_compressed_chunk_is_not_unpacked(tmp_path: Path) -> None:
    packed = zlib.compress(bytes(1 << 20))
    name = struct.pack("<I", 4) + b"zstd"
    body = struct.pack("<QQQI", 0, 0, 1 << 50, 0) + name + struct.pack("<Q", len(packed)) + packed
    path = tmp_path / "run.mcap"
    path.write_bytes(b"\x89MCAP0\r\n" + struct.pack("<BQ", 6, len(body)) + body)
    with pytest.raises(SourceError, match="compressed"):
        list(messages(path))


def test_a_recording_does_not_overwrite(tmp_path: Path) -> None:
    make_recording(tmp_path / "run.mcap")
    with pytest.raises(OutputError, match="exists already"):
        Recording(tmp_path / "run.mcap")


def test_a_recording_keeps_bytes_and_spacing(tmp_path: Path) -> None:
    kept = make_recording(tmp_path / "run.mcap", 4)
    times_s, data = zip(*messages(tmp_path / "run.mcap"), strict=True)
    assert list(data) == kept
    assert times_s[0] == 0
    assert list(times_s) == sorted(times_s)
    assert list(tmp_path.iterdir()) == [tmp_path / "run.mcap"]


def test_a_recording_that_is_not_closed_holds_all_that_was_added(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "run.mcap")
    recording.add(decode(message()))
    assert [data for _, data in messages(tmp_path / "run.mcap")] == [message_of(recording)]
    recording.close()
    recording.close()
    assert check_whole(tmp_path / "run.mcap").finished


def message_of(recording: Recording) -> bytes:
    """The bytes that its file holds, read by another reader."""
    with recording._path.open("rb") as file:
        reader = mcap.reader.NonSeekingReader(file).iter_messages(log_time_order=False)
        return next(found.data for _, channel, found in reader if channel.topic == "/cam0")


def test_a_recording_of_before_is_read_and_refused_when_cut(tmp_path: Path) -> None:
    path = tmp_path / "run.feed"
    kept = old_recording(path, 3)
    times_s, data = zip(*messages(path), strict=True)
    assert list(data) == kept
    assert list(times_s) == [0.0, 0.01, 0.02]
    assert check_whole(path).finished
    whole = path.read_bytes()
    for length in range(8, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(SourceError, match=r"cut short|no recording"):
            list(messages(path))
    path.write_bytes(whole + b"x")
    with pytest.raises(SourceError, match="goes on"):
        list(messages(path))


def test_a_publisher_that_names_its_heads_anew_each_time_makes_no_endless_index(
    tmp_path: Path,
) -> None:
    recording = Recording(tmp_path / "run.mcap")
    one = decode(message())
    for index in range(100):
        heads = {f"{name}{index}": head for name, head in one.heads.items()}
        renamed = [type(head)(**{**vars(head), "name": name}) for name, head in heads.items()]
        recording.add(type(one)(**{**vars(one), "heads": dict(zip(heads, renamed, strict=True))}))
    recording.close()
    with (tmp_path / "run.mcap").open("rb") as file:
        summary = mcap.reader.make_reader(file).get_summary()
    assert summary is not None
    assert len(summary.channels) <= 65
    assert len(list(messages(tmp_path / "run.mcap"))) == 100


@pytest.mark.parametrize("cut", [False, True], ids=["finished", "cut"])
def test_rerun_opens_a_recording(tmp_path: Path, cut: bool) -> None:
    """Another program's reader: it finds each head's map as an image, also after a power cut."""
    path = tmp_path / "run.mcap"
    make_recording(path, 5)
    if cut:
        path.write_bytes(path.read_bytes()[:-2500])
    rerun, out = str(Path(sys.executable).with_name("rerun")), str(tmp_path / "run.rrd")
    convert = [rerun, "mcap", "convert", *(["--recover"] if cut else []), str(path), "-o", out]
    subprocess.run(convert, check=True, capture_output=True, timeout=60)
    printed = [rerun, "rrd", "print", out]
    shown = subprocess.run(printed, check=True, capture_output=True, text=True, timeout=60).stdout
    for head in ("sound", "speech"):
        found = [line for line in shown.splitlines() if f"/cam0/heat/{head}" in line]
        assert sum("Image:buffer" in line for line in found) >= 3
