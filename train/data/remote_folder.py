"""Shards elsewhere: an address enters, a local folder leaves that is filled as files are asked for.

LitData's downloaders fetch: from S3 and what speaks its language, from Google's, Azure's and
Cloudflare's clouds, and from data sets on the Hugging Face hub. Where the servers are and who asks
is said as their own tools have it, in environment variables and files (`AWS_ENDPOINT_URL`,
`HF_TOKEN`). A file is fetched once for all processes of a machine, and stays; shards that were made
anew at the same address have a folder of their own.

Errors
------
DataError            the address is none, or a file cannot be fetched
"""

import hashlib
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock

from denseav.export.terminal_text import safe_text
from denseav.export.user_folders import cache_folder
from denseav.models.checkpoints.atomic_files import replacing
from denseav.train.errors import DataError

SCHEMES = ("s3", "r2", "gs", "azure", "hf")
SHOWN = 200


def is_address(source: str) -> bool:
    """Tell whether this names another machine, and no folder of this one."""
    return "://" in source


class RemoteFolder:
    """A folder at an address. May be sent to other processes.

    Parameters
    ----------
    address : such as `s3://BUCKET/FOLDER` or `hf://datasets/OWNER/NAME`.
    described_by : the files that tell what else is there; fetched at once, and every time.

    Attributes
    ----------
    path : where its files come to lie.

    Raises
    ------
    DataError
        When there is no such address, or it has no such files.
    """

    def __init__(self, address: str, described_by: tuple[str, ...]) -> None:
        self._address = address.rstrip("/")
        self._downloader: Any = None
        if address.partition("://")[0] not in SCHEMES:
            kinds = ", ".join(f"{scheme}://" for scheme in SCHEMES)
            raise DataError(f"{safe_text(address)} begins with none of {kinds}; or name a folder")
        digest = hashlib.sha256(self._address.encode())
        root = cache_folder() / "shards"
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
        except OSError as error:
            raise _unwritable(root, error) from None

    def fetch(self, name: str) -> None:
        """Have a file in `path`.

        Raises
        ------
        DataError
            When it cannot be fetched or stored.
        """
        if (self.path / name).exists():
            return
        try:
            with FileLock(self.path / f".{name}.lock"):
                if not (self.path / name).exists():
                    self._download(name, self.path)
        except OSError as error:
            raise _unwritable(self.path, error) from None

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


def _unwritable(folder: Path, error: OSError) -> DataError:
    return DataError(f"cannot write to {folder} ({error.strerror}); make room for the shards there")
