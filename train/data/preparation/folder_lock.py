"""Who prepares a folder: a share of the work enters, and no two processes do the same.

A lock is a file that the system holds for a living process and lets go of with it. A whole run
excludes all others; shares of as many machines exclude only themselves.

Errors
------
DataError            another process is at it, or the folder cannot be written
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from denseav.train.errors import DataError

_LOCK = re.compile(r"\.prepare(-\d+-of-(?P<of>\d+))?\.lock")
_CLAIM = ".prepare-claim.lock"


@dataclass(frozen=True)
class Share:
    """One machine's share of the work: the `number`th, from 1, of `of`.

    Raises
    ------
    ValueError
        When there is no such share.
    """

    number: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise ValueError(f"there is no part {self.number} of {self.of}")

    @property
    def whole(self) -> bool:
        """Return whether it is all of the work."""
        return self.of == 1


WHOLE = Share()


def is_lock(path: Path) -> bool:
    """Tell whether a file of a folder is one of these locks."""
    return path.name == _CLAIM or _LOCK.fullmatch(path.name) is not None


@contextmanager
def locked(folder: Path, share: Share) -> Iterator[None]:
    """Hold a share of an existing folder.

    Raises
    ------
    DataError
        When another process holds it, all of the folder, or a share of another size; or when a
        lock cannot be written.
    """
    name = ".prepare.lock" if share.whole else f".prepare-{share.number}-of-{share.of}.lock"
    own = folder / name
    with _held(own, folder):
        # After its own: of two that begin at once, one at least sees the other.
        for path in folder.iterdir():
            found = _LOCK.fullmatch(path.name)
            if found and path != own and (share.whole or found["of"] != str(share.of)):
                with _held(path, folder):
                    pass
        yield


@contextmanager
def claiming(folder: Path) -> Iterator[None]:
    """Hold what shares that begin at once do one after the other: say whose the folder is.

    Raises
    ------
    OSError
        When the lock cannot be written.
    """
    with FileLock(folder / _CLAIM):
        yield


def remove_locks(folder: Path) -> None:
    """Remove the locks of a folder that is done; whoever holds one still does."""
    for path in filter(is_lock, list(folder.iterdir())):
        path.unlink(missing_ok=True)


@contextmanager
def _held(path: Path, folder: Path) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except OSError as error:  # filelock's own Timeout is one
        if not isinstance(error, Timeout):
            raise DataError(
                f"cannot write to {folder} ({error.strerror}); choose another --out"
            ) from None
        raise DataError(
            f"another process prepares {folder}; wait until it is done, or share the work out: "
            "--part 1/2 here and --part 2/2 there"
        ) from None
    try:
        yield
    finally:
        lock.release()
