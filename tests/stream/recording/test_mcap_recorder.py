"""Recordings of a run: readable by others, whole wherever they are cut, and played again."""

import json
import shutil
import struct
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mcap.exceptions import EndOfFile
from mcap.reader import NonSeekingReader, make_reader
from mcap.stream_reader import StreamReader

import denseav
from denseav.export.runtime.bundle import demo_folder
from denseav.stream.cli.live import main
from denseav.stream.errors import OutputError, SourceError
from denseav.stream.recording.foxglove_channels import Inputs
from denseav.stream.recording.mcap_recorder import McapRecorder
from denseav.stream.sources.recorded_run import RecordedRun
from denseav.stream.types import AudioBlock, Frame, Heatmap
from tests.support.disk import room
from tests.support.fake_session import fake_manifest
from tests.support.media import cut, grey

HEADS = fake_manifest().heads
SEED = np.random.default_rng(0)
RATE_HZ = 16_000


def frame(index: int) -> Frame:
    return Frame(grey(9 * index % 250), index, index / 25)


def block(index: int, first_sample: int | None = None) -> AudioBlock:
    pcm_SC = SEED.integers(-(2**15), 2**15, (400, 2)).astype(np.float32) / 2**15
    first = 400 * index if first_sample is None else first_sample
    return AudioBlock(pcm_SC, RATE_HZ, first, first / RATE_HZ)


def heatmap(index: int, heat: float = 0.5) -> Heatmap:
    heat_KHW = np.full((2, 2, 3), heat, np.float32)
    heat_KHW[0, 1, 2] = 1.0
    return Heatmap(frame(index), heat_KHW, (True, False), 0.0, 0.2, -20.0, 9.0)


def record(path: Path, frames: int, flush_each: bool = False) -> list[AudioBlock]:
    """Record frames of 40 ms with the audio of that time, and leave the file open."""
    recorder, blocks = McapRecorder(path, HEADS, lambda: {"fps": 25.0}), []
    for index in range(frames):
        for part in (2 * index, 2 * index + 1):
            blocks.append(block(part))
            recorder.audio(blocks[-1])
        if flush_each:
            recorder._written_s = 0.0
        recorder.heatmap(heatmap(index))
    recorder._channels._told_s = 0.0
    recorder.poll()
    recorder.close()
    return blocks


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[AudioBlock]]:
    path = tmp_path_factory.mktemp("mcap") / "run.mcap"
    return path, record(path, 12, flush_each=True)


def test_other_readers_find_every_message_by_its_index(recorded: tuple[Path, Any]) -> None:
    path, blocks = recorded
    with path.open("rb") as file:
        reader = make_reader(file)
        summary = reader.get_summary()
        found = {
            (channel.topic, schema.name if schema else "")
            for schema, channel, _ in reader.iter_messages()
        }
    assert summary is not None
    assert summary.statistics is not None
    assert len(summary.chunk_indexes) >= 12
    assert summary.statistics.message_count == 12 * 5 + 2 * len(blocks) + 1
    assert found == {
        ("/camera", "foxglove.CompressedImage"),
        ("/audio", "foxglove.RawAudio"),
        ("/audio/block", "denseav.AudioBlock"),
        ("/frame", "denseav.Frame"),
        ("/heat/speech", "foxglove.RawImage"),
        ("/heat/sound", "foxglove.RawImage"),
        ("/places", "foxglove.ImageAnnotations"),
        ("/status", "denseav.Status"),
    }


@pytest.mark.parametrize("own", [True, False])
def test_several_cameras_have_their_topics_below_their_names(tmp_path: Path, own: bool) -> None:
    names = ("door", "yard")
    inputs = Inputs(cameras=names, microphones=names if own else (None,))
    recorder = McapRecorder(tmp_path / "two.mcap", HEADS, dict, inputs)
    for index in range(3):
        for number in range(2):
            if own or number == 0:
                recorder.audio(replace(block(index), microphone=number))
            given = heatmap(index, heat=0.25 * (number + 1))
            recorder.heatmap(replace(given, frame=replace(given.frame, camera=number)))
    path = recorder.close()
    assert path is not None
    with path.open("rb") as file:
        found = Counter(channel.topic for _, channel, _ in make_reader(file).iter_messages())
        file.seek(0)
        maps = [
            message.data for _, _, message in make_reader(file).iter_messages("/yard/heat/sound")
        ]
    kinds = ("camera", "frame", "heat/speech", "heat/sound", "places")
    kinds += ("audio", "audio/block") if own else ()
    right = {f"/{name}/{kind}": 3 for name in names for kind in kinds}
    assert found == (right if own else {**right, "/audio": 3, "/audio/block": 3})
    assert all(np.float32(0.5).tobytes() in data for data in maps)
    with pytest.raises(SourceError, match=r"several cameras \(door, yard\)"):
        RecordedRun(path)


