"""What there is to prepare: items of a folder of videos, or of the papers' data sets.

- A folder: every video in it, whatever its name, each cut into pieces of 10 s with 10 pictures.
- PlacesAudio: `NAME/metadata/train.json`, whose `data` lists `wav` and `image`; sounds beside
  `metadata`, pictures in `places_subset` beside `NAME`. Speech.
- AudioSet: `NAME/metadata/SEGMENTS.csv` with columns YTID, start_seconds, end_seconds and
  positive_labels; sounds `NAME/audio/<id>.mp3`, pictures `NAME/frames/frame_<n>/<id>.jpg` or
  `NAME/frames/<id>_<n>.jpg`, n from 0 to 9, the id being YTID_start_end (`audioset_ids`). Sound.

No file is opened here but the list itself.

Errors
------
DataError            the list cannot be read, or lists nothing
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from denseav.export.outside_files import LIST_BYTES_MAX, read_csv, read_json, within
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


def list_items(
    source: Path,
    kind: str | None = None,
    channel: Channel | None = None,
    audio_track: str | None = None,
) -> list[Item]:
    """List a source, in an order that does not change.

    Parameters
    ----------
    source : a folder of videos, a PlacesAudio .json or an AudioSet .csv.
    kind : of all items; None for what the layout promises.
    channel, audio_track : which sound, as `MediaReader` takes them.

    Raises
    ------
    DataError
        When the source is none of these, lacks a field, or lists nothing.
    """
    if source.is_dir():
        items = _videos(source, kind or "unknown")
    elif not source.is_file():
        raise DataError(f"{source} does not exist; give a folder of videos, a .json or a .csv list")
    elif source.suffix == ".json":
        items = _places(source, kind or "speech")
    elif source.suffix == ".csv":
        items = _audioset(source, kind or "sound")
    else:
        raise DataError(f"{source} is no folder of videos, no .json and no .csv list")
    if not items:
        raise DataError(
            f"{source} holds no clip; give a folder with videos, or a list with entries"
        )
    return [
        replace(item, key=readable(item.key), channel=channel, audio_track=audio_track)
        for item in items
    ]


def readable(text: str) -> str:
    """Return a text in one printable line; no two texts become one.

    Backslashes are doubled; what cannot be printed, such as line feeds, and bytes of a name that
    are no UTF-8, are written as Python escapes them.
    """
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
    starts, ends = (
        _as_pandas([row[f"{side}_seconds"] for row in rows]) for side in ("start", "end")
    )
    return [
        f"{row['YTID']}_{start}_{end}" for row, start, end in zip(rows, starts, ends, strict=True)
    ]


def _as_pandas(texts: Sequence[str]) -> list[str]:
    seconds = [float(text) for text in texts]
    whole = all(text.strip().isdecimal() for text in texts)
    return [str(int(second) if whole else second) for second in seconds]


def left_alone(source: Path) -> Counter[str]:
    """Return how many files of a folder are not tried, by what their names end with."""
    if not source.is_dir():
        return Counter()
    return Counter(path.suffix.lower() or path.name for path in _files(source) if not _tried(path))


def likely_media(folder: Path) -> list[Path]:
    """Return the files of a folder and its folders that are tried, in the order of their names."""
    return [path for path in _files(folder) if _tried(path)]


def _videos(folder: Path, kind: str) -> list[Item]:
    return [
        Item(key=path.relative_to(folder).as_posix(), kind=kind, sound=path)
        for path in likely_media(folder)
    ]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _tried(path: Path) -> bool:
    return path.suffix.lower() not in NO_VIDEO and not path.name.startswith(".")


Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class _Places:
    """A PlacesAudio list; each row has a `wav`, an `image`, and notes."""

    data: list[dict[str, Scalar]]


def _places(manifest: Path, kind: str) -> list[Item]:
    try:
        rows = read_json(manifest, _Places, LIST_BYTES_MAX).data
        return [_place(manifest.absolute().parents[1], row, kind) for row in rows]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{manifest} is no PlacesAudio list ({_reason(error)}); it should be "
            '{"data": [{"wav": ..., "image": ...}, ...]}'
        ) from None


def _place(root: Path, row: dict[str, Scalar], kind: str) -> Item:
    wav, image = str(row["wav"]), str(row["image"])
    return Item(
        key=Path(wav).with_suffix("").as_posix(),
        kind=kind,
        sound=within(root, wav),
        pictures=(within(root.parent / "places_subset", image),),
        notes={name: value for name, value in row.items() if name != "wav"},
    )


def _audioset(segments: Path, kind: str) -> list[Item]:
    root = segments.absolute().parents[1]
    try:
        rows, _ = read_csv(segments)
        keys = audioset_ids(rows)
        return [_segment(root, key, row, kind) for key, row in zip(keys, rows, strict=True)]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{segments} is no AudioSet list ({_reason(error)}); its columns should be YTID, "
            "start_seconds, end_seconds, positive_labels"
        ) from None


def _segment(root: Path, key: str, row: dict[str, str], kind: str) -> Item:
    frames = root / "frames"
    return Item(
        key=key,
        kind=kind,
        sound=within(root / "audio", f"{key}.mp3"),
        pictures=(
            *(within(frames, f"frame_{index}/{key}.jpg") for index in range(FRAMES)),
            *(within(frames, f"{key}_{index}.jpg") for index in range(FRAMES)),
        ),
        notes={"labels": row["positive_labels"]},
    )


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    return getattr(error, "strerror", None) or str(error)
