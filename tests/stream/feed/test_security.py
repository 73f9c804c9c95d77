"""Who may read: real keys, real refusals, each with its reason."""

import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from denseav.stream.feed import keys as feed_keys
from denseav.stream.feed.client import (
    FeedRefusedError,
    FeedStaleError,
    HeatmapSubscriber,
    StatusSubscriber,
    read_keys,
)
from denseav.stream.feed.errors import FeedAuthError
from denseav.stream.feed.publisher import Publisher
from tests.support.feeds import (
    free_endpoint,
    heatmap,
    make_keys,
    publish_until,
    publishing,
    status_of,
)


@dataclass
class Guarded:
    """A publisher with keys, and the key files of its clients."""

    publisher: Publisher
    endpoint: str
    folder: Path
    files: dict[str, Path]


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    folder = tmp_path / "keys"
    files = make_keys(folder, "arm", "base")
    endpoint = free_endpoint()
    with publishing(endpoint, folder) as publisher:
        yield Guarded(publisher, endpoint, folder, files)


def refusal(endpoint: str, keys: Path | None, publisher: Publisher, within_s: float = 10.0) -> str:
    """The reason that a client is given for being refused."""
    with HeatmapSubscriber(endpoint, keys) as feed:
        end_s = time.monotonic() + within_s
        while time.monotonic() < end_s:
            publisher.heatmap(heatmap())
            try:
                feed.read_latest(max_age_ms=100)
            except FeedStaleError:
                continue
            except FeedRefusedError as error:
                return str(error)
            raise AssertionError("it was let in")
    raise AssertionError("it was told no reason in time")


def test_an_authorised_client_reads_both_endpoints(guarded: Guarded) -> None:
    with (
        HeatmapSubscriber(guarded.endpoint, guarded.files["arm"]) as feed,
        StatusSubscriber(status_of(guarded.endpoint), guarded.files["arm"]) as status,
    ):
        publish_until(guarded.publisher, lambda: feed._newest)
        assert status.read_latest(max_age_ms=10_000).header["subscribers"] >= 0


def test_a_client_with_the_keys_of_another_publisher_is_told_so(
    guarded: Guarded, tmp_path: Path
) -> None:
    other = make_keys(tmp_path / "other", "arm")["arm"]
    reason = refusal(guarded.endpoint, other, guarded.publisher)
    assert "its key is not the server-public of the key file" in reason


def test_a_client_that_was_never_authorised_is_told_so(guarded: Guarded, tmp_path: Path) -> None:
    """It knows the publisher's public key, which is no secret, and has made its own pair."""
    server_public, _ = feed_keys.server_pair(guarded.folder)
    forged = make_keys(tmp_path / "other", "arm")["arm"]
    own_public = read_keys(forged)[0]
    forged.write_text(forged.read_text().replace(own_public.decode(), server_public.decode()))
    assert "not authorised" in refusal(guarded.endpoint, forged, guarded.publisher)


def test_a_revoked_client_is_told_so(guarded: Guarded) -> None:
    feed_keys.revoke(guarded.folder, "base")
    reason = refusal(guarded.endpoint, guarded.files["base"], guarded.publisher)
    assert "not authorised" in reason
    assert "revoked" in reason


def test_a_client_without_keys_is_told_so(guarded: Guarded) -> None:
    assert "wants keys" in refusal(guarded.endpoint, None, guarded.publisher)


def test_a_client_with_keys_refuses_a_publisher_without(guarded: Guarded) -> None:
    endpoint = free_endpoint()
    with publishing(endpoint) as plain:
        assert "not encrypted" in refusal(endpoint, guarded.files["arm"], plain)


def test_revoking_drops_a_client_that_is_connected_and_spares_the_others(guarded: Guarded) -> None:
    with (
        HeatmapSubscriber(guarded.endpoint, guarded.files["arm"]) as arm,
        HeatmapSubscriber(guarded.endpoint, guarded.files["base"]) as base,
    ):
        publish_until(guarded.publisher, lambda: arm._newest and base._newest)
        feed_keys.revoke(guarded.folder, "base")
        publish_until(guarded.publisher, lambda: isinstance(base._failure, FeedRefusedError))
        last = arm.read_latest(max_age_ms=10_000).sequence
        publish_until(guarded.publisher, lambda: arm._newest.sequence > last + 3)
        assert arm.restarts == 0


def test_a_client_added_later_is_let_in_without_a_restart(guarded: Guarded, tmp_path: Path) -> None:
    late = tmp_path / "late.client"
    feed_keys.add_client(guarded.folder, "late", late)
    with HeatmapSubscriber(guarded.endpoint, late) as feed:
        publish_until(guarded.publisher, lambda: feed._newest)


