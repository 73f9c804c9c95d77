"""What there is to prepare: items of a folder of videos, or of the papers' data sets.

- A folder: every video in it, whatever its name, each cut into pieces of 10 s with 10 pictures.
- PlacesAudio: `NAME/metadata/train.json`, whose `data` lists `wav` and `image`; sounds beside
  `metadata`, pictures in `places_subset` beside `NAME`. Speech.
- AudioSet: `NAME/metadata/SEGMENTS.csv` with columns YTID, start_seconds, end_seconds and
  positive_labels; sounds `NAME/audio/<id>.mp3`, pictures `NAME/frames/frame_<n>/<id>.jpg` or
  `NAME/frames/<id>_<n>.jpg`, n from 0 to 9, the id being YTID_start_end (`audioset_ids`). Sound.

No file is opened here but the list itself. Of a list its bytes are held, and where each row of it
is; an item is made when it is asked for, so that millions of rows take seconds and little memory.

Errors
------
DataError            the list cannot be read, or lists nothing
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, overload

import msgspec

from denseav.export.outside_files import (
    LIST_BYTES_MAX,
    csv_rows,
    is_below,
    parse_json,
    read_bounded,
    within,
)
from denseav.stream.media.sound import Channel
from denseav.train.errors import DataError

# fmt: off
NO_VIDEO = frozenset(
    {
        ".7z", ".ass", ".bmp", ".bz2", ".cfg", ".conf", ".css", ".csv", ".db", ".doc", ".docx",
        ".gif", ".gz", ".heic", ".htm", ".html", ".ini", ".jpeg", ".jpg", ".js", ".json", ".jsonl",
        ".log", ".md", ".nfo", ".npy", ".npz", ".pdf", ".pickle", ".pkl", ".png", ".pt", ".py",
        ".rar", ".sh", ".srt", ".ssa", ".sub", ".svg", ".tar", ".tif", ".tiff", ".tsv", ".txt",
        ".vtt", ".webp", ".xls", ".xlsx", ".xml", ".yaml", ".yml", ".zip",
    }
)
# fmt: on
"""What lies beside videos and is none; every other file is tried."""
SEGMENT_COLUMNS = ("YTID", "start_seconds", "end_seconds", "positive_labels")
FRAMES = 10
"""Pictures of ten seconds."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One source of clips: a video, or pictures and the sound that goes with them.

    Attributes
    ----------
    key : tells it from all others of its list.
    kind : `speech`, `sound` or `unknown`.
    sound : an audio file, or the video.
    pictures : those of them that exist are used, one at least; empty for a video.
    notes : what the list says of it.
    channel, audio_track : which sound, as `MediaReader` takes them.
    """

    key: str
    kind: str
    sound: Path
    pictures: tuple[Path, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)
    channel: Channel | None = None
    audio_track: str | None = None


Row = TypeVar("Row")
RowRead = TypeVar("RowRead", contravariant=True)


class Layout(Protocol[RowRead]):
    """What the rows of a source mean. Both raise `ValueError` or `KeyError` of a wrong row."""

    def key(self, row: RowRead) -> str:
        """Check a row, and return the key of its item."""

    def item(self, row: RowRead) -> Item:
        """Return the item of a row."""

    def fault(self, reason: str) -> DataError:
        """Return what there is to say of a wrong row."""


class ItemList(Sequence[Item], Generic[Row]):
    """The items of a source in an order that does not change, each made when it is asked for.

    Parameters
    ----------
    rows, layout : what the source has of each item, and what it means.
    digest : of all that the items are made from; "" where only their keys tell.
    alone : how many files beside them are no items, by what their names end with.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        layout: Layout[Row],
        digest: str = "",
        alone: Mapping[str, int] | None = None,
    ) -> None:
        self._rows, self._layout, self.digest = rows, layout, digest
        self.alone = alone or {}

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> Item: ...

    @overload
    def __getitem__(self, at: slice) -> list[Item]: ...

    def __getitem__(self, at: int | slice) -> Item | list[Item]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        try:
            return self._layout.item(self._rows[at])
        except (ValueError, KeyError) as error:
            raise self._layout.fault(f"entry {at + 1:,}: {_reason(error)}") from None

    def keys(self) -> Iterator[str]:
        """Yield the key of each item, every row checked, without making items.

        Raises
        ------
        DataError
            At the first row that is not as its layout promises.
        """
        number = 0
        try:
            for number, row in enumerate(self._rows, start=1):  # noqa: B007 - the error names it
                yield self._layout.key(row)
        except (ValueError, KeyError) as error:
            raise self._layout.fault(f"entry {number:,}: {_reason(error)}") from None


