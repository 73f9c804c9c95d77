"""Shards: what clips are on disk, how they are written once and read by number.

A shard is a chunk of LitData, which was chosen by trying. What else was tried:

- mosaicml-streaming 0.13 cannot be installed here: it holds numpy below 2.2 and transformers
  below 5, brings 65 packages, and by design never skips a damaged shard.
- webdataset 1.0 is small and skips damage, but has no state in the middle of an epoch and no
  access by number, which splices, quarters and mixtures need.
- torchdata 0.11, the last release, of early 2025, resumes exactly, but gives an empty epoch
  after a state saved at an epoch's end, and calls what PyTorch 2.14 has deprecated.
- LitData 0.2.76 is released monthly, fits PyTorch 2.14, and finds any clip by its number at
  once. Its own stream, with a state that also resumes exactly, is not used: it maps shards
  ahead, where a damaged one ends the run, and its order changes with the number of workers and
  the kind of file system. The order is `sampler.py`'s instead, and its state a few numbers.

LitData's price is 60 MB of clients for clouds; its call home for newer versions is turned off
below, and damage is caught here. A clip enters and leaves as encoded bytes; this file knows
nothing of pictures and waves.

Errors
------
DataError            the folder holds no whole set of shards
DamagedClip          one clip's bytes are not what was written
"""

import json
import os
import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Self
from zlib import crc32

from denseav.export.outside_files import LIST_BYTES_MAX, read_json
from denseav.models.checkpoints.atomic_files import replacing
from denseav.train.data.remote_folder import RemoteFolder, is_address
from denseav.train.errors import DataError

FORMAT = "denseav-shards"
SCHEMA = 2
KINDS = {"speech": 0, "sound": 1, "unknown": -1}
MAX_SHARD_BYTES = 64 * 2**20
TRIES = 5
"""How often a shard that another process made room of is fetched again for one clip."""

_PASSPORT = "shards.json"
_INDEX = "index.json"


class DamagedClip(Exception):  # noqa: N818 - an event for the loader, not for people
    """A clip cannot be read from its shard; the message names the shard's file."""


class _GoneError(Exception):
    """Another process needed the room of a shard that was there."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One clip as it is stored.

    Attributes
    ----------
    key : tells the clip from all others of its set; readable, made from where it came from.
    kind : a name of `KINDS`.
    frames : JPEG files, evenly spaced in time; at least one.
    audio : a FLAC file, mono, 16 kHz, 16 bit.
    notes : what the source says of the clip (labels, text, times), as JSON can hold it.
    """

    key: str
    kind: str
    frames: tuple[bytes, ...]
    audio: bytes
    notes: dict[str, Any] = field(default_factory=dict)

    def pack(self) -> list[str | bytes]:
        """Return the record that a shard holds."""
        head: dict[str, Any] = {
            "key": self.key,
            "kind": self.kind,
            "sizes": [len(frame) for frame in self.frames],
            "notes": self.notes,
        }
        frames = b"".join(self.frames)
        head["crc"] = crc32(frames, crc32(self.audio))
        # No dictionary: LitData stores those as Arrow where it finds pyarrow, which only pyarrow
        # can read, and hundreds of clips at a time.
        return [json.dumps(head), self.audio, frames]

    @classmethod
    def unpack(cls, record: Any) -> Self:
        """Return the clip of a shard's record.

        Raises
        ------
        ValueError, KeyError or TypeError
            When the record is not what `pack` makes.
        """
        packed, audio, frames = record
        head = json.loads(packed)
        ends = list(accumulate(head["sizes"]))
        if head["crc"] != crc32(frames, crc32(audio)):
            raise ValueError("the files are not those that were written")
        starts = [0, *ends[:-1]]
        return cls(
            key=head["key"],
            kind=head["kind"],
            frames=tuple(frames[start:end] for start, end in zip(starts, ends, strict=True)),
            audio=audio,
            notes=head["notes"],
        )


def write_shards(
    folder: Path, clips: Iterable[Clip], *, max_bytes: int = MAX_SHARD_BYTES
) -> dict[str, Any]:
    """Write clips into an empty folder as shards of at most so many bytes.

    Returns
    -------
    dict
        The index of these shards, for `close_shards`; without chunks when there was no clip.
    """
    writer = _litdata().streaming.writer.BinaryWriter(str(folder), chunk_bytes=max_bytes)
    for number, clip in enumerate(clips):
        writer[number] = clip.pack()
    writer.done()
    try:
        [index] = folder.glob(f"*.{_INDEX}")
    except ValueError:
        return {"chunks": []}
    record: dict[str, Any] = json.loads(index.read_text())
    index.unlink()
    return record


def close_shards(folder: Path, indices: Iterable[dict[str, Any]]) -> int:
    """Join the indices of all shards of a folder, so that it can be opened.

    Returns
    -------
    int
        How many clips there are.
    """
    full = [index for index in indices if index["chunks"]]
    chunks = [chunk for index in full for chunk in index["chunks"]]
    if chunks:
        write_json(folder / _INDEX, {"chunks": chunks, "config": full[0]["config"]})
    clips = sum(int(chunk["chunk_size"]) for chunk in chunks)
    write_json(folder / _PASSPORT, {"format": FORMAT, "schema": SCHEMA, "clips": clips})
    return clips