def test_a_client_authorised_after_its_refusal_comes_in_by_itself(
    guarded: Guarded, tmp_path: Path
) -> None:
    feed_keys.add_client(guarded.folder, "late", tmp_path / "late.client")
    authorisation = guarded.folder / "clients" / "late.key"
    kept = authorisation.rename(tmp_path / "kept")
    with HeatmapSubscriber(guarded.endpoint, tmp_path / "late.client") as feed:
        publish_until(guarded.publisher, lambda: isinstance(feed._failure, FeedRefusedError))
        kept.rename(authorisation)
        publish_until(guarded.publisher, lambda: feed._newest)


def test_when_keys_can_no_longer_be_checked_publishing_stops(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never goes on in the open: connections are dropped, and the run hears of it."""
    monkeypatch.setattr("denseav.stream.feed.auth.LASTING_S", 1.0)
    with HeatmapSubscriber(guarded.endpoint, guarded.files["arm"]) as feed:
        publish_until(guarded.publisher, lambda: feed._newest)
        (guarded.folder / "clients").chmod(0o755)
        with pytest.raises(FeedAuthError, match="chmod 700"):
            publish_until(guarded.publisher, lambda: False)
        time.sleep(0.3)
        with pytest.raises((FeedStaleError, FeedRefusedError)):
            feed.read_latest(max_age_ms=100)


def test_when_the_check_of_keys_dies_publishing_stops(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    authenticator = guarded.publisher._sockets._authenticator
    assert authenticator is not None
    # Not by `stop`: the publisher's own thread calls it too, and pyzmq's may not run twice at once.
    told = iter([False])
    monkeypatch.setattr(authenticator._zap, "is_alive", lambda: next(told, True))
    with pytest.raises(FeedAuthError, match="the check of keys has ended"):
        publish_until(guarded.publisher, lambda: False)


def test_administration_does_not_disturb_a_publisher(guarded: Guarded, tmp_path: Path) -> None:
    """Clients are added and revoked as fast as it goes, while strangers knock without end."""
    stranger = make_keys(tmp_path / "other", "stranger")["stranger"]
    stop = threading.Event()

    def administer(name: str) -> None:
        while not stop.is_set():
            file = tmp_path / f"{name}.client"
            feed_keys.add_client(guarded.folder, name, file)
            feed_keys.revoke(guarded.folder, name)
            file.unlink()

    threads = [threading.Thread(target=administer, args=(f"c{index}",)) for index in range(4)]
    with ExitStack() as feeds:
        for _ in range(4):
            feeds.enter_context(HeatmapSubscriber(guarded.endpoint, stranger))
        arm = feeds.enter_context(HeatmapSubscriber(guarded.endpoint, guarded.files["arm"]))
        publish_until(guarded.publisher, lambda: arm._newest)
        for thread in threads:
            thread.start()
        begin_s = time.monotonic()
        publish_until(guarded.publisher, lambda: time.monotonic() > begin_s + 3)
        stop.set()
        for thread in threads:
            thread.join()
        last = arm._newest.sequence
        publish_until(guarded.publisher, lambda: arm._newest.sequence > last)
        assert arm.restarts == 0
    assert set(feed_keys.clients(guarded.folder).values()) == {"arm", "base"}


def test_keys_that_cannot_be_checked_for_a_moment_do_not_end_the_feed(
    guarded: Guarded,
) -> None:
    clients = guarded.folder / "clients"
    with HeatmapSubscriber(guarded.endpoint, guarded.files["arm"]) as feed:
        publish_until(guarded.publisher, lambda: feed._newest)
        (clients / "half.key").write_text("# a file that is being written by hand\n")
        (clients / "half.key").chmod(0o600)
        begin_s = time.monotonic()
        publish_until(guarded.publisher, lambda: time.monotonic() > begin_s + 1)
        assert "not authorised" in refusal(
            guarded.endpoint, guarded.files["base"], guarded.publisher
        )
        (clients / "half.key").unlink()
        with HeatmapSubscriber(guarded.endpoint, guarded.files["base"]) as late:
            publish_until(guarded.publisher, lambda: late._newest)


def test_what_is_no_file_among_the_keys_is_not_waited_for(tmp_path: Path) -> None:
    make_keys(tmp_path / "keys", "arm")
    os.mkfifo(tmp_path / "keys" / "clients" / "pipe.key", 0o600)
    with pytest.raises(FeedAuthError, match="no whole key file"):
        feed_keys.clients(tmp_path / "keys")


def test_keys_are_private_from_the_first_moment(tmp_path: Path) -> None:
    code = """
import os, sys, pathlib
os.umask(0)
from denseav.stream.feed import keys as feed_keys
folder = pathlib.Path(sys.argv[1])
feed_keys.init(folder / "keys")
feed_keys.add_client(folder / "keys", "arm", folder / "arm.client")
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    keys = tmp_path / "keys"
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [keys, *tmp_path.rglob("*")]}
    assert {modes[keys], modes[keys / "clients"]} == {0o700}
    files = [keys / "server.key", keys / "clients" / "arm.key", tmp_path / "arm.client"]
    assert {modes[path] for path in files} == {0o600}


