"""Shards: written once, read by number or as a stream, whole or damaged."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
from litdata.streaming import item_loader

from denseav.train.data.shards import DamagedClip, Shards, save_clips, write_shards
from denseav.train.errors import DataError
from tests.support.train.made_clips import made_clip, made_shards

CLIPS = 22


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clips = (made_clip(number, frames=1 + number % 3) for number in range(CLIPS))
    return made_shards(tmp_path_factory.mktemp("shards"), clips)


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_clip_comes_back_as_it_was(whole: Path) -> None:
    shards = Shards(whole)
    assert shards.clips == CLIPS
    for number in (0, 3, 4, 21):
        assert shards.clip(number) == made_clip(number, frames=1 + number % 3)


@pytest.mark.parametrize("writes", [True, False])
def test_shards_are_the_same_with_pyarrow_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: bool
) -> None:
    monkeypatch.setattr(item_loader, "_PYARROW_AVAILABLE", writes)
    save_clips(tmp_path / "new", map(made_clip, range(3)))
    monkeypatch.setattr(item_loader, "_PYARROW_AVAILABLE", not writes)
    assert [Shards(tmp_path / "new").clip(number) for number in range(3)] == [
        *map(made_clip, range(3))
    ]


def test_save_clips_makes_a_set_at_once(tmp_path: Path) -> None:
    assert save_clips(tmp_path / "new", map(made_clip, range(3))) == 3
    assert Shards(tmp_path / "new").clip(2) == made_clip(2)


def test_shards_are_cut_at_the_size(tmp_path: Path) -> None:
    size = sum(map(len, (made_clip(1).audio, *made_clip(1).frames)))
    index = write_shards(tmp_path, map(made_clip, range(9)), max_bytes=4 * size)
    assert sum(chunk["chunk_size"] for chunk in index["chunks"]) == 9
    assert all((tmp_path / c["filename"]).stat().st_size < 5 * size for c in index["chunks"])
    assert 2 <= len(index["chunks"]) <= 5  # a record adds to its media


def test_shards_go_to_other_processes_without_their_open_files(whole: Path) -> None:
    shards = Shards(whole)
    shards.clip(0)
    assert pickle.loads(pickle.dumps(shards)).clip(5) == shards.clip(5)


def test_a_shortened_shard_costs_only_its_clips(copied: Path) -> None:
    shard = copied / "shard-000001-0.bin"
    shard.write_bytes(shard.read_bytes()[:-100])
    shards = Shards(copied)
    for number in range(4, 8):
        with pytest.raises(DamagedClip, match=r"shard-000001-0\.bin"):
            shards.clip(number)
    assert shards.clip(3).key == "clip3"
    assert shards.clip(8).key == "clip8"


@pytest.mark.parametrize("part", ["audio", "frames"])
def test_a_changed_byte_costs_its_clip(copied: Path, part: str) -> None:
    clip = made_clip(9, frames=1)
    inside = clip.audio[50:] if part == "audio" else clip.frames[0][50:]
    shard = copied / "shard-000002-0.bin"
    data = bytearray(shard.read_bytes())
    at = data.index(inside[:40])
    data[at] ^= 1
    shard.write_bytes(bytes(data))
    shards, damaged = Shards(copied), []
    for number in range(CLIPS):
        try:
            assert shards.clip(number).key == f"clip{number}"
        except DamagedClip:
            damaged.append(number)
    assert damaged in ([8], [9], [10], [11])


def test_a_shard_of_noise_costs_its_clips(copied: Path) -> None:
    shard = copied / "shard-000000-0.bin"
    size = shard.stat().st_size
    shard.write_bytes((bytes(range(256)) * (size // 256 + 1))[:size])
    shards = Shards(copied)
    for number in range(4):
        with pytest.raises(DamagedClip):
            shards.clip(number)
    assert shards.clip(4).key == "clip4"


def test_a_missing_shard_is_named(copied: Path) -> None:
    (copied / "shard-000003-0.bin").unlink()
    with pytest.raises(DataError, match=r"lacks 1 of its 6 shards, shard-000003-0.bin.*copy"):
        Shards(copied)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"filename": "../../secret.bin"}, "names a shard that can be none"),
        ({"chunk_size": -4}, "names a shard that can be none"),
        ({"chunk_size": "many"}, "no finished shards"),
    ],
)
def test_an_index_from_elsewhere_is_checked(
    copied: Path, change: dict[str, object], said: str
) -> None:
    index = json.loads((copied / "index.json").read_text())
    index["chunks"][0] |= change
    (copied / "index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match=said):
        Shards(copied)


def test_no_shards_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="denseav-data prepare SOURCE --out"):
        Shards(tmp_path / "nothing")


def test_unfinished_shards_are_no_shards(copied: Path) -> None:
    (copied / "shards.json").unlink()
    with pytest.raises(DataError, match="no finished shards"):
        Shards(copied)


@pytest.mark.parametrize("schema", [1, 9])
def test_shards_of_another_version_are_refused(copied: Path, schema: int) -> None:
    record = json.loads((copied / "shards.json").read_text()) | {"schema": schema}
    (copied / "shards.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match="upgrade"):
        Shards(copied)