def test_what_is_said_of_a_frame_is_what_was_found(recorded: tuple[Path, Any]) -> None:
    with recorded[0].open("rb") as file:
        said = [json.loads(m.data) for *_, m in make_reader(file).iter_messages(["/frame"])]
    assert [each["index"] for each in said] == list(range(12))
    speech, sound = said[0]["heads"]
    assert (speech["name"], speech["valid"], speech["score"]) == ("speech", True, 1.0)
    assert speech["peak"] == pytest.approx([64 * 5 / 6, 48 * 3 / 4], abs=0.001)
    assert (sound["valid"], sound["peak"], sound["box"]) == (False, None, None)


def test_it_plays_the_very_audio_again_and_nearly_the_pictures(
    recorded: tuple[Path, list[AudioBlock]],
) -> None:
    path, blocks = recorded
    film = RecordedRun(path)
    assert (film.name, film.rate_hz, film.fps) == ("run.mcap", RATE_HZ, pytest.approx(25))
    items = list(film)
    assert [type(item) for item in items[:4]] == [Frame, AudioBlock, Frame, AudioBlock]
    again = [item for item in items if isinstance(item, AudioBlock)]
    assert len(again) == len(blocks)
    for played, given in zip(again, blocks, strict=True):
        np.testing.assert_array_equal(played.samples_SC, given.samples_SC)
        assert played.first_sample == given.first_sample
        assert played.capture_s == pytest.approx(given.capture_s, abs=1e-6)
    frames = [item for item in items if isinstance(item, Frame)]
    for index, played_frame in enumerate(frames):
        assert played_frame.capture_s == pytest.approx(index / 25, abs=1e-6)
        difference = played_frame.image_HW3.astype(int) - frame(index).image_HW3
        assert abs(difference).max() <= 1


def test_a_gap_in_the_audio_stays_one(tmp_path: Path) -> None:
    recorder = McapRecorder(tmp_path / "gap.mcap", HEADS, dict)
    for first_sample in (0, 400, 9_000):
        recorder.audio(block(0, first_sample))
    recorder.heatmap(heatmap(0))
    recorder.close()
    film = RecordedRun(tmp_path / "gap.mcap")
    assert [i.first_sample for i in film if isinstance(i, AudioBlock)] == [0, 400, 9_000]


def test_wherever_it_is_cut_what_was_flushed_is_read(
    recorded: tuple[Path, Any], tmp_path: Path
) -> None:
    data = recorded[0].read_bytes()
    with recorded[0].open("rb") as file:
        whole = [file.tell() for _ in StreamReader(file, emit_chunks=True).records]
    cuts = SEED.integers(whole[12], len(data), 20).tolist()
    path = tmp_path / "cut.mcap"
    for end in [*cuts, whole[12], len(data) - 1]:
        path.write_bytes(data[:end])
        read = [type(item) for item in RecordedRun(path)]
        by_others: Counter[str] = Counter()
        with path.open("rb") as file, suppress(EndOfFile, struct.error):  # which it may say
            for _, channel, _ in NonSeekingReader(file).iter_messages(log_time_order=False):
                by_others[channel.topic] += 1
        assert read.count(Frame) == by_others["/camera"] > 0
        assert read.count(AudioBlock) == by_others["/audio"] > 0


@pytest.mark.parametrize(("share", "options"), [(1.0, []), (0.7, ["--recover"])])
def test_rerun_reads_it_too_whole_or_cut(
    recorded: tuple[Path, Any], share: float, options: list[str], tmp_path: Path
) -> None:
    rerun = shutil.which("rerun", path=str(Path(sys.executable).parent))
    assert rerun is not None
    out = tmp_path / "run.rrd"
    given = cut(recorded[0], tmp_path / "given.mcap", share)
    command = [rerun, "mcap", "convert", *options, str(given), "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    shown = subprocess.run(
        [rerun, "rrd", "print", str(out)], capture_output=True, text=True, timeout=60, check=True
    )
    for topic in ("/camera", "/heat/sound", "/places", "/frame"):
        assert topic in shown.stdout


