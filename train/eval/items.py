"""What is evaluated: one item is a picture, a sound, and where the picture shows what sounds.

A folder of one's own with `items.csv` enters, `EvalSet`s leave; `public_sets` makes the same of
the public data sets. Nothing is decoded here, but every file is looked for, so that a long run
does not stop at its last item.

Columns of `items.csv`, paths relative to the folder; the first three are needed:

    image, audio   a picture and a sound, in any common format
    kind           speech or sound: which head should answer
    id             a name of its own for the item; else the audio's path
    category       what sounds or is said; mAP and mIoU are means over categories
    mask           a picture, white where the category is seen: asks for segmentation
    boxes          "left top right bottom; ...", fractions of the picture: asks for cIoU and AUC
    scene          items of one scene pass together (IIoU)
    start_s, end_s when the word is said; else the whole sound counts

Items without mask and boxes are matched with one another: retrieval.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from denseav.export.outside_files import read_csv, within
from denseav.stream.media.sound import Channel
from denseav.train.errors import DataError

Kind = Literal["speech", "sound"]
Task = Literal["segmentation", "boxes", "retrieval", "off screen"]
Box = tuple[float, float, float, float]
Row = dict[str, str]

FILE = "items.csv"
NEEDED = {"image", "audio", "kind"}
KNOWN = NEEDED | {"id", "category", "mask", "boxes", "scene", "start_s", "end_s"}
SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Item:
    """One picture with one sound.

    Attributes
    ----------
    key : a name that no other item of the set has.
    category : what sounds or is said.
    scene : the picture that several items share, else empty.
    label : a label map of ADE20K, in which `label_class` is to be found.
    mask : a picture, white where the item is to be found.
    boxes : where it is to be found: left, top, right, bottom, fractions of the picture.
    outlines : an annotation of AVATAR, whose polygons show where it is to be found.
    word_s : when the word is heard; None is the whole sound.
    channel : of the audio, as `MediaReader` takes it.
    """

    key: str
    image: Path
    audio: Path
    category: str = ""
    scene: str = ""
    label: Path | None = None
    label_class: int = 0
    mask: Path | None = None
    boxes: tuple[Box, ...] = ()
    outlines: Path | None = None
    word_s: tuple[float, float] | None = None
    channel: Channel | None = None

    def files(self) -> Iterator[Path]:
        """Yield all files of the item."""
        yield from (self.image, self.audio)
        yield from filter(None, (self.label, self.mask, self.outlines))


@dataclass(frozen=True, kw_only=True)
class EvalSet:
    """Items that are asked the same question.

    Attributes
    ----------
    kind : which head should answer, if the model has one of this name.
    task : the question.
    stretch : whether pictures are stretched to the square, else their middle is cut out.
    overlaid_by : the set whose sound from the same scene is always heard too, if any.
    dark : the set of pictures in which nothing that is heard is seen, and whose heat says from
        where on heat counts, if any.
    missing : files that are not there; their items were left out.
    silent : sounds in which nothing is heard, so that nothing can be mixed with them; likewise.
    """

    name: str
    kind: Kind
    task: Task
    items: tuple[Item, ...]
    stretch: bool = False
    overlaid_by: str = ""
    dark: str = ""
    missing: tuple[Path, ...] = ()
    silent: tuple[Path, ...] = ()


def own_folder(folder: Path) -> list[EvalSet]:
    """Read `items.csv`; each kind and question found in it becomes a set.

    Raises
    ------
    DataError
        When the file is not there, a column is missing or unknown, or a line cannot be used.
    """
    rows = read_rows(folder / FILE, NEEDED)
    unknown = sorted(set(rows[0]) - KNOWN)
    if unknown:
        raise DataError(
            f"{folder / FILE} has the unknown columns {', '.join(unknown)}; "
            f"known are {', '.join(sorted(KNOWN))}"
        )
    groups: dict[tuple[Kind, Task], list[Item]] = {}
    for number, row in enumerate(rows, start=2):
        kind, item = _own_item(folder, row, f"{folder / FILE}, line {number}")
        groups.setdefault((kind, _task(item)), []).append(item)
    return [
        EvalSet(
            name=f"{folder.resolve().name} {kind} {task}",
            kind=kind,
            task=task,
            items=tuple(items),
            stretch=True,
        )
        for (kind, task), items in groups.items()
    ]


def with_files(data: EvalSet, *, allow_missing: bool) -> EvalSet:
    """Look for every file; leave items without theirs out if that is allowed.

    Raises
    ------
    DataError
        When files are missing and that is not allowed, or nothing is left, or two items have
        the same key.
    """
    keys = [item.key for item in data.items]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DataError(f"{data.name} has two items {twice!r}; give each a name of its own")
    there = _existing(file for item in data.items for file in item.files())
    missing = sorted({file for item in data.items for file in item.files()} - there)
    if missing and not allow_missing:
        raise DataError(
            f"{data.name}: {len(missing)} files are missing: {listed(missing)}; put them there, "
            "or leave their items out with --allow-missing"
        )
    items = tuple(item for item in data.items if there.issuperset(item.files()))
    if not items:
        raise DataError(f"{data.name} holds no items to evaluate; check the folder's layout")
    return replace(data, items=items, missing=tuple(missing))


def with_channel(data: EvalSet, channel: Channel | None) -> EvalSet:
    """Return a set of whose audio this channel is heard."""
    return replace(data, items=tuple(replace(item, channel=channel) for item in data.items))


def listed(names: Sequence[object]) -> str:
    """Return the first few names and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(map(str, names[:SHOWN])) + (f" and {more} more" if more > 0 else "")


