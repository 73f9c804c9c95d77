"""Clips of the world as files: shards that training reads, and pairs that calibration reads."""

import ctypes.util
import io
import time

import cv2
import numpy as np
import pytest
import soundfile
from PIL import Image

from denseav.export.builder.head_names import find_clips
from denseav.export.builder.threshold_calibration import find_pairs
from denseav.train.cli.data import main
from denseav.train.data.example import NO_AUGMENTATION, ExampleMaker
from denseav.train.data.shards import KINDS, Shards
from denseav.train.errors import DataError
from denseav.train.world.write import NEGATIVES, SEEN, TUNES, save_pairs, save_shards

pytestmark = pytest.mark.skipif(
    ctypes.util.find_library("espeak-ng") is None, reason="espeak-ng is not installed"
)
SIZE = (96, 112)


def clips_of(folder):
    shards = Shards(folder)
    return [shards.clip(number) for number in range(shards.clips)]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world") / "shards"
    assert save_shards(folder, 4, ("sound", "speech", "both"), range(6)) == 6
    return folder


def test_training_reads_the_shards_as_any_others(shards):
    clips = clips_of(shards)
    assert [clip.kind for clip in clips] == ["sound", "speech", "unknown"] * 2
    assert len({clip.key for clip in clips}) == 6
    maker, random = ExampleMaker(96, NO_AUGMENTATION), np.random.default_rng(0)
    for clip in clips:
        example = maker.make(clip, lambda use: use(clips[0]), random)
        assert example.image_3HW.shape == (3, 96, 96)
        assert example.kind == KINDS[clip.kind]
        assert float(example.wave_S[:32_000].std()) > 1e-3


def test_shards_know_what_is_heard_and_where_it_is_seen(shards):
    for clip in clips_of(shards):
        picture = Image.open(io.BytesIO(clip.frames[0]))
        assert (picture.format, picture.height, picture.width) == ("JPEG", 256, 342)
        names = [thing["name"] for thing in clip.notes["things"]]
        heads = [event["head"] for event in clip.notes["heard"]]
        kind = clip.notes["world"]
        assert heads == (["sound", "speech"] if kind == "both" else [kind])
        assert clip.notes["things"]
        for event in clip.notes["heard"]:
            assert event["name"] in names
            assert 0 <= event["start_s"] < event["stop_s"] <= 2.0
            assert bool(event["words"]) is (event["head"] == "speech")
        for thing in clip.notes["things"]:
            left, top, right, bottom = thing["box"]
            assert 0 <= left < right <= 342
            assert 0 <= top < bottom <= 256


def test_a_clip_depends_on_seed_kind_and_number_alone(shards, tmp_path):
    save_shards(tmp_path / "more", 4, ("sound", "speech", "both"), range(9))
    save_shards(tmp_path / "other", 5, ("sound", "speech", "both"), range(6))
    first, more, other = (clips_of(f) for f in (shards, tmp_path / "more", tmp_path / "other"))
    assert first == more[:6]
    assert not {clip.audio for clip in first} & {clip.audio for clip in other}


def test_calibration_reads_the_pairs(tmp_path):
    kinds = (*NEGATIVES, *SEEN, *TUNES)
    save_pairs(tmp_path / "pairs", 1, kinds, SIZE, range(27))
    pairs = find_pairs(tmp_path / "pairs")
    assert {pair.kind for pair in pairs} == {*kinds}
    assert sum(pair.seen for pair in pairs) == 12
    assert {clip.kind for clip in find_clips(tmp_path / "pairs")} == {"sound", "speech", "tune"}
    for pair in pairs:
        assert cv2.imread(str(pair.picture)).shape == (96, 112, 3)
        wave_S, rate_hz = soundfile.read(pair.sound)
        assert (rate_hz, wave_S.shape) == (16_000, (32_000,))
        assert wave_S.any() is np.bool_(pair.kind != "silence")


def test_the_same_seed_writes_the_same_pairs(tmp_path):
    for name, seed in (("one", 1), ("other", 2), ("same", 1)):
        save_pairs(tmp_path / name, seed, NEGATIVES, SIZE, range(4))
        time.sleep(0.6)  # so that the two stand in different seconds: no file tells the time
    one, same, other = (contents(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same
    assert one.keys() == other.keys()
    assert one["noise-000001.wav"] != other["noise-000001.wav"]
    assert one["noise-000001.png"] != other["noise-000001.png"]


@pytest.mark.parametrize("save", [save_shards, lambda *a: save_pairs(*a[:3], SIZE, a[3])])
def test_a_folder_in_use_is_left_alone(tmp_path, save):
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(DataError, match="is not empty; choose another --out"):
        save(tmp_path, 0, ("sound",), range(1))
    assert contents(tmp_path) == {"mine": b"kept"}
    with pytest.raises(DataError, match="cannot write to"):
        save(tmp_path / "mine" / "below", 0, ("sound",), range(1))


def test_the_commands_write_what_they_say(tmp_path, capsys):
    shards, pairs = str(tmp_path / "shards"), str(tmp_path / "pairs")
    assert main(["world", "shards", "--clips", "3", "--kind", "both", "--out", shards]) == 0
    assert [clip.notes["world"] for clip in clips_of(tmp_path / "shards")] == ["both"] * 3
    options = ["--clips", "5", "--seed", "2", "--size", "100x120", "--out", pairs]
    assert main(["world", "negatives", *options]) == 0
    found = find_pairs(tmp_path / "pairs")
    assert not any(pair.seen for pair in found)
    assert {cv2.imread(str(pair.picture)).shape for pair in found} == {(100, 120, 3)}
    assert main(["world", "negatives", *options]) == 3
    shown = capsys.readouterr().err
    assert "3 clips in" in shown
    assert "5 pairs in" in shown
    assert "is not empty" in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("world", "COMMAND"),
        ("world film --out film.mov", "must end in .mp4"),
        ("world film --out film.mp4 --seed -1", "is not a whole number"),
        ("world shards --out x", "--clips"),
        ("world shards --out x --clips 0", "is not a whole number above 0"),
        ("world shards --out x --clips 1 --kind music", "invalid choice: 'music'"),
        ("world negatives --out x --clips 1 --size 90x100", "is not HEIGHTxWIDTH of 96 to 192"),
        ("world negatives --out x --clips 1 --size 100", "is not HEIGHTxWIDTH of 96 to 192"),
    ],
)
def test_wrong_use_is_told_in_a_line(arguments, says, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments.split())
    assert ended.value.code == 2
    assert says in capsys.readouterr().err
