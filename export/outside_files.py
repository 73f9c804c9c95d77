"""Files from outside: bounded before they are read, and named so that FFmpeg opens no other.

Paths enter; bytes, rows, checked records and names leave. It knows nothing of what they mean, has
no torch and imports nothing of ours, so that every layer may use it.
"""

import codecs
import csv
import errno
import io
import os
import stat
from collections.abc import Hashable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

LIST_BYTES_MAX = 2**30  # the papers' longest list has 70 MB
_FIELD_CHARS_MAX = 2**20
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

T = TypeVar("T")


def ffmpeg_name(path: str | Path) -> str:
    """Return what FFmpeg is to be told to open or write this very file.

    Bare, it takes `2024-05-01T12:30:15.mp4` for an address, and `http:` for one too.
    """
    return f"file:{path}"


def within(folder: Path, name: str | Path) -> Path:
    """Return the path of what a list names in a folder; links in it lead where people laid them.

    Raises
    ------
    ValueError
        When the name leads out of the folder.
    """
    path = folder / name
    if is_below(name):
        return path
    if not _plain(path).is_relative_to(_plain(folder)):
        raise ValueError(f"{str(name)!r} leads out of {folder}")
    return path


def is_below(name: str | Path) -> bool:
    """Tell quickly whether a name lies below any folder at all; of odd ones, False."""
    text = str(name)
    return ".." not in text and ":" not in text and text[:1] not in ("/", "\\")


def require_file(path: Path) -> None:
    """Raise the `OSError` of a path that is missing, or is no regular file: a pipe never ends."""
    try:
        mode = path.stat().st_mode
    except ValueError:  # a NUL in its name
        raise _unnameable() from None
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is no regular file")


def read_bounded(path: Path, bytes_max: int) -> bytes:
    """Return the bytes of a regular file.

    Raises
    ------
    OSError
        When it is missing, larger than that, or no file: a pipe would be waited for.
    """
    how = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, how)
    except ValueError:  # a NUL in its name
        raise _unnameable() from None
    with open(handle, "rb") as file:  # noqa: PTH123 - it is open
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        data = file.read(min(status.st_size, bytes_max) + 1)  # takes as much memory at once
        if status.st_size < len(data) <= bytes_max:  # it has grown, or is the system's
            data += file.read(bytes_max + 1 - len(data))
    if len(data) > bytes_max:
        raise OSError(errno.EFBIG, f"it has more than {bytes_max:,} bytes")
    return data


def read_json(path: Path, kind: type[T], bytes_max: int) -> T:
    """Return a JSON file as a typed record, every field checked.

    Parameters
    ----------
    kind : a dataclass, or whatever msgspec can check; `object` for any JSON.

    Raises
    ------
    OSError
        When there is no such file of at most `bytes_max`.
    ValueError
        When it is not JSON, or not of that kind; the message says where.
    """
    return parse_json(read_bounded(path, bytes_max), kind)


def parse_json(data: bytes | msgspec.Raw, kind: type[T]) -> T:
    """Return JSON as a typed record; see `read_json`. A `Raw` field is parsed by another call."""
    if isinstance(data, bytes):
        data = data.removeprefix(codecs.BOM_UTF8)
    try:
        found: T = _decoder(cast(Hashable, kind)).decode(data)
        return found
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from None


def read_csv(path: Path, bytes_max: int = LIST_BYTES_MAX) -> tuple[list[dict[str, str]], set[str]]:
    """Return the rows of a CSV file with a header, as spreadsheets save them, and its columns.

    Bytes that are no UTF-8 stay what they are, as in Python's file names: a list made where names
    were written so finds its files.

    Raises
    ------
    OSError
        When there is no such file of at most `bytes_max`.
    ValueError
        When it is no such list.
    """
    rows = csv_rows(read_bounded(path, bytes_max))
    columns = next(rows)
    return [dict(zip(columns, row, strict=True)) for row in rows], set(columns)


def csv_rows(data: bytes) -> Iterator[list[str]]:
    """Yield the columns of a CSV file as `read_csv` reads it, then each row with as many values.

    Raises
    ------
    ValueError
        When it is no such list.
    """
    csv.field_size_limit(_FIELD_CHARS_MAX)
    coded = ("utf-16", "strict") if data.startswith(_UTF16) else ("utf-8-sig", "surrogateescape")
    text = io.TextIOWrapper(io.BytesIO(data), *coded, newline="")
    rows = csv.reader(text, skipinitialspace=True)
    try:
        columns = next(filter(None, rows), [])
        named = [at for at, name in enumerate(columns) if name]
        yield [columns[at] for at in named]
        for row in filter(None, rows):
            if len(row) == len(named) == len(columns):
                yield row
            else:
                row += [""] * (len(columns) - len(row))
                yield [row[at] for at in named]
    except csv.Error as error:
        raise ValueError(str(error)) from None


@cache
def _decoder(kind: Any) -> Any:
    return msgspec.json.Decoder(kind)


def _plain(path: Path) -> Path:
    """Return a path without `..`; unlike `resolve`, it follows no link."""
    return Path(os.path.normpath(path.absolute()))


def _unnameable() -> OSError:
    return FileNotFoundError(errno.ENOENT, "there can be no file of this name")
