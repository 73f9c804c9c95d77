"""denseav-data prepare: real files in, shards out, once, and what is bad is listed."""

import csv
import json
import multiprocessing
import os
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from denseav.models.audio_encoder import SAMPLE_RATE_HZ as RATE_HZ
from denseav.train.cli.data import main
from denseav.train.data.decode import (
    UnreadableError,
    cut_video,
    flac,
    jpeg,
    media_reader,
    read_sound,
)
from denseav.train.data.example import decode_picture, decode_sound, sound_samples
from denseav.train.data.preparation import prepare as prepare_module
from denseav.train.data.preparation.folder_lock import WHOLE, Share, locked
from denseav.train.data.preparation.prepare import Prepared, make_part, prepare
from denseav.train.data.preparation.source_lists import Item, ItemList, list_items, readable
from denseav.train.data.shards import Clip, Shards
from denseav.train.errors import DataError
from denseav.train.eval.public_sets import audioset
from tests.support.media import cut, ffmpeg, grey, speak, tone, write_clip
from tests.support.train.crashing import CrashingFile, DeadlyPath


def clips(folder: Path) -> dict[str, Clip]:
    shards = Shards(folder)
    return {(clip := shards.clip(number)).key: clip for number in range(shards.clips)}


def video(path: Path, seconds: int, *, fps: int = 10, sound: bool = True, **how: int) -> Path:
    """A video that grows lighter by the frame, under a tone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    greys = (grey(index % 250) for index in range(seconds * fps))
    wave_SC = tone(RATE_HZ, seconds) if sound else None
    return write_clip(path, greys, wave_SC, fps=fps, rate_hz=RATE_HZ, **how)


def advanced(counts: list[int], source: Path, out: Path, jobs: int = 1) -> Prepared:
    return prepare(list_items(source), out, jobs=jobs, advance=counts.append)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good videos, one in a folder of its own, and three that cannot be used."""
    folder = tmp_path_factory.mktemp("videos")
    video(folder / "long.mov", 23)
    video(folder / "deep" / "short.mov", 2)
    video(folder / "mute.mov", 2, sound=False)
    cut(folder / "deep" / "short.mov", folder / "broken.mov", 0.5)
    (folder / "text.mp4").write_text("no video")
    (folder / "notes.txt").write_text("left alone")
    return folder