def test_a_full_disk_is_said_and_leaves_what_was_whole(tmp_path: Path) -> None:
    path = tmp_path / "full.mcap"
    recorder = McapRecorder(path, HEADS, dict)

    def fill() -> None:
        for index in range(200):
            recorder.audio(block(index))
            recorder._written_s = 0.0
            recorder.heatmap(heatmap(index))

    with room(20_000), pytest.raises(OutputError, match=r"cannot go on recording .*; make space"):
        fill()
    assert 0 < path.stat().st_size < 20_000
    frames = [item for item in RecordedRun(path) if isinstance(item, Frame)]
    assert len(frames) >= 2
    assert recorder.close() is None


def test_a_file_is_never_replaced_and_without_a_frame_there_is_none(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    recorder = McapRecorder(path, HEADS, dict)
    recorder.audio(block(0))
    with pytest.raises(OutputError, match="exists already"):
        McapRecorder(path, HEADS, dict)
    assert recorder.close() is None
    assert not path.exists()
    with pytest.raises(OutputError, match="choose a folder"):
        McapRecorder(tmp_path / "missing" / "run.mcap", HEADS, dict)


def test_the_command_records_and_plays_again_with_the_same_heat(
    exact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--offline", "--headless", "--audio", "window", "--model", str(demo_folder())]
    path = tmp_path / "run.mcap"
    assert main(["--source", str(exact), "--record", str(path), *options]) == 0
    assert f"recorded: {path}" in capsys.readouterr().err
    given: dict[str, Any] = {"offline": True, "model": demo_folder(), "device": "cpu"}
    heat = []
    for source in (exact, path):
        with denseav.live(source=source, **given) as stream:
            heat.append([[head.heat for head in frame.heads.values()] for frame in stream])
    first, again = np.array(heat[0]), np.array(heat[1])
    assert first.shape == again.shape == (25, 2, *first.shape[2:])
    np.testing.assert_allclose(again, first, atol=0.05)
    assert np.ptp(first) > 0.5


def test_a_live_recording_played_again_compares_each_frame_with_the_audio_of_before(
    exact: Path, tmp_path: Path
) -> None:
    path, options = tmp_path / "run.mcap", ["--headless", "--model", str(demo_folder())]
    # Of its frames, 40 ms apart, some lie just where tokens, 180 ms apart, meet: on either side.
    options += ["--sync", "exact", "--av-offset-ms", "7", "--record", str(path)]
    assert main(["--source", str(exact), *options]) == 0
    with path.open("rb") as file:
        said = [json.loads(m.data) for *_, m in make_reader(file).iter_messages(["/frame"])]
    again: dict[str, Any] = {"source": path, "offline": True, "sync": "exact", "device": "cpu"}
    with denseav.live(**again, model=demo_folder()) as stream:
        played = list(stream)
    assert len(played) == len(said) > 0
    for then, now in zip(said, played, strict=True):
        if then["audio_end_s"] is not None:  # a slow machine had heard nothing yet
            assert now.audio_end_s is not None
            ahead_s = then["audio_end_s"] - then["capture_s"]
            assert now.audio_end_s - now.capture_s == pytest.approx(ahead_s, abs=1e-6)
            assert now.audio_dbfs == pytest.approx(then["audio_dbfs"], abs=0.01)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "holds no pictures of a run"),
        (b"\x89MCAP0\r\n", "holds no pictures of a run"),
        (b"nothing of the kind " * 9, "is damaged"),
    ],
)
def test_what_is_no_recording_is_told(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.mcap"
    path.write_bytes(data)
    with pytest.raises(SourceError, match=words):
        RecordedRun(path)
    with pytest.raises(SourceError, match="No such file"):
        RecordedRun(tmp_path / "missing.mcap")


def test_a_picture_is_measured_before_it_is_decoded(
    recorded: tuple[Path, Any], tmp_path: Path
) -> None:
    _, jpeg = cv2.imencode(".jpg", grey(0), [cv2.IMWRITE_JPEG_QUALITY, 95])
    size = jpeg.tobytes()[jpeg.tobytes().index(b"\xff\xc0") + 5 :][:4]
    data = recorded[0].read_bytes()
    assert data.count(size) >= 12
    path = tmp_path / "large.mcap"
    # With the sizes go the chunks' checksums, so that the damage is one of the content alone.
    path.write_bytes(data.replace(size, b"\xff\xf0\xff\xf0"))
    with pytest.raises(SourceError, match="is damaged"):
        list(RecordedRun(path))