def list_items(
    source: Path,
    kind: str | None = None,
    channel: Channel | None = None,
    audio_track: str | None = None,
) -> ItemList[Any]:
    """List a source.

    Parameters
    ----------
    source : a folder of videos, a PlacesAudio .json or an AudioSet .csv.
    kind : of all items; None for what the layout promises.
    channel, audio_track : which sound, as `MediaReader` takes them.

    Raises
    ------
    DataError
        When the source is none of these, or lists nothing; a row that lacks a field is found when
        it is asked for.
    """
    item = partial(Item, channel=channel, audio_track=audio_track)
    items: ItemList[Any]
    if source.is_dir():
        tried, alone = media_files(source)
        videos = _Videos(source, partial(item, kind=kind or "unknown"))
        items = ItemList(tried, videos, alone=alone)
    elif not source.is_file():
        raise DataError(f"{source} does not exist; give a folder of videos, a .json or a .csv list")
    elif source.suffix == ".json":
        items = _places(source, partial(item, kind=kind or "speech"))
    elif source.suffix == ".csv":
        items = _audioset(source, partial(item, kind=kind or "sound"))
    else:
        raise DataError(f"{source} is no folder of videos, no .json and no .csv list")
    if not items:
        raise DataError(
            f"{source} holds no clip; give a folder with videos, or a list with entries"
        )
    return items


def readable(text: str) -> str:
    """Return a text in one printable line; no two texts become one.

    Backslashes are doubled; what cannot be printed, such as line feeds, and bytes of a name that
    are no UTF-8, are written as Python escapes them.
    """
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(
        char if char.isprintable() and char != "\\" else char.encode("unicode_escape").decode()
        for char in text
    )


