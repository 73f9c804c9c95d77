"""Shards elsewhere: an address enters, a local folder leaves that is filled as files are asked for.

LitData's downloaders fetch: from S3 and what speaks its language, from Google's, Azure's and
Cloudflare's clouds, and from data sets on the Hugging Face hub. Where the servers are and who asks
is said as their own tools have it, in environment variables and files (`AWS_ENDPOINT_URL`,
`HF_TOKEN`). A file is fetched once for all processes of a machine, and stays until others need its
room: of all sets together those files go first that were not used for longest. Shards that were
made anew at the same address have a folder of their own.

Errors
------
DataError            the address is none, a file cannot be fetched, or is more than may be kept
"""

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock

from denseav.export.terminal_text import safe_text
from denseav.export.user_folders import cache_folder
from denseav.models.checkpoints.atomic_files import replacing
from denseav.train.errors import DataError

SHARD_SUFFIX = ".bin"
SCHEMES = ("s3", "r2", "gs", "azure", "hf")
SHOWN = 200
FREE_SHARE = 0.75
"""Of the free disk, what is kept where nobody says how much may be; LitData's own default."""
GB = 10**9
USED_S = 60.0
"""A file's use is noted so often at most."""


def is_address(source: str) -> bool:
    """Tell whether this names another machine, and no folder of this one."""
    return "://" in source


class RemoteFolder:
    """A folder at an address. May be sent to other processes.

    Parameters
    ----------
    address : such as `s3://BUCKET/FOLDER` or `hf://datasets/OWNER/NAME`.
    described_by : the files that tell what else is there; fetched at once, and every time.
    cache_gb : how much all sets on this machine may fill, beside one file for each process that
        fetches; None for three quarters of what is free.

    Attributes
    ----------
    path : where its files come to lie.

    Raises
    ------
    DataError
        When there is no such address, or it has no such files.
    """

    def __init__(
        self, address: str, described_by: tuple[str, ...], cache_gb: float | None = None
    ) -> None:
        self._address = address.rstrip("/")
        self._downloader: Any = None
        if address.partition("://")[0] not in SCHEMES:
            kinds = ", ".join(f"{scheme}://" for scheme in SCHEMES)
            raise DataError(f"{safe_text(address)} begins with none of {kinds}; or name a folder")
        digest = hashlib.sha256(self._address.encode())
        root = self._root = cache_folder() / "shards"
        try:
            root.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=root) as fresh:
                for name in described_by:
                    self._download(name, Path(fresh))
                    digest.update((Path(fresh) / name).read_bytes())
                self.path = root / digest.hexdigest()[:32]
                self.path.mkdir(exist_ok=True)
                for name in described_by:
                    with replacing(self.path / name) as partial:
                        shutil.copyfile(Path(fresh) / name, partial)
            room = shutil.disk_usage(root).free + sum(size for _, size, _ in self._kept())
            self._limit_bytes = int(FREE_SHARE * room if cache_gb is None else cache_gb * GB)
        except OSError as error:
            raise _unwritable(root, error) from None

    def fetch(self, name: str, size: int) -> bool:
        """Have a file of so many bytes in `path`, and tell whether it had to be fetched.

        Raises
        ------
        DataError
            When it cannot be fetched or stored, or is larger than all that may be kept.
        """
        try:
            if self._used(name):
                return False
            with FileLock(self.path / f".{name}.lock"):
                if self._used(name):
                    return False
                self._make_room(name, size)
                self._download(name, self.path)
                with suppress(FileNotFoundError):  # another process made room of it already
                    _note_use(self.path / name)
        except OSError as error:
            raise _unwritable(self.path, error) from None
        return True

    def _used(self, name: str) -> bool:
        """Note that a file is used; tell whether it is there."""
        try:
            if time.time() - (self.path / name).stat().st_mtime > USED_S:
                _note_use(self.path / name)
        except FileNotFoundError:
            return False
        return True

    def _make_room(self, name: str, size: int) -> None:
        if size > self._limit_bytes:
            raise DataError(
                f"{name} of {safe_text(self._address)} is {size / GB:.3f} GB, more than the "
                f"{self._limit_bytes / GB:.3f} GB that may be kept; raise data.cache_gb"
            )
        with FileLock(self._root / ".room.lock"):
            kept = sorted(self._kept())
            over = sum(bytes_ for _, bytes_, _ in kept) + size - self._limit_bytes
            for _, bytes_, path in kept:
                if over <= 0:
                    return
                path.unlink(missing_ok=True)
                over -= bytes_

    def _kept(self) -> Iterator[tuple[float, int, Path]]:
        """Yield when each shard on this machine was used last, its size and its place."""
        for path in self._root.glob(f"*/*{SHARD_SUFFIX}"):
            with suppress(FileNotFoundError):
                found = path.stat()
                yield found.st_mtime, found.st_size, path

    def _download(self, name: str, into: Path) -> None:
        from litdata.streaming.downloader import get_downloader

        remote = f"{self._address}/{name}"
        with replacing(into / name) as partial:
            try:
                if self._downloader is None:
                    self._downloader = get_downloader(self._address, str(into), [])
                if remote.startswith("hf:"):  # of which LitData has no stream
                    self._downloader.download_file(remote, str(partial))
                    partial.stat()  # it says nothing of what is not there
                else:  # its other way, obstore, refuses servers without TLS
                    with partial.open("wb") as file:
                        self._downloader.download_fileobj(remote, file)
            except Exception as error:  # noqa: BLE001 - each cloud's client has its own
                reason = safe_text(" ".join(str(error).split())[:SHOWN]) or type(error).__name__
                raise DataError(
                    f"{safe_text(remote)} cannot be fetched ({reason}); check the address, and "
                    "who may read it"
                ) from None

    def __getstate__(self) -> dict[str, Any]:
        """Leave connections behind."""
        return self.__dict__ | {"_downloader": None}


def _note_use(path: Path) -> None:
    """Note when a file was used, finer than the system's own stamps."""
    now_ns = time.time_ns()
    os.utime(path, ns=(now_ns, now_ns))


def _unwritable(folder: Path, error: OSError) -> DataError:
    return DataError(f"cannot write to {folder} ({error.strerror}); make room for the shards there")