def read_rows(path: Path, needed: Iterable[str]) -> list[Row]:
    """Read a CSV file with a header.

    Raises
    ------
    DataError
        When it cannot be read, has no rows, or lacks a needed column.
    """
    try:
        rows, columns = read_csv(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); check the folder's layout") from None
    lacking = sorted(set(needed) - columns)
    if lacking:
        raise DataError(f"{path} lacks the columns {', '.join(lacking)}")
    if not rows:
        raise DataError(f"{path} has no rows")
    return rows


def _existing(files: Iterable[Path]) -> set[Path]:
    return {file for file in set(files) if file.is_file()}


def _task(item: Item) -> Task:
    if item.mask is not None:
        return "segmentation"
    return "boxes" if item.boxes else "retrieval"


def _own_item(folder: Path, row: Row, where: str) -> tuple[Kind, Item]:
    kind = row["kind"]
    if kind not in get_args(Kind):
        raise DataError(f"{where}: kind is {kind!r}; write speech or sound")
    try:
        boxes = tuple(_box(text) for text in row.get("boxes", "").split(";") if text.strip())
        span = row.get("start_s", ""), row.get("end_s", "")
        word_s = (finite(span[0]), finite(span[1])) if any(span) else None
        files = [within(folder, row[name]) for name in ("image", "audio")]
        mask = within(folder, row["mask"]) if row.get("mask") else None
    except ValueError as error:
        raise DataError(
            f"{where}: {error}; write numbers, boxes as left top right bottom, "
            "and paths within the folder"
        ) from None
    return ("speech" if kind == "speech" else "sound"), Item(
        key=row.get("id") or row["audio"],
        image=files[0],
        audio=files[1],
        category=row.get("category", ""),
        scene=row.get("scene", ""),
        mask=mask,
        boxes=boxes,
        word_s=word_s,
    )


def _box(text: str) -> Box:
    left, top, right, bottom = map(finite, text.split())
    return left, top, right, bottom


def finite(text: str) -> float:
    """Return a number that a list has as text.

    Raises
    ------
    ValueError
        When it is none, or not finite.
    """
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is no finite number")
    return number