def audioset_ids(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the name of each segment's files: YTID_start_end, as the released code prints them.

    It reads the list with pandas, where seconds are whole numbers if all of their column are
    written as such, and have a decimal point otherwise.

    Raises
    ------
    ValueError, KeyError or TypeError
        When a column is missing, or seconds are no number.
    """
    columns = [[row[f"{side}_seconds"] for row in rows] for side in ("start", "end")]
    starts, ends = (
        [_as_pandas(text, all(map(_is_whole, texts))) for text in texts] for texts in columns
    )
    return [
        f"{row['YTID']}_{start}_{end}" for row, start, end in zip(rows, starts, ends, strict=True)
    ]


def _is_whole(seconds: str) -> bool:
    return seconds.strip().isdecimal()


def _as_pandas(seconds: str, whole: bool) -> str:
    number = float(seconds)
    return str(int(number) if whole else number)


def media_files(folder: Path) -> tuple[list[str], Counter[str]]:
    """Look through a folder and its folders.

    Returns
    -------
    list of str
        The files that are tried, relative to the folder, in the order of their names. Of millions
        no path is made before it is needed.
    Counter of str
        How many are left alone, by what their names end with.
    """
    tried, alone = list[str](), Counter[str]()
    for file in _files(str(folder)):
        name = file.rpartition("/")[2]
        dot = name.rfind(".")
        suffix = name[dot:].lower() if dot > 0 else ""
        if suffix in NO_VIDEO or name.startswith("."):
            alone[suffix or name] += 1
        else:
            tried.append(file)
    return tried, alone


def _files(folder: str, prefix: str = "") -> Iterator[str]:
    """Yield files in the order of their names; nothing of folders that may not be read."""
    found = list[tuple[str, bool]]()
    with suppress(PermissionError), os.scandir(folder) as entries:
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            if is_folder or _is_file(entry):
                found.append((entry.name, is_folder))
    for name, is_folder in sorted(found):
        if is_folder:
            yield from _files(f"{folder}/{name}", f"{prefix}{name}/")
        else:
            yield prefix + name


def _is_file(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):
        return entry.is_file()
    return False


class _Videos:
    def __init__(self, folder: Path, item: Callable[..., Item]) -> None:
        self._folder, self._item = folder, item

    def key(self, row: str) -> str:
        return readable(row)

    def item(self, row: str) -> Item:
        return self._item(key=self.key(row), sound=self._folder / row)

    def fault(self, reason: str) -> DataError:
        return DataError(f"{self._folder} cannot be listed ({reason})")


Entry = dict[str, str | int | float | bool | None]


@dataclass(frozen=True)
class _PlacesList:
    """A PlacesAudio list; each entry has a `wav`, an `image`, and notes."""

    data: list[msgspec.Raw]


class _Places:
    def __init__(self, manifest: Path, item: Callable[..., Item]) -> None:
        self._manifest, self._item = manifest, item
        self._root = manifest.absolute().parents[1]

    def key(self, row: msgspec.Raw) -> str:
        entry = parse_json(row, Entry)
        if not (is_below(str(entry["wav"])) and is_below(str(entry["image"]))):
            self.item(row)
        return _places_key(entry)

    def item(self, row: msgspec.Raw) -> Item:
        entry = parse_json(row, Entry)
        return self._item(
            key=_places_key(entry),
            sound=within(self._root, str(entry["wav"])),
            pictures=(within(self._root.parent / "places_subset", str(entry["image"])),),
            notes={name: value for name, value in entry.items() if name != "wav"},
        )

    def fault(self, reason: str) -> DataError:
        return DataError(
            f"{self._manifest} is no PlacesAudio list ({reason}); it should be "
            '{"data": [{"wav": ..., "image": ...}, ...]}'
        )


def _places(manifest: Path, item: Callable[..., Item]) -> ItemList[msgspec.Raw]:
    layout = _Places(manifest, item)
    try:
        data = read_bounded(manifest, LIST_BYTES_MAX)
        rows = parse_json(data, _PlacesList).data
    except (OSError, ValueError) as error:
        raise layout.fault(_reason(error)) from None
    return ItemList(rows, layout, hashlib.sha256(data).hexdigest())


def _places_key(entry: Entry) -> str:
    return readable(Path(str(entry["wav"])).with_suffix("").as_posix())


class _AudioSet:
    """Rows are packed: as lists of texts, two million of them would take a gigabyte."""

    def __init__(self, segments: Path, item: Callable[..., Item]) -> None:
        self._segments, self._item = segments, item
        self._root = segments.absolute().parents[1]
        self._whole = [True, True]

    def pack(self, row: Sequence[str]) -> bytes:
        """Take in YTID, start, end and labels."""
        for side in (0, 1):
            if self._whole[side] and not _is_whole(row[1 + side]):
                self._whole[side] = False
        return msgspec.msgpack.encode(row)

    def key(self, packed: bytes) -> str:
        key, _ = self._said(packed)
        if not is_below(key):
            self.item(packed)
        return readable(key)

    def item(self, packed: bytes) -> Item:
        key, labels = self._said(packed)
        frames = self._root / "frames"
        return self._item(
            key=readable(key),
            sound=within(self._root / "audio", f"{key}.mp3"),
            pictures=(
                *(within(frames, f"frame_{index}/{key}.jpg") for index in range(FRAMES)),
                *(within(frames, f"{key}_{index}.jpg") for index in range(FRAMES)),
            ),
            notes={"labels": labels},
        )

    def fault(self, reason: str) -> DataError:
        return DataError(
            f"{self._segments} is no AudioSet list ({reason}); its columns should be YTID, "
            "start_seconds, end_seconds, positive_labels"
        )

    def _said(self, packed: bytes) -> tuple[str, str]:
        name, start, end, labels = msgspec.msgpack.decode(packed, type=tuple[str, str, str, str])
        seconds = map(_as_pandas, (start, end), self._whole)
        return "_".join((name, *seconds)), labels


def _audioset(segments: Path, item: Callable[..., Item]) -> ItemList[bytes]:
    layout = _AudioSet(segments, item)
    try:
        data = read_bounded(segments, LIST_BYTES_MAX)
        rows = csv_rows(data)
        places = {name: at for at, name in enumerate(next(rows))}
        packed = [layout.pack([row[places[name]] for name in SEGMENT_COLUMNS]) for row in rows]
    except (OSError, ValueError, KeyError) as error:
        raise layout.fault(_reason(error)) from None
    return ItemList(packed, layout, hashlib.sha256(data).hexdigest())


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    return getattr(error, "strerror", None) or str(error)
