"""A folder that appears whole or not at all."""

import errno
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from denseav.export.runtime.bundle import BundleError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def written_beside(out: Path) -> Iterator[Path]:
    """Give a folder beside `out` that becomes `out` when all went well, and vanishes if not.

    Raises
    ------
    BundleError
        When `out` exists already, or it or its parent cannot be written, or the disk is full.
    """
    if out.exists():
        raise BundleError(f"{out} exists already; name another folder with --out, or remove it")
    folder = _unused_name(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(0o700)
        yield folder
        folder.chmod(0o755)
        folder.rename(out)
    except OSError as error:
        raise _unwritable(out, error) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def rewritten(out: Path) -> Iterator[Path]:
    """Give a folder beside `out` that takes its place when all went well, and vanishes if not.

    Raises
    ------
    BundleError
        When the parent of `out` cannot be written, or the disk is full.
    """
    workshop = _unused_name(out)
    new, old = workshop / "new", workshop / "old"
    try:
        workshop.mkdir(0o700)
        new.mkdir()
        yield new
        out.rename(old)
        try:
            new.rename(out)
        except BaseException:
            old.rename(out)
            raise
    except OSError as error:
        raise _unwritable(out, error, "make its parent folder writable") from None
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def _unused_name(out: Path) -> Path:
    """Return a name beside `out`, known before there is a folder that an interrupt could leave."""
    return out.with_name(f".{out.name}-{secrets.token_hex(8)}")


def _unwritable(
    out: Path, error: OSError, otherwise: str = "name another folder with --out"
) -> BundleError:
    remedy = "make room" if error.errno in _FULL else otherwise
    return BundleError(f"{out} cannot be written ({error.strerror or error}); {remedy}")
