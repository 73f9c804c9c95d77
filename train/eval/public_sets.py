"""The public evaluation data, as their authors ship them: folders enter, `EvalSet`s leave.

    speech_prompted, sound_prompted   ADE20KSpeechPrompted, ADE20KSoundPrompted (DenseAV):
        prompted_segmentation.csv, frames/, annotations/, audio/
    places    PlacesAudio_400k_distro: metadata/val.json, wavs/; pictures in ../places_subset/
    audioset  audioset-eval (DenseAV): metadata/eval_segments_subset.csv, audio/ID.mp3,
        frames/ID_{0..9}.jpg
    vggss     vggss.json (or metadata/vggss.json), frames/ID.jpg or frames/ID/image_050.jpg,
        audio/ID.wav
    is3       synthetic3240_bbox.json (or in metadata/), images/ (or visual_frames/), audio_wav/;
        for Extended IS3 also synthetic3240_seg.json, gt_segmentation/ (or gt_masks/) and speech/,
        with a spoken NAME.wav for each annotation or a CATEGORY.wav for each category
    avatar    see `avatar`

IS3's released annotations hold 3,240 pictures, where a paper says 3,420.
"""

from pathlib import Path
from typing import Any, cast

import numpy as np

from denseav.export.outside_files import LIST_BYTES_MAX, parse_json, read_json, within
from denseav.train.data.preparation.source_lists import audioset_ids
from denseav.train.errors import DataError
from denseav.train.eval.items import Box, EvalSet, Item, Kind, Row, finite, read_rows

Span = tuple[float, float]

FRAMES_PER_CLIP = 10
IS3_SIDE = 224
SEED = 0


def speech_prompted(root: Path) -> list[EvalSet]:
    """Return the speech-prompted part of ADE20K: 3,030 pairs, 478 classes."""
    items = [
        _prompted_item(root, row, row["speech_prompt_file"], _span(root, row["timing"]))
        for row in _prompted_rows(root, "speech_prompt_file", "timing")
    ]
    return [_ade("ADE20K speech", "speech", items)]


def sound_prompted(root: Path) -> list[EvalSet]:
    """Return the sound-prompted part of ADE20K: 106 pairs, 20 classes."""
    rows = _prompted_rows(root, "vggsound_file")
    items = [_prompted_item(root, row, row["vggsound_file"], None) for row in rows]
    return [_ade("ADE20K sound", "sound", items)]


def places(root: Path) -> list[EvalSet]:
    """Return the validation part of Places Audio: pictures with spoken captions."""
    record = _json(root / "metadata" / "val.json")
    try:
        items = tuple(
            Item(
                key=entry["wav"],
                image=within(root.parent / "places_subset", entry["image"]),
                audio=within(root, entry["wav"]),
            )
            for entry in record["data"]
        )
    except (KeyError, TypeError, ValueError):
        raise _unlike(root / "metadata" / "val.json", "a list `data` with wav and image") from None
    return [EvalSet(name="Places", kind="speech", task="retrieval", items=items)]


def audioset(root: Path) -> list[EvalSet]:
    """Return the evaluation part of AudioSet.

    Of ten frames of a clip one is drawn, always the same; the released evaluation draws anew.
    """
    table = root / "metadata" / "eval_segments_subset.csv"
    rows = read_rows(table, ("YTID", "start_seconds", "end_seconds"))
    frames = np.random.default_rng(SEED).integers(FRAMES_PER_CLIP, size=len(rows))
    try:
        items = tuple(
            Item(
                key=name,
                image=within(root / "frames", f"{name}_{frame}.jpg"),
                audio=within(root / "audio", f"{name}.mp3"),
            )
            for name, frame in zip(audioset_ids(rows), frames, strict=True)
        )
    except ValueError as error:
        raise DataError(
            f"{table}: {error}; start_seconds and end_seconds must be seconds"
        ) from None
    return [EvalSet(name="AudioSet", kind="sound", task="retrieval", items=items)]


def vggss(root: Path) -> list[EvalSet]:
    """Return VGG-SS: pictures with boxes round what sounds."""
    path = _metadata(root, "vggss.json")
    entries = _json(path)
    try:
        items = tuple(
            Item(
                key=entry["file"],
                image=_vggss_frame(root, entry["file"]),
                audio=within(root / "audio", f"{entry['file']}.wav"),
                category=entry["class"],
                boxes=tuple(
                    (left, top, right, bottom) for left, top, right, bottom in entry["bbox"]
                ),
            )
            for entry in entries
        )
    except (KeyError, TypeError, ValueError):
        raise _unlike(path, "a list of file, class and bbox") from None
    return [EvalSet(name="VGG-SS", kind="sound", task="boxes", items=items, stretch=True)]