def test_secrets_are_where_they_belong_only(tmp_path: Path) -> None:
    client = make_keys(tmp_path / "keys", "arm")["arm"]
    server_public, server_secret = feed_keys.server_pair(tmp_path / "keys")
    public, _, client_secret = read_keys(client)
    assert public == server_public
    holders = {
        secret: [
            path.name
            for path in tmp_path.rglob("*")
            if path.is_file() and secret in path.read_bytes()
        ]
        for secret in (server_secret, client_secret)
    }
    assert holders == {server_secret: ["server.key"], client_secret: ["keys-arm.client"]}


@pytest.mark.parametrize("name", ["", "server.key", "clients", "clients/arm.key"])
def test_looser_modes_are_refused_with_the_remedy(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "keys"
    make_keys(folder, "arm")
    path = folder / name
    path.chmod(path.stat().st_mode | 0o004)
    with (
        pytest.raises(FeedAuthError, match=r"close it with: chmod [67]00 "),
        publishing(free_endpoint(), folder),
    ):
        pass


def test_a_client_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    client = make_keys(tmp_path / "keys", "arm")["arm"]
    client.chmod(0o640)
    with pytest.raises(FeedRefusedError, match="chmod 600"):
        HeatmapSubscriber(free_endpoint(), client)


@pytest.mark.parametrize("damage", ["", "server-public = x\n", "\x00" * 50, "client-secret"])
def test_a_damaged_client_file_is_refused(tmp_path: Path, damage: str) -> None:
    client = make_keys(tmp_path / "keys", "arm")["arm"]
    whole = client.read_text()
    client.write_text(
        whole.replace("client-secret = ", "client-secret = 0")
        if damage == "client-secret"
        else damage
    )
    with pytest.raises(FeedRefusedError, match="cannot use the key file"):
        read_keys(client)
    client.unlink()
    with pytest.raises(FeedRefusedError, match="No such file"):
        read_keys(client)


def test_keys_of_a_pair_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    one, other = (make_keys(tmp_path / name, "arm")["arm"] for name in ("one", "other"))
    text = one.read_text().replace(read_keys(one)[2].decode(), read_keys(other)[2].decode())
    one.write_text(text)
    with pytest.raises(FeedRefusedError, match="damaged"):
        read_keys(one)


@pytest.mark.parametrize("name", ["../arm", "", "a b", ".hidden", "a" * 65])
def test_what_is_no_client_name_is_refused(tmp_path: Path, name: str) -> None:
    make_keys(tmp_path / "keys")
    with pytest.raises(FeedAuthError, match="no client name"):
        feed_keys.add_client(tmp_path / "keys", name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_and_nothing_left_half_done(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    make_keys(folder, "arm")
    pair = feed_keys.server_pair(folder)
    with pytest.raises(FeedAuthError, match="exists already"):
        feed_keys.init(folder)
    with pytest.raises(FeedAuthError, match="exists already"):
        feed_keys.add_client(folder, "arm", tmp_path / "again")
    (tmp_path / "taken").touch()
    with pytest.raises(FeedAuthError, match="exists already"):
        feed_keys.add_client(folder, "base", tmp_path / "taken")
    assert feed_keys.server_pair(folder) == pair
    assert list(feed_keys.clients(folder).values()) == ["arm"]


def test_a_folder_without_keys_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(FeedAuthError, match="denseav-feed keys init"):
        feed_keys.server_pair(tmp_path / "none")
    make_keys(tmp_path / "keys")
    with pytest.raises(FeedAuthError, match="there are: none"):
        feed_keys.revoke(tmp_path / "keys", "arm")


def test_a_damaged_publisher_pair_is_refused(tmp_path: Path) -> None:
    make_keys(tmp_path / "keys")
    path = tmp_path / "keys" / "server.key"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:-1], f"secret = {'0' * 40}"]))
    with pytest.raises(FeedAuthError):
        feed_keys.server_pair(tmp_path / "keys")
    path.write_text("nothing")
    with pytest.raises(FeedAuthError, match="no whole key file"):
        feed_keys.server_pair(tmp_path / "keys")
