"""Shards on an S3 server and a hub: fetched once, read as from a folder; or refused in a line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import huggingface_hub
import pytest
from moto.server import ThreadedMotoServer

from denseav.train.cli.train import main
from denseav.train.data import remote_folder
from denseav.train.data.remote_folder import is_address
from denseav.train.data.shards import DamagedClip, Shards
from denseav.train.errors import DataError
from tests.support.hub import Hub
from tests.support.train.made_clips import made_clip, made_shards

CLIPS = 6
ADDRESS = "s3://bucket/places"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:  # boto3's types are made as it runs
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(remote_folder, "cache_folder", lambda: tmp_path / "cache")
    bucket = boto3.Session().resource("s3").create_bucket(Bucket="bucket")
    upload(bucket, made_shards(tmp_path / "made", map(made_clip, range(CLIPS))))
    yield bucket
    bucket.objects.delete()
    bucket.delete()


def upload(bucket: Any, folder: Path, to: str = "places") -> None:
    for path in folder.iterdir():
        bucket.upload_file(str(path), f"{to}/{path.name}")


def shards_of(shards: Shards) -> list[str]:
    return sorted(path.name for path in shards.folder.glob("shard-*"))


def test_clips_are_those_of_the_folder_and_a_shard_is_fetched_once(bucket: Any) -> None:
    shards = Shards(ADDRESS)
    assert (shards.clips, shards_of(shards)) == (CLIPS, [])
    assert shards.clip(5) == made_clip(5)
    assert shards_of(shards) == ["shard-000001-0.bin"]
    bucket.Object("places/shard-000001-0.bin").delete()
    again = Shards(f"{ADDRESS}/")
    assert [again.clip(number) for number in (0, 4)] == [made_clip(0), made_clip(4)]


def test_shards_made_anew_at_an_address_are_other_shards(bucket: Any, tmp_path: Path) -> None:
    before = Shards(ADDRESS)
    assert before.clip(0) == made_clip(0)
    upload(bucket, made_shards(tmp_path / "anew", [made_clip(7), made_clip(8)]))
    after = Shards(ADDRESS)
    assert [after.clip(number) for number in range(2)] == [made_clip(7), made_clip(8)]
    assert before.clip(0) == made_clip(0)


def test_two_readers_of_a_cache_that_holds_one_shard_read_all(bucket: Any) -> None:
    largest = max(item.size for item in bucket.objects.all())
    with pytest.raises(
        DataError, match=r"shard-000000-0\.bin .* may be kept; raise data\.cache_gb"
    ):
        Shards(ADDRESS, (largest - 1) / 1e9).clip(0)
    one, other = (Shards(ADDRESS, largest / 1e9) for _ in range(2))
    for reader, number in ((one, 0), (other, 1), (one, 5), (other, 0), (one, 1), (one, 4)):
        assert reader.clip(number) == made_clip(number)
        assert len(shards_of(reader)) == 1


def test_of_all_sets_the_shard_that_was_not_used_for_longest_makes_room(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_folder, "USED_S", 0.0)
    upload(bucket, tmp_path / "made", "mine")
    room_gb = 2 * max(item.size for item in bucket.objects.all()) / 1e9
    places, mine = Shards(ADDRESS, room_gb), Shards("s3://bucket/mine", room_gb)
    for reader, number in ((places, 0), (mine, 0), (places, 1), (mine, 5)):
        assert reader.clip(number) == made_clip(number)
    assert [shards_of(places), shards_of(mine)] == [["shard-000000-0.bin"], ["shard-000001-0.bin"]]


@pytest.mark.usefixtures("bucket")
def test_a_shard_that_another_process_made_room_of_is_fetched_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shards, taken = Shards(ADDRESS), {"shard-000000-0.bin"}
    fetch = remote_folder.RemoteFolder.fetch

    def taken_once(self: remote_folder.RemoteFolder, name: str, size: int) -> bool:
        anew = fetch(self, name, size)
        if name in taken:
            taken.remove(name)
            (self.path / name).unlink()
        return anew

    monkeypatch.setattr(remote_folder.RemoteFolder, "fetch", taken_once)
    assert [shards.clip(number) for number in (0, 5)] == [made_clip(0), made_clip(5)]
    assert not taken
    taken.add("shard-000000-0.bin")  # this time one that is known to be whole
    assert shards.clip(1) == made_clip(1)
    assert not taken


def test_half_a_shard_is_damage_and_a_missing_one_an_error(bucket: Any) -> None:
    whole = bucket.Object("places/shard-000000-0.bin")
    whole.put(Body=whole.get()["Body"].read()[:-100])
    bucket.Object("places/shard-000001-0.bin").delete()
    shards = Shards(ADDRESS)
    with pytest.raises(DamagedClip):
        shards.clip(0)
    with pytest.raises(DataError, match=r"shard-000001-0\.bin cannot be fetched .*404"):
        shards.clip(5)


@pytest.mark.usefixtures("bucket")
def test_a_wrong_address_is_said_before_backbones_are_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--data.shards", "s3://bucket/plaices", "--backbones.image", str(tmp_path / "none")]
    assert main([*asked, "--out", str(tmp_path / "run"), "--machine.accelerator", "cpu"]) == 3
    said = capsys.readouterr().err
    assert "s3://bucket/plaices/shards.json cannot be fetched" in " ".join(said.split())
    assert "check the address" in " ".join(said.split())


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        hub.url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(remote_folder, "cache_folder", lambda: tmp_path / "cache")
    yield hub
    hub.close()


def test_a_data_set_of_a_hub_is_read_like_a_folder(hub: Hub, tmp_path: Path) -> None:
    made = made_shards(tmp_path / "made", map(made_clip, range(CLIPS)))
    hub.repositories["someone/places"] = {path.name: path.read_bytes() for path in made.iterdir()}
    shards = Shards("hf://datasets/someone/places")
    assert [shards.clip(number) for number in (0, 5, 1)] == [*map(made_clip, (0, 5, 1))]
    asked = [each for each in hub.requests if "shard-000000" in each]
    assert shards.clip(2) == made_clip(2)
    assert [each for each in hub.requests if "shard-000000" in each] == asked
    with pytest.raises(DataError, match=r"someone/none/shards\.json cannot be fetched"):
        Shards("hf://datasets/someone/none")


def test_addresses_are_told_from_folders() -> None:
    assert not is_address("shards/places")
    assert is_address("hf://datasets/someone/places")
    with pytest.raises(DataError, match="begins with none of s3://"):
        Shards("ftp://elsewhere/places")
