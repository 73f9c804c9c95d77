"""Clips of the world as files: shards to train on, and pairs of a picture and sound to calibrate.

A clip depends on the seed, its kind and its number alone. All are made of the parts that training
has, none of those held out.

Errors
------
DataError    espeak-ng is not installed, or the folder is in use or cannot be written
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import soundfile
from PIL import Image

from denseav.models.audio_encoder import SAMPLE_RATE_HZ
from denseav.train.data.decode import flac, jpeg
from denseav.train.data.shards import KINDS as SHARD_KINDS
from denseav.train.data.shards import Clip as Stored
from denseav.train.data.shards import save_clips
from denseav.train.errors import DataError
from denseav.train.world.clips import KINDS, Clip, Kind, make_clip
from denseav.train.world.library import library
from denseav.train.world.scenes import Masks, draw
from denseav.train.world.shots import SCENE_SIZE, box

NEGATIVES: tuple[Kind, ...] = ("silence", "noise", "offscreen_sound", "offscreen_speech")
SEEN: tuple[Kind, ...] = ("sound", "speech", "both")
TUNES: tuple[Kind, ...] = ("tune", "offscreen_tune")
SHARD_SCALE = 2.0
"""Pictures in shards have a short side of 256 pixels."""

_PAIRS, _SHARDS = 8, 9


def save_pairs(
    out: Path, seed: int, kinds: Sequence[Kind], size: tuple[int, int], numbers: Iterable[int]
) -> None:
    """Write `KIND-NUMBER.png` and `KIND-NUMBER.wav` (24 bit, 16 kHz, mono, two seconds).

    The same seed writes the same bytes, and what is louder than full is clipped.

    Parameters
    ----------
    out : a new or empty folder.
    seed : decides everything.
    kinds : of the clips, one after the other.
    size : height and width of the pictures, in pixels.
    numbers : of the clips; may show how far it has come.

    Raises
    ------
    DataError
        If espeak-ng is not installed, or the folder is in use or cannot be written.
    """
    _claim(out)
    for number in numbers:
        clip = _clip(part=_PAIRS, seed=seed, kinds=kinds, number=number, size=size)
        picture_HW3, _ = draw(clip.scene, library(held_out=False))
        path = out / f"{clip.kind}-{number:06d}.png"
        try:
            path.write_bytes(cv2.imencode(".png", picture_HW3[..., ::-1])[1].tobytes())
            # Not float: into such files libsndfile writes the time of day.
            soundfile.write(path.with_suffix(".wav"), clip.wave_S, SAMPLE_RATE_HZ, subtype="PCM_24")
        except (OSError, soundfile.LibsndfileError) as error:
            raise DataError(f"cannot write {path} ({error}); make room or choose another") from None


def save_shards(out: Path, seed: int, kinds: Sequence[Kind], numbers: Iterable[int]) -> int:
    """Write clips as `denseav-data prepare` does, and return how many there are.

    What is heard, when, and where each thing is seen stands in the clips' notes. Kinds that shards
    do not know are stored as unknown.

    Parameters
    ----------
    out : a new or empty folder.
    seed : decides everything.
    kinds : of the clips, one after the other.
    numbers : of the clips; may show how far it has come.

    Raises
    ------
    DataError
        If espeak-ng is not installed, or the folder is in use or cannot be written.
    """
    _claim(out)
    try:
        return save_clips(out, _stored(seed, kinds, numbers))
    except OSError as error:
        raise DataError(f"cannot write to {out} ({error.strerror}); make room") from None


def _stored(seed: int, kinds: Sequence[Kind], numbers: Iterable[int]) -> Iterator[Stored]:
    for number in numbers:
        clip = _clip(part=_SHARDS, seed=seed, kinds=kinds, number=number, size=SCENE_SIZE)
        picture_HW3, masks_NHW = draw(clip.scene, library(held_out=False), scale=SHARD_SCALE)
        yield Stored(
            key=f"world/{seed}/{number:06d}",
            kind=clip.kind if clip.kind in SHARD_KINDS else "unknown",
            frames=(jpeg(Image.fromarray(picture_HW3)),),
            audio=flac(clip.wave_S),
            notes={"world": clip.kind} | _truth(clip, masks_NHW),
        )


def _truth(clip: Clip, masks_NHW: Masks) -> dict[str, Any]:
    boxes = zip(clip.scene.names, map(box, masks_NHW), strict=True)
    return {
        "things": [{"name": name, "box": edges} for name, edges in boxes],
        "heard": [asdict(event) for event in clip.events],
    }


def _clip(part: int, seed: int, kinds: Sequence[Kind], number: int, size: tuple[int, int]) -> Clip:
    kind = kinds[number % len(kinds)]
    random = np.random.default_rng([seed, part, KINDS.index(kind), number])
    fewest = 2 if kind == "both" else 1
    return make_clip(random, library(held_out=False), kind, size=size, things=(fewest, 4))


def _claim(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        used = any(out.iterdir())
    except OSError as error:
        raise DataError(f"cannot write to {out} ({error.strerror}); choose another --out") from None
    if used:
        raise DataError(f"{out} is not empty; choose another --out")