@pytest.fixture(scope="module")
def prepared(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "shards"
    assert main(["prepare", str(videos), "--out", str(out), "--jobs", "1"]) == 0
    return out


def test_videos_are_cut_into_clips_of_ten_seconds(prepared: Path) -> None:
    made = clips(prepared)
    lengths = {key: (len(clip.frames), sound_samples(clip.audio)) for key, clip in made.items()}
    assert lengths == {
        "deep/short.mov@0": (2, 32_000),
        "long.mov@0": (10, 160_000),
        "long.mov@10": (10, 160_000),
        "long.mov@20": (3, 48_000),
    }
    assert {clip.kind for clip in made.values()} == {"unknown"}
    assert made["long.mov@10"].notes == {"start_s": 10.0}


def test_frames_are_those_of_their_times(prepared: Path) -> None:
    made = clips(prepared)
    for key, first in (("long.mov@0", 5), ("long.mov@10", 105)):
        greys = [float(np.mean(decode_picture(frame))) for frame in made[key].frames]
        assert greys == pytest.approx([first + 10 * index for index in range(10)], abs=1.5)


def test_sound_is_that_of_its_times(prepared: Path) -> None:
    wave_S = decode_sound(clips(prepared)["long.mov@10"].audio, 0, 160_000).numpy()
    np.testing.assert_allclose(wave_S, tone(RATE_HZ, 23)[160_000:320_000, 0], atol=1e-3)


def test_what_cannot_be_used_is_listed_with_its_reason(prepared: Path) -> None:
    with (prepared / "skipped.tsv").open() as file:
        skipped = dict(csv.reader(file, delimiter="\t"))
    assert sorted(skipped) == ["broken.mov", "mute.mov", "text.mp4"]
    assert skipped["mute.mov"].endswith("mute.mov has no sound")
    assert "is not a media file, or is damaged or cut short (Invalid data" in skipped["text.mp4"]


def test_any_name_that_a_disk_can_hold_is_prepared_and_one_line_of_the_list(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "names"
    folder.mkdir()
    latin = os.fsdecode(b"caf\xe9.mov")
    shutil.copy(videos / "deep" / "short.mov", folder / latin)
    names = (
        "line\nfeed.mp4",
        "tab\tand\x1b[31m.mp4",
        "next\x85line.mp4",
        os.fsdecode(b"b\xe9d.mp4"),
    )
    for name in names:
        (folder / name).write_text("no video")
    out = tmp_path / "shards"
    assert main(["prepare", str(folder), "--out", str(out), "--jobs", "1"]) == 0
    assert list(clips(out)) == ["caf\\udce9.mov@0"]
    lines = (out / "skipped.tsv").read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    skipped = dict(line.split("\t") for line in lines)
    assert sorted(skipped) == sorted(map(readable, names))
    assert all("is not a media file" in reason for reason in skipped.values())
    assert "4 of 5 files were skipped" in capsys.readouterr().err
    again = prepare(list_items(folder), out, jobs=1, advance=lambda _: None)
    assert (again.clips, again.skipped) == (1, 4)


@given(st.lists(st.text(st.characters(codec=None)), min_size=2, max_size=2, unique=True))
def test_no_two_names_become_one(texts: list[str]) -> None:
    one, other = map(readable, texts)
    assert one != other
    assert (one + other).isprintable()


def test_the_summary_counts_clips_and_names_the_list(
    videos: Path, prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", str(videos), "--out", str(prepared)]) == 0
    said = capsys.readouterr().err
    assert f"4 clips in {prepared}" in said
    assert "3 of 5 files were skipped" in said
    assert "skipped.tsv" in said


def test_a_finished_folder_is_not_made_again(videos: Path, prepared: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in prepared.iterdir()}
    counts: list[int] = []
    assert advanced(counts, videos, prepared).clips == 4
    assert {path: path.stat().st_mtime_ns for path in prepared.iterdir()} == before
    assert sum(counts) == 5


def test_it_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    one = video(tmp_path / "videos" / "000.mov", 1)
    for number in range(1, 66):
        (one.parent / f"{number:03d}.mov").symlink_to(one)
    out, counts = tmp_path / "out", list[int]()
    items = list_items(one.parent)
    with pytest.raises(_StopError):
        prepare(items, out, jobs=1, advance=_stop)
    (out / "parts" / "000001.json").unlink(missing_ok=True)
    [done] = (out / "parts").glob("*.json")
    record = json.loads(done.read_text())
    shard = out / record["index"]["chunks"][0]["filename"]
    before = shard.stat().st_mtime_ns
    assert prepare(items, out, jobs=1, advance=counts.append).clips == 66
    assert sum(counts) == 66
    assert shard.stat().st_mtime_ns == before
    assert list(clips(out)) == [f"{number:03d}.mov@0" for number in range(66)]
    assert not (out / "parts").exists()


class _StopError(Exception):
    pass


class Given:
    """A layout whose rows are items."""

    def key(self, row: Item) -> str:
        return row.key

    def item(self, row: Item) -> Item:
        return row

    def fault(self, reason: str) -> DataError:
        return DataError(reason)


def _stop(_: int) -> None:
    raise _StopError


def test_a_file_that_ends_its_reader_is_skipped_and_all_else_is_kept(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "tone.wav", tone(RATE_HZ, 1), RATE_HZ)
    Image.new("RGB", (32, 32)).save(tmp_path / "plain.png")
    items = [
        Item(
            key=str(number),
            kind="sound",
            sound=tmp_path / "tone.wav",
            pictures=((CrashingFile if number in (1, 63) else Path)(tmp_path / "plain.png"),),
        )
        for number in range(66)
    ]
    out, counts = tmp_path / "out", list[int]()
    done = prepare(ItemList(items, Given()), out, jobs=1, advance=counts.append)
    assert (done.clips, done.skipped, sum(counts)) == (64, 2, 66)
    assert list(clips(out)) == [item.key for item in items if item.key not in ("1", "63")]
    for line in done.skipped_list.read_text().splitlines():
        assert "died (exit code -11), by a decoder's fault" in line


def test_workers_that_die_over_nothing_new_end_it(tmp_path: Path) -> None:
    items = [Item(key="a", kind="sound", sound=DeadlyPath(tmp_path / "tone.wav"))]
    with pytest.raises(DataError, match=r"die again and again.*fewer --jobs: what is done is kept"):
        prepare(ItemList(items, Given()), tmp_path / "out", jobs=1, advance=list[int]().append)


def test_a_part_left_half_done_is_done_anew(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "parts" / "000000").mkdir(parents=True)
    (tmp_path / "parts" / "000000" / "chunk-0-0.bin").write_text("half")
    worker = multiprocessing.get_context("forkserver").Process(
        target=make_part, args=(0, list_items(videos), tmp_path)
    )
    worker.start()
    worker.join()
    record = json.loads((tmp_path / "parts" / "000000.json").read_text())
    assert record["index"]["chunks"][0]["chunk_size"] == 4
    assert [key for key, _ in record["skipped"]] == ["broken.mov", "mute.mov", "text.mp4"]


def test_another_source_is_not_mixed_in(
    videos: Path, prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", str(videos / "deep"), "--out", str(prepared)]) == 3
    assert "choose another --out" in capsys.readouterr().err


def test_a_folder_with_other_files_is_left_alone(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="choose another --out"):
        advanced([], videos, tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["thesis.txt"]


def test_what_cannot_be_written_ends_with_a_remedy(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write to .*choose another --out"):
        advanced([], videos, tmp_path / "file" / "out")


def test_nothing_usable_is_an_error_with_the_first_reason(tmp_path: Path) -> None:
    video(tmp_path / "videos" / "mute.mov", 1, sound=False)
    with pytest.raises(DataError, match=r"nothing was usable.*mute\.mov has no sound"):
        advanced([], tmp_path / "videos", tmp_path / "out")


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """The PlacesAudio layout: spoken captions, one without its picture."""
    distro = tmp_path / "PlacesAudio_400k_distro"
    (distro / "metadata").mkdir(parents=True)
    (distro / "wavs" / "1").mkdir(parents=True)
    (tmp_path / "places_subset" / "a").mkdir(parents=True)
    for name in ("one", "two"):
        speak(distro / "wavs" / "1" / f"{name}.wav", f"a picture of {name}")
    Image.new("RGB", (600, 300), (200, 10, 10)).save(tmp_path / "places_subset" / "a" / "one.jpg")
    rows = [
        {"wav": f"wavs/1/{name}.wav", "image": f"a/{name}.jpg", "asr_text": name, "speaker": "s"}
        for name in ("one", "two")
    ]
    manifest = distro / "metadata" / "train.json"
    manifest.write_text(json.dumps({"data": rows}))
    return manifest


def test_the_places_layout_is_read(places: Path, tmp_path: Path) -> None:
    assert advanced([], places, tmp_path / "out").skipped == 1
    [clip] = clips(tmp_path / "out").values()
    assert (clip.key, clip.kind) == ("wavs/1/one", "speech")
    assert clip.notes == {"image": "a/one.jpg", "asr_text": "one", "speaker": "s"}
    assert decode_picture(clip.frames[0]).size == (512, 256)
    seconds = soundfile.info(places.parents[1] / "wavs" / "1" / "one.wav").duration
    assert sound_samples(clip.audio) == pytest.approx(seconds * RATE_HZ, abs=2)
    assert "two.jpg is missing" in (tmp_path / "out" / "skipped.tsv").read_text()


@pytest.mark.parametrize("frame", ["frame_{index}/{key}.jpg", "{key}_{index}.jpg"])
def test_the_audioset_layouts_are_read(tmp_path: Path, frame: str) -> None:
    root, key = tmp_path / "audioset", "-0Ab_30.0_40.0"
    (root / "metadata").mkdir(parents=True)
    (root / "audio").mkdir()
    segments = root / "metadata" / "segments.csv"
    segments.write_text(
        'YTID,start_seconds,end_seconds,positive_labels\n-0Ab,30.000,40.000,"/m/1,/m/2"\n'
    )
    sine = ("-f", "lavfi", "-i", "sine=f=300:r=44100:d=3", "-ac", "2")
    ffmpeg(*sine, root / "audio" / f"{key}.mp3")
    for index in (0, 4):
        picture = root / "frames" / frame.format(index=index, key=key)
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (320, 240), (index, 0, 0)).save(picture)
    make_part(0, list_items(segments), _parts(tmp_path))
    record = json.loads((tmp_path / "out" / "parts" / "000000.json").read_text())
    assert record["skipped"] == []
    assert record["index"]["chunks"][0]["chunk_size"] == 1
    [item] = list_items(segments)
    assert (item.key, item.kind, item.notes) == (key, "sound", {"labels": "/m/1,/m/2"})


@pytest.mark.parametrize(
    ("times", "names"),
    [
        ("30.000,40.000", ["a_30.0_40.0", "b_0.0_10.0"]),
        ("30,40", ["a_30_40", "b_0_10"]),
        ("30.000,40", ["a_30.0_40", "b_0.0_10"]),
    ],
)
def test_audioset_files_have_one_name_in_training_and_evaluation(
    tmp_path: Path, times: str, names: list[str]
) -> None:
    segments = tmp_path / "metadata" / "eval_segments_subset.csv"
    segments.parent.mkdir()
    later = times.replace("30", "0").replace("40", "10")
    lines = ("YTID,start_seconds,end_seconds,positive_labels", f"a,{times},/m/1", f"b,{later},/m/2")
    segments.write_text("\n".join(lines))
    assert [item.key for item in list_items(segments)] == names
    [data] = audioset(tmp_path)
    assert [item.audio.stem for item in data.items] == names


def _parts(tmp_path: Path) -> Path:
    (tmp_path / "out" / "parts").mkdir(parents=True)
    return tmp_path / "out"


def test_kinds_can_be_said(videos: Path, places: Path) -> None:
    assert {item.kind for item in list_items(videos, "sound")} == {"sound"}
    assert {item.kind for item in list_items(places, "unknown")} == {"unknown"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list.json", "{", "no PlacesAudio list"),
        ("list.json", '{"data": [{"wav": "a.wav"}]}', "no PlacesAudio list.*image"),
        ("list.json", '{"data": []}', "holds no clip"),
        ("list.csv", "# YTID\nabc, 30.000, 40.000\n", "no AudioSet list.*columns"),
        ("list.csv", "YTID,start_seconds,end_seconds\n", "holds no clip"),
        ("list.txt", "", "no .json and no .csv"),
    ],
)
def test_lists_that_are_none_are_explained(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / name).write_text(text)
    with pytest.raises(DataError, match=message):
        list(list_items(tmp_path / "metadata" / name).keys())


def test_a_missing_source_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 3
    assert "nowhere does not exist; give a folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [["--jobs", "0"], ["--kind", "music"], []])
def test_wrong_usage_exits_with_2(wrong: Sequence[str]) -> None:
    arguments = ["prepare", "source", "--out", "out", *wrong] if wrong else ["prepare"]
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2


def test_a_hole_in_the_sound_stays_silent(tmp_path: Path) -> None:
    path, greys, wave_SC = tmp_path / "hole.mkv", map(grey, range(30)), tone(RATE_HZ, 3)
    how = {"fps": 10, "rate_hz": RATE_HZ, "gap": (16_000, 8_000), "video": "mjpeg"}
    write_clip(path, greys, wave_SC, audio="pcm_f32le", **how)  # type: ignore[arg-type]
    [(_, wave_S)] = cut_video(media_reader(path), 10, 10)
    assert len(wave_S) == pytest.approx(56_000, abs=100)
    loud_S = np.abs(wave_S) > 1e-4
    assert loud_S[:15_900].mean() > 0.9
    assert not loud_S[16_500:23_900].any()
    assert loud_S[24_500:].mean() > 0.9


def test_a_slide_is_stored_with_the_sound_that_it_stays_for(tmp_path: Path) -> None:
    """Slides at 0, 12 and 24 s under 31 s of sound, which the last outlasts."""
    path = tmp_path / "slides.mov"
    levels = [grey(level) for level in (10, 100, 200)]
    write_clip(path, levels, tone(8_000, 31), rate_hz=8_000, places=(0, 300, 600))
    pieces = list(cut_video(media_reader(path), 10, 10))
    stored = [
        [round(float(np.mean(decode_picture(frame)))) for frame in frames] for frames, _ in pieces
    ]
    assert stored == [[10] * 10, [10] * 2 + [100] * 8, [100] * 4 + [200] * 6, [200]]


def test_files_are_tried_whatever_their_names_and_the_rest_is_counted(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "card"
    folder.mkdir()
    for name in ("00001.MTS", "old.3gp", "noext"):
        shutil.copy(videos / "deep" / "short.mov", folder / name)
    for name in ("a.txt", "b.txt", "c.JPG", ".hidden"):
        (folder / name).write_text("no video")
    out = tmp_path / "shards"
    assert main(["prepare", str(folder), "--out", str(out), "--jobs", "1"]) == 0
    assert sorted(clips(out)) == ["00001.MTS@0", "noext@0", "old.3gp@0"]
    assert "files left alone: 1 .hidden, 1 .jpg, 2 .txt" in capsys.readouterr().err


def test_what_was_mended_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = tmp_path / "videos", tmp_path / "shards"
    folder.mkdir()
    apart_SC = tone(RATE_HZ, 2) * np.array([1, -1], np.float32)
    write_clip(folder / "apart.mov", map(grey, range(50)), apart_SC, rate_hz=RATE_HZ)
    assert main(["prepare", str(folder), "--out", str(out), "--jobs", "1"]) == 0
    [line] = (out / "mended.tsv").read_text(encoding="utf-8").splitlines()
    key, what = line.split("\t")
    assert key == "apart.mov"
    assert "cancel each other, so the left is heard" in what
    assert "1 files were mended" in capsys.readouterr().err
    assert np.abs(decode_sound(clips(out)["apart.mov@0"].audio, 0, 32_000).numpy()).max() > 0.4


def test_turned_videos_are_upright(tmp_path: Path) -> None:
    [(frames, _)] = cut_video(media_reader(video(tmp_path / "turned.mov", 1, rotation=90)), 10, 10)
    assert decode_picture(frames[0]).size == (48, 64)


def test_channels_are_mixed_and_resampled_like_live_sound(tmp_path: Path) -> None:
    left_S, right_S = tone(48_000, 1, 440)[:, 0], tone(48_000, 1, 1000)[:, 0]
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([left_S, right_S], axis=1), 48_000, subtype="FLOAT")
    expected_S = (tone(RATE_HZ, 1, 440) + tone(RATE_HZ, 1, 1000))[:, 0] / 2
    wave_S = read_sound(media_reader(path))
    assert len(wave_S) == RATE_HZ
    np.testing.assert_allclose(wave_S[400:-400], expected_S[400:-400], atol=2e-3)


def test_resampling_agrees_with_the_recorded_below_6_khz(tmp_path: Path) -> None:
    with np.load(Path(__file__).parents[3] / "golden" / "data.npz") as golden:
        wave44_S, wave16_S = golden["prep/wave44"], golden["prep/wave16"]
    soundfile.write(tmp_path / "wave.wav", wave44_S, 44_100, subtype="FLOAT")
    ours_S = read_sound(media_reader(tmp_path / "wave.wav"))[: len(wave16_S)]
    window_S, low = np.hanning(len(wave16_S)), round(6_000 * len(wave16_S) / RATE_HZ)
    ours, theirs = (np.fft.rfft(wave_S * window_S) for wave_S in (ours_S, wave16_S))
    assert np.linalg.norm((ours - theirs)[:low]) < 1e-3 * np.linalg.norm(theirs[:low])
    assert np.linalg.norm(ours - theirs) < 0.03 * np.linalg.norm(theirs)


def test_only_the_first_minute_of_a_recording_is_kept(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.flac", np.zeros(70 * 8_000), 8_000)
    assert len(read_sound(media_reader(tmp_path / "long.flac"))) == 60 * RATE_HZ


def test_stored_pictures_have_a_short_side_of_256_at_most() -> None:
    for size, stored in (
        ((1000, 500), (512, 256)),
        ((100, 80), (100, 80)),
        ((256, 999), (256, 999)),
    ):
        assert decode_picture(jpeg(Image.new("RGBA", size))).size == stored


def test_loud_sound_is_clipped_not_wrapped() -> None:
    wave_S = decode_sound(flac(np.array([2, -2, 0.5], np.float32)), 0, 3)
    assert wave_S.tolist() == pytest.approx([1, -1, 0.5], abs=1e-4)


def test_a_video_that_breaks_off_gives_what_came_before(tmp_path: Path) -> None:
    pictures, sound = "testsrc=s=64x48:r=10:d=30", "sine=f=440:r=16000:d=30"
    inputs = ("-f", "lavfi", "-i", pictures, "-f", "lavfi", "-i", sound)
    ffmpeg(*inputs, "-c:v", "mjpeg", "-c:a", "flac", tmp_path / "whole.mkv")
    path, found = cut(tmp_path / "whole.mkv", tmp_path / "part.mkv", 0.6), 0
    try:
        for frames, wave_S in cut_video(media_reader(path), 10, 10):
            found += 1
            assert 1 <= len(frames) <= 10
            assert len(wave_S) <= 160_000
    except UnreadableError as error:
        assert "part.mkv" in str(error)  # noqa: PT017 - either end is right
    assert found in (1, 2)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PlacesAudio list of five clips, one of which cannot be used."""
    root = tmp_path_factory.mktemp("many")
    metadata = root / "distro" / "metadata"
    metadata.mkdir(parents=True)
    (root / "places_subset").mkdir()
    Image.new("RGB", (32, 32), (90, 10, 10)).save(root / "places_subset" / "one.jpg")
    soundfile.write(root / "distro" / "one.wav", np.zeros(8_000), RATE_HZ)
    rows = [{"wav": "one.wav", "image": "one.jpg", "n": index} for index in range(5)]
    rows[3]["wav"] = "missing.wav"
    (metadata / "train.json").write_text(json.dumps({"data": rows}))
    return metadata / "train.json"


def test_shares_of_many_machines_join_to_what_one_makes(
    many: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prepare_module, "PART_ITEMS", 2)

    def run(out: Path, *more: str) -> str:
        assert main(["prepare", str(many), "--out", str(out), "--jobs", "1", *more]) == 0
        return capsys.readouterr().err

    run(tmp_path / "one")
    assert "2 pieces of other parts are left" in run(tmp_path / "four", "--part", "2/4")
    for part in ("1/4", "4/4", "3/4"):
        said = run(tmp_path / "four", "--part", part)
    assert "part 3/4 is done; when all parts are, the same command without --part" in said
    with pytest.raises(DataError, match="no finished shards"):
        Shards(tmp_path / "four")
    assert "1 of 5 files were skipped" in run(tmp_path / "four")
    assert bytes_of(tmp_path / "four") == bytes_of(tmp_path / "one")
    assert Shards(tmp_path / "four").clips == 4


def test_four_shares_at_once_are_what_one_makes(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_module, "PART_ITEMS", 1)
    items, begin = list_items(many), threading.Barrier(4)

    def run(number: int) -> None:
        begin.wait()
        prepare(items, tmp_path / "four", jobs=1, advance=lambda _: None, share=Share(number, 4))

    with ThreadPoolExecutor(4) as machines:
        list(machines.map(run, range(1, 5)))
    for folder in ("four", "one"):
        prepare(items, tmp_path / folder, jobs=1, advance=lambda _: None)
    assert bytes_of(tmp_path / "four") == bytes_of(tmp_path / "one")


def test_two_at_once_are_refused_unless_they_share(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    items = [Item(key="one", kind="sound", sound=tmp_path / "none.wav")]

    def begin(share: Share) -> None:
        prepare(ItemList(items, Given()), folder, jobs=1, advance=lambda _: None, share=share)

    for held, refused in (
        (WHOLE, WHOLE),
        (WHOLE, Share(1, 2)),
        (Share(1, 2), WHOLE),
        (Share(1, 2), Share(1, 2)),
        (Share(1, 2), Share(2, 3)),
    ):
        with locked(folder, held), pytest.raises(DataError, match=r"another process prepares"):
            begin(refused)
    with locked(folder, Share(1, 2)):
        begin(Share(2, 2))  # which has nothing to do
    with pytest.raises(DataError, match="nothing was usable"):
        begin(WHOLE)


def test_a_lock_is_gone_with_whoever_held_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready, release = context.Event(), context.Event()

    def hold() -> None:
        with locked(tmp_path, WHOLE):
            ready.set()
            release.wait()

    holder = context.Process(target=hold)
    holder.start()
    assert ready.wait(60)
    with pytest.raises(DataError, match="another process"), locked(tmp_path, WHOLE):
        pass
    holder.kill()
    holder.join()
    with locked(tmp_path, WHOLE):
        pass


@pytest.mark.parametrize("part", ["0/2", "3/2", "2", "a/b", "1/0"])
def test_a_part_that_is_none_is_wrong_usage(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["prepare", "videos", "--out", "shards", "--part", part])
    assert ended.value.code == 2
    assert "is no part such as 1/4" in capsys.readouterr().err