def save_clips(folder: Path, clips: Iterable[Clip]) -> int:
    """Write a whole set of shards at once, into a new or empty folder.

    Returns
    -------
    int
        How many clips there are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return close_shards(folder, [write_shards(folder, clips)])


def count_closed(folder: Path) -> int:
    """Return how many clips a folder holds whose shards were closed, and 0 before that."""
    try:
        clips: int = json.loads((folder / _PASSPORT).read_text())["clips"]
    except FileNotFoundError:
        return 0
    return clips


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a file that is there as a whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(record))


class Shards:
    """A set of shards, whose clips are read by number. May be sent to other processes.

    Parameters
    ----------
    source : a folder written by `denseav-data prepare`, or the address of a copy.
    cache_gb : of a copy elsewhere, as `RemoteFolder` takes it.

    Attributes
    ----------
    sizes : how many clips each shard holds; clips are numbered through all shards.

    Raises
    ------
    DataError
        When the folder is no set of shards, is unfinished, empty, or lacks a shard, or the address
        is wrong.
    """

    def __init__(self, source: Path | str, cache_gb: float | None = None) -> None:
        self.source = str(source)
        _litdata()  # what it lacks is told now, and is no clip's damage
        self._remote: RemoteFolder | None = None
        if is_address(self.source):
            self._remote = RemoteFolder(self.source, (_PASSPORT, _INDEX), cache_gb)
        self.folder = self._remote.path if self._remote else Path(source)
        shards = _inspect(self.folder)
        self.sizes = [shard.chunk_size for shard in shards]
        self._ends = list(accumulate(self.sizes))
        self._names = [shard.filename for shard in shards]
        self._bytes = {shard.filename: shard.chunk_bytes for shard in shards}
        if self._remote is None:
            _require_all(self.folder, self._names)
        self._whole = dict[str, bool]()
        self._reader: Any = None

    @property
    def clips(self) -> int:
        """How many clips there are."""
        return self._ends[-1]

    def clip(self, number: int) -> Clip:
        """Return one clip.

        Raises
        ------
        DamagedClip
            When its bytes are not what was written.
        DataError
            When its shard is elsewhere and cannot be fetched.
        """
        name = self._names[bisect_right(self._ends, number)]
        for _ in range(TRIES):
            with suppress(_GoneError):
                if not self._is_whole(name):
                    raise DamagedClip(name)
                return self._read(name, number)
        raise DataError(f"{name} of {self.source} goes as soon as it comes; raise data.cache_gb")

    def _read(self, name: str, number: int) -> Clip:
        litdata = _litdata()
        if self._reader is None:
            self._reader = litdata.StreamingDataset(str(self.folder), batch_decode=0)
        try:
            return Clip.unpack(self._reader[number])
        except (litdata.exceptions.ChunkWaitTimeoutError, RuntimeError):
            if self._remote is not None and not (self.folder / name).exists():
                raise _GoneError from None
            self._whole[name] = False
            raise DamagedClip(name) from None
        except (ValueError, KeyError, TypeError, IndexError, OSError, struct.error):
            raise DamagedClip(name) from None

    def _is_whole(self, name: str) -> bool:
        """Tell whether a shard has as many bytes as were written; have it first, if need be."""
        if self._remote is not None and self._remote.fetch(name, self._bytes[name]):
            self._whole.pop(name, None)
        if name not in self._whole:
            path = self.folder / name
            if self._remote is not None and not path.exists():
                raise _GoneError
            self._whole[name] = path.is_file() and path.stat().st_size == self._bytes[name]
        return self._whole[name]

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files behind."""
        return self.__dict__ | {"_reader": None}


def _litdata() -> Any:
    """Import LitData where it is needed: it makes a lock, which lies in shared memory."""
    os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")
    try:
        import litdata
        import litdata.exceptions
        import litdata.streaming.writer
    except OSError as error:
        raise DataError(
            f"shards need shared memory, which cannot be had ({error.strerror}); mount /dev/shm "
            "so that it can be written (docker run --shm-size)"
        ) from None
    return litdata


@dataclass(frozen=True)
class _Passport:
    format: str
    schema: int


@dataclass(frozen=True)
class _Shard:
    filename: str
    chunk_size: int
    chunk_bytes: int


@dataclass(frozen=True)
class _Index:
    chunks: list[_Shard]


def _inspect(folder: Path) -> list[_Shard]:
    try:
        passport = read_json(folder / _PASSPORT, _Passport, LIST_BYTES_MAX)
        shards = read_json(folder / _INDEX, _Index, LIST_BYTES_MAX).chunks
    except (OSError, ValueError):
        shards = []
    if not shards:
        raise DataError(
            f"{folder} holds no finished shards; make them with: denseav-data prepare SOURCE "
            f"--out {folder}"
        )
    if (passport.format, passport.schema) != (FORMAT, SCHEMA):
        raise DataError(
            f"the shards in {folder} are of another version of denseav; upgrade the older one, or "
            "make them again with: denseav-data prepare"
        )
    for shard in shards:
        if Path(shard.filename).name != shard.filename or shard.chunk_size < 1:
            raise DataError(
                f"{folder / _INDEX} names a shard that can be none ({shard.filename!r:.80}); copy "
                "the folder again"
            )
    return shards


def _require_all(folder: Path, names: Sequence[str]) -> None:
    there = {path.name for path in folder.iterdir()}
    missing = [name for name in names if name not in there]
    if missing:
        raise DataError(
            f"{folder} lacks {len(missing)} of its {len(names)} shards, {missing[0]} first; copy "
            "the folder again, or make it again with: denseav-data prepare"
        )
