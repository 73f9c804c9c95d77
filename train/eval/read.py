"""Files of an item enter, arrays of the size that a source takes leave.

S samples at 16 kHz, H W pixels.
"""

from pathlib import Path

import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray
from PIL import Image

from denseav.models.audio_encoder import SAMPLE_RATE_HZ
from denseav.train.data.decode import (
    UnreadableError,
    fit,
    media_reader,
    open_picture,
    read_recorded,
)
from denseav.train.errors import DataError
from denseav.train.eval.avatar import outlined_mask
from denseav.train.eval.items import Item
from denseav.train.metrics.localization import Mask, boxes_mask

WHITE = 128
Size = tuple[int, int]


def read_picture(path: Path, size: Size, *, stretch: bool) -> NDArray[np.uint8]:
    """Return an RGB picture [H, W, 3], resized bilinearly.

    Raises
    ------
    DataError
        When the file is no picture.
    """
    return np.array(fit(_open(path).convert("RGB"), size, stretch=stretch))


def read_truth(item: Item, size: Size, *, stretch: bool) -> tuple[Mask, bool]:
    """Return where the item is to be found, bool [H, W], and whether the whole picture has it.

    The two differ where the cut left it out.

    Raises
    ------
    DataError
        When a label map or mask is no picture, or an annotation not as released.
    """
    if item.label is not None:
        full_hw = ade_classes(_open(item.label)) == item.label_class
    elif item.mask is not None:
        full_hw = np.asarray(_open(item.mask).convert("L")) >= WHITE
    elif item.outlines is not None:
        full_hw = outlined_mask(item.outlines)
    else:
        return boxes_mask(item.boxes, size), True
    picture = Image.fromarray(full_hw.astype(np.uint8))
    fitted = fit(picture, size, Image.Resampling.NEAREST, stretch=stretch)
    return np.asarray(fitted).astype(np.bool_), bool(full_hw.any())


def ade_classes(label: Image.Image) -> NDArray[np.int64]:
    """Return the class of each pixel of an ADE20K label map: red's tens, times 256, plus green."""
    red_hw, green_hw, _ = np.moveaxis(np.asarray(label.convert("RGB"), dtype=np.int64), -1, 0)
    classes_hw: NDArray[np.int64] = red_hw // 10 * 256 + green_hw
    return classes_hw


def read_wave(item: Item) -> NDArray[np.float32]:
    """Return an item's audio at 16 kHz, its first minute at most, float32 [S] in [-1, 1].

    Resampled as the released evaluation did, by torchaudio's windowed sinc: soxr, which is used
    live and to prepare shards, moves features by a hundredth.

    Raises
    ------
    DataError
        When the file holds no sound that can be decoded.
    """
    try:
        wave_S, rate_hz = read_recorded(media_reader(item.audio, item.channel))
    except UnreadableError as error:
        raise DataError(f"{error}; replace or remove it") from None
    resampled_S = torchaudio.functional.resample(torch.from_numpy(wave_S), rate_hz, SAMPLE_RATE_HZ)
    return np.asarray(resampled_S.numpy(), dtype=np.float32)


def _open(path: Path) -> Image.Image:
    try:
        return open_picture(path)
    except UnreadableError as error:
        raise DataError(f"{error}; replace or remove it") from None
