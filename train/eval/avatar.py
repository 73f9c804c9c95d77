"""AVATAR (Choi et al., 2025), as its authors ship it: its folder enters, `EvalSet`s leave.

Both archives unpacked into one folder:

    metadata/VIDEO/FRAME.json, metadata/VIDEO/FRAME.jpg   an annotated frame, FRAME its number
    video/VIDEO.mp4                                       the clip that it is of

An annotation has `original_width`, `original_height` and `annotations`, each with its `task`,
`audio_visual_category` and, where the source is seen, `segmentation`: polygons of x, y in pixels.

A frame is heard at its own moment, its number over the clip's frame rate, with the margin that a
spoken word has; the paper's models hear it in their own ways. It belongs to each scenario that an
annotation of a visible source names; what is to be found is all that is annotated as visible.
Frames with no visible source are the off-screen ones. H W pixels.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np

from denseav.export.outside_files import read_json
from denseav.stream.media.errors import MediaError
from denseav.stream.media.reader import MediaReader
from denseav.train.errors import DataError
from denseav.train.eval.items import EvalSet, Item
from denseav.train.metrics.localization import Mask

Scenario = Literal["Single-Sound", "Mixed-Sound", "Multi-Entity", "Off-Screen"]

OFF_SCREEN: Scenario = "Off-Screen"
ANNOTATION_BYTES_MAX = 16 * 2**20
SIDE_MAX = 16_384


@dataclass(frozen=True, kw_only=True)
class Source:
    """One thing that sounds: its scenario, its category, and its polygons where it is seen."""

    task: Scenario
    audio_visual_category: str | int
    segmentation: list[list[float]] | None = None


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """What a frame's file says."""

    original_height: int
    original_width: int
    annotations: list[Source]

    @property
    def shown(self) -> list[Source]:
        """The sources that are seen."""
        return [source for source in self.annotations if source.task != OFF_SCREEN]


def avatar(root: Path) -> list[EvalSet]:
    """Return a set for each scenario that the folder has frames of; the off-screen one is first.

    Raises
    ------
    DataError
        When the folder holds no frame with a visible source, an annotation is not as released, or
        a clip cannot be opened.
    """
    found: dict[Scenario, list[Item]] = {scenario: [] for scenario in get_args(Scenario)}
    fps: dict[Path, float] = {}
    for path in sorted((root / "metadata").glob("*/*.json")):
        clip = root / "video" / f"{path.parent.name}.mp4"
        if clip not in fps:
            fps[clip] = _frame_rate(clip)
        annotation = read_annotation(path)
        item = _item(path, clip, annotation, fps[clip])
        for scenario in {source.task for source in annotation.shown} or {OFF_SCREEN}:
            found[scenario].append(item)
    off_screen = found.pop(OFF_SCREEN)
    if not any(found.values()):
        raise DataError(
            f"{root} holds no annotated frame with a visible source; unpack metadata.zip and "
            "video.zip there, so that it has metadata/VIDEO/FRAME.json and video/VIDEO.mp4"
        )
    dark = [_set(OFF_SCREEN, off_screen)] if off_screen else []
    shown = [_set(scenario, items, *dark) for scenario, items in found.items() if items]
    return dark + shown


def read_annotation(path: Path) -> Annotation:
    """Read the annotation of a frame.

    Raises
    ------
    DataError
        When it is not as released.
    """
    try:
        annotation = read_json(path, Annotation, ANNOTATION_BYTES_MAX)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not as AVATAR is released ({error})") from None
    sides = annotation.original_height, annotation.original_width
    parts = [part for source in annotation.shown for part in source.segmentation or [[]]]
    whole = all(0 < side <= SIDE_MAX for side in sides) and annotation.annotations
    if not whole or not all(map(_is_polygon, parts)):
        raise DataError(f"{path} does not say in pixels where its sources are seen; copy it again")
    return annotation


def outlined_mask(path: Path) -> Mask:
    """Return where a frame's visible sources are, bool [H, W] of the frame's own size.

    Polygons are filled as the released evaluation does: corners cut to whole pixels, edges in.

    Raises
    ------
    DataError
        When the annotation is not as released.
    """
    annotation = read_annotation(path)
    mask_HW = np.zeros((annotation.original_height, annotation.original_width), np.uint8)
    for source in annotation.shown:
        for corners in source.segmentation or ():
            cv2.fillPoly(mask_HW, [np.array(corners).astype(np.int32).reshape(-1, 2)], 1)
    return mask_HW.astype(np.bool_)


def _is_polygon(corners: list[float]) -> bool:
    """Whether numbers are x, y in turn, not far outside a frame."""
    even = len(corners) % 2 == 0
    return bool(corners) and even and all(abs(number) <= SIDE_MAX for number in corners)


def _frame_rate(clip: Path) -> float:
    try:
        return MediaReader(clip).facts().fps
    except MediaError as error:
        if not clip.exists():
            return 1.0  # with_files says which files are missing, all at once
        raise DataError(f"{error}; copy it again") from None


def _item(path: Path, clip: Path, annotation: Annotation, fps: float) -> Item:
    try:
        moment_s = int(path.stem) / fps
    except ValueError:
        raise DataError(f"{path} is not named by the number of its frame") from None
    shown = annotation.shown
    categories = {str(source.audio_visual_category) for source in shown or annotation.annotations}
    return Item(
        key=f"{path.parent.name}/{path.stem}",
        image=path.with_suffix(".jpg"),
        audio=clip,
        category=" and ".join(sorted(categories)),
        outlines=path if shown else None,
        word_s=(moment_s, moment_s),
    )


def _set(scenario: str, items: list[Item], dark: EvalSet | None = None) -> EvalSet:
    return EvalSet(
        name=f"AVATAR {scenario}",
        kind="sound",
        task="off screen" if scenario == OFF_SCREEN else "boxes",
        items=tuple(items),
        stretch=True,
        dark=dark.name if dark else "",
    )