def is3(root: Path) -> list[EvalSet]:
    """Return IS3, its boxes; and where there is speech, the two halves of Extended IS3."""
    boxes = _is3_items(root, _metadata(root, "synthetic3240_bbox.json"), speech=False)
    sets = [EvalSet(name="IS3", kind="sound", task="boxes", items=boxes, stretch=True)]
    if (root / "speech").is_dir():
        path = _metadata(root, "synthetic3240_seg.json")
        sets += [_extended(root, path, "sound", "speech"), _extended(root, path, "speech", "sound")]
    return sets


def _ade(name: str, kind: Kind, items: list[Item]) -> EvalSet:
    return EvalSet(name=name, kind=kind, task="segmentation", items=tuple(items))


def _extended(root: Path, path: Path, kind: Kind, other: Kind) -> EvalSet:
    return EvalSet(
        name=f"Extended IS3 {kind}",
        kind=kind,
        task="segmentation",
        items=_is3_items(root, path, speech=kind == "speech"),
        stretch=True,
        overlaid_by=f"Extended IS3 {other}",
    )


def _prompted_rows(root: Path, audio: str, *more: str) -> list[Row]:
    table = root / "prompted_segmentation.csv"
    rows = read_rows(table, ("image_location", "ade_class_id", audio, *more))
    try:
        for row in rows:
            within(root / "frames", row["image_location"])
        return [row for row in rows if row[audio] and finite(row["ade_class_id"] or "0")]
    except ValueError as error:
        raise DataError(f"{table}: {error}; ade_class_id must be a number") from None


def _prompted_item(root: Path, row: Row, audio: str, word_s: Span | None) -> Item:
    picture, name = Path(row["image_location"]), audio.rsplit("/", maxsplit=1)[-1]
    number = int(float(row["ade_class_id"]))
    return Item(
        key=f"{picture}|{number}|{name}",
        image=root / "frames" / picture,
        audio=root / "audio" / name,
        category=str(number),
        label=root / "annotations" / picture.with_name(f"{picture.stem}_seg.png"),
        label_class=number,
        word_s=word_s,
    )


def _span(root: Path, timing: str) -> Span:
    try:
        return parse_json(timing.encode(errors="surrogateescape"), cast(type[Span], Span))
    except ValueError:
        raise DataError(
            f"{root / 'prompted_segmentation.csv'}: timing is {timing!r}, not [start, end] in s"
        ) from None


def _vggss_frame(root: Path, name: str) -> Path:
    middle = within(root / "frames", f"{name}/image_050.jpg")
    return middle if middle.is_file() else within(root / "frames", f"{name}.jpg")


def _is3_items(root: Path, path: Path, *, speech: bool) -> tuple[Item, ...]:
    entries = _json(path)
    try:
        return tuple(_is3_item(root, entry, speech=speech) for entry in entries)
    except (KeyError, TypeError, ValueError):
        raise _unlike(path, "a list of image, audio and gt_box") from None


def _is3_item(root: Path, entry: dict[str, Any], *, speech: bool) -> Item:
    """Read an annotation: a mask's file in one list, a box in pixels in the other."""
    name, where = Path(entry["audio"]).stem, entry["gt_box"]
    scene, _, category = name.rpartition("_")
    masked = isinstance(where, str)
    return Item(
        key=name,
        image=_either(root, "images", "visual_frames") / Path(entry["image"]).name,
        audio=_is3_speech(root, name, category) if speech else root / "audio_wav" / f"{name}.wav",
        category=category,
        scene=scene,
        mask=_either(root, "gt_segmentation", "gt_masks") / Path(where).name if masked else None,
        boxes=() if masked else (_fractions(*where),),
    )


def _is3_speech(root: Path, name: str, category: str) -> Path:
    own = root / "speech" / f"{name}.wav"
    return own if own.is_file() else root / "speech" / f"{category}.wav"


def _either(root: Path, released: str, listed: str) -> Path:
    """Return the folder as the archive names it, or as the lists do."""
    folder = root / released
    return folder if folder.is_dir() else root / listed


def _fractions(left: float, top: float, right: float, bottom: float) -> Box:
    return left / IS3_SIDE, top / IS3_SIDE, right / IS3_SIDE, bottom / IS3_SIDE


def _metadata(root: Path, name: str) -> Path:
    beside = root / name
    return beside if beside.is_file() else root / "metadata" / name


def _json(path: Path) -> Any:
    try:
        return read_json(path, object, LIST_BYTES_MAX)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); check the folder's layout") from None


def _unlike(path: Path, expected: str) -> DataError:
    return DataError(f"{path} is not as released: it should hold {expected}")
