"""The store of CURVE keys: names in, keys in Z85 out; a pair for the publisher and each client.

    DIR/                   0700
    ├── server.key         0600  the publisher's pair
    └── clients/           0700
        └── NAME.key       0600  a client's public key: its presence is the authorisation

A client gets one file, `NAME.client` (0600): the publisher's public key and its own pair. Its
secret is in that file alone, the publisher's secret in `server.key` alone. Anything that others
can read or write is refused. A file gets its name once it is whole, so that keys may be added and
revoked while a publisher reads them.
"""

import os
import re
import stat
import struct
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import zmq
import zmq.utils.z85

from denseav.export.user_folders import config_folder
from denseav.stream.feed.client import KEY_NAMES
from denseav.stream.feed.errors import FeedAuthError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEY_FILE = re.compile(rf"{_NAME.pattern}\.key")
_FILE_BYTES_MAX = 4096


def default_folder() -> Path:
    """Return where keys are kept when no folder is named."""
    return config_folder() / "feed-keys"


def init(folder: Path) -> None:
    """Make the publisher's pair and an empty list of clients.

    Raises
    ------
    FeedAuthError
        When there are keys already, or the folder cannot be made or is open to others.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "clients").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise FeedAuthError(f"cannot make the key folder {folder} ({error.strerror})") from None
    _require_private(folder)
    public, secret = _new_pair()
    _write_new(folder / "server.key", "denseav feed: the publisher's pair", (public, secret))


def add_client(folder: Path, name: str, out: Path) -> None:
    """Authorise a new client and write its file.

    Raises
    ------
    FeedAuthError
        When the name is taken or not a name, a file cannot be written, or keys are unsafe.
    """
    server_public, _ = server_pair(folder)
    public, secret = _new_pair()
    client = _client_path(folder, name)
    _write_new(client, f"denseav feed: public key of {name}", (public,))
    try:
        title = f"denseav feed: keys of {name}, for that machine only"
        _write_new(out, title, (server_public, public, secret), KEY_NAMES)
    except FeedAuthError:
        client.unlink()
        raise


def revoke(folder: Path, name: str) -> None:
    """Take a client's authorisation away; a running publisher drops it within a second.

    Raises
    ------
    FeedAuthError
        When there is no such client.
    """
    try:
        _client_path(folder, name).unlink()
    except OSError:
        known = ", ".join(sorted(clients(folder).values())) or "none"
        raise FeedAuthError(f"no client is named {name}; there are: {known}") from None


def clients(folder: Path) -> Mapping[bytes, str]:
    """Return the authorised public keys and whose they are.

    Raises
    ------
    FeedAuthError
        When the folder or a file in it is missing, damaged or open to others.
    """
    _require_private(folder)
    _require_private(folder / "clients")
    try:
        paths = sorted((folder / "clients").iterdir())
    except OSError as error:
        raise FeedAuthError(f"cannot read {folder} ({error.strerror})") from None
    found = {}
    for path in paths:
        with suppress(FileNotFoundError):  # revoked since the folder was read
            if _KEY_FILE.fullmatch(path.name):
                found[_read(path, ("public",))[0]] = path.stem
    return found


def server_pair(folder: Path) -> tuple[bytes, bytes]:
    """Return the publisher's public and secret key.

    Raises
    ------
    FeedAuthError
        When they are missing, damaged or open to others.
    """
    _require_private(folder)
    try:
        public, secret = _read(folder / "server.key", ("public", "secret"))
    except FileNotFoundError:
        raise FeedAuthError(
            f"there are no keys in {folder}; make them with: denseav-feed keys init"
        ) from None
    if zmq.curve_public(secret) != public:
        raise FeedAuthError(
            f"{folder / 'server.key'} is damaged; delete the folder and make new keys"
        )
    return public, secret


def _client_path(folder: Path, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise FeedAuthError(f"{name!r} is no client name: use letters, digits, dots and dashes")
    return folder / "clients" / f"{name}.key"


def _new_pair() -> tuple[bytes, bytes]:
    if not zmq.has("curve"):
        raise FeedAuthError(
            "this libzmq has no CURVE; install pyzmq from a wheel: pip install pyzmq"
        )
    return zmq.curve_keypair()


def _write_new(
    path: Path, title: str, keys: tuple[bytes, ...], names: tuple[str, ...] = ("public", "secret")
) -> None:
    """Write a file that nobody else could read at any moment, and that is whole once it is there.

    It never takes the place of another.
    """
    lines = [f"{name} = {key.decode()}\n" for name, key in zip(names, keys, strict=False)]
    try:
        handle, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(f"# {title}\n" + "".join(lines))
                file.flush()
                os.fsync(handle)
            _give_name(Path(part), path)
        finally:
            Path(part).unlink(missing_ok=True)
    except FileExistsError:
        raise FeedAuthError(f"{path} exists already; choose another name, or delete it") from None
    except OSError as error:
        raise FeedAuthError(f"cannot write {path} ({error.strerror})") from None


def _give_name(part: Path, path: Path) -> None:
    try:
        path.hardlink_to(part)
    except FileExistsError:
        raise
    except OSError:  # a file system without links, as on a memory stick
        if path.exists():
            raise FileExistsError from None
        part.rename(path)


def _read(path: Path, names: tuple[str, ...]) -> tuple[bytes, ...]:
    """Return the keys of a file; FileNotFoundError when there is none."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # waits for no pipe
        with os.fdopen(handle, encoding="ascii") as file:
            mode = os.fstat(handle).st_mode
            text = file.read(_FILE_BYTES_MAX) if stat.S_ISREG(mode) else ""
    except FileNotFoundError:
        raise
    except OSError as error:
        raise FeedAuthError(f"cannot read the key file {path} ({error.strerror})") from None
    except ValueError:
        raise FeedAuthError(f"{path} is no key file") from None
    _refuse_open_mode(path, mode, 0o600)
    fields = dict(line.split(" = ", 1) for line in text.splitlines() if " = " in line)
    keys = tuple(fields.get(name, "").encode() for name in names)
    if not all(_is_z85_key(key) for key in keys):
        raise FeedAuthError(f"{path} is no whole key file")
    return keys


def _is_z85_key(key: bytes) -> bool:
    try:
        return len(zmq.utils.z85.decode(key)) == 32
    except (ValueError, LookupError, struct.error):
        return False


def _require_private(folder: Path) -> None:
    try:
        mode = folder.stat().st_mode
    except OSError:
        raise FeedAuthError(
            f"there is no key folder {folder}; make it with: denseav-feed keys init"
        ) from None
    if not stat.S_ISDIR(mode):
        raise FeedAuthError(f"{folder} is not a folder; name the one of: denseav-feed keys init")
    _refuse_open_mode(folder, mode, 0o700)


def _refuse_open_mode(path: Path, mode: int, wanted: int) -> None:
    if os.name == "posix" and mode & 0o077:
        raise FeedAuthError(f"others can reach {path}; close it with: chmod {wanted:o} {path}")
