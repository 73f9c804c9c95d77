"""One training example: a stored clip becomes a picture, a wave and their masks.

A random frame of the clip, or the middle one; the first 10.2625 s of its sound, padded with
zeros. Nothing here reads files: whoever calls gives clips.

Axes: 3 red green blue, H W pixels, S samples at 16 kHz.

Errors
------
ValueError, OSError  a picture or sound cannot be decoded, or there is too little sound
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import soundfile
import torch
from numpy.random import Generator
from PIL import Image
from torch import Tensor

from denseav.train.data import augment
from denseav.train.data.decode import LEAST_SAMPLES
from denseav.train.data.shards import KINDS, Clip

T = TypeVar("T")

WAVE_SAMPLES = 164_200
"""What the network is trained on: 10.2625 s, of which HuBERT makes 512 frames, 56 tokens."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Example:
    """One clip, ready to be stacked; `Batch` says what the fields mean.

    `plain_S` is the wave before any other clip was spliced into it.
    """

    image_3HW: Tensor
    wave_S: Tensor
    plain_S: Tensor
    audio_mask_S: Tensor
    positive_mask_S: Tensor
    image_mask_1HW: Tensor
    kind: int


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is changed at random in an example; the defaults are the paper's.

    Attributes
    ----------
    splice
        Put 1 to 4 s of another clip into every sound.
    window_share
        How often all but one random window of the sound is silenced.
    quad_share
        How often the picture becomes a quarter, beside three others.
    pictures
        Draw the frame, crop and recolour it; otherwise the middle frame's centre.
    """

    splice: bool = True
    window_share: float = 0.5
    quad_share: float = 0.1
    pictures: bool = True


class DrawOther(Protocol):
    """Draws another clip of the set and uses it; one that cannot be used, again another."""

    def __call__(self, use: Callable[[Clip], T]) -> T:
        """Return what `use` makes of a clip; it raises ValueError or OSError of what it cannot."""


NO_AUGMENTATION = Augmentation(splice=False, window_share=0, quad_share=0, pictures=False)


class ExampleMaker:
    """Make examples of one size.

    Parameters
    ----------
    image_size : side of the square picture, in pixels.
    changes : what is changed at random.
    """

    def __init__(self, image_size: int, changes: Augmentation) -> None:
        self._changes = changes
        self._fit = augment.Pictures(image_size, changes.pictures)

    def make(self, clip: Clip, draw_other: DrawOther, random: Generator) -> Example:
        """Make an example.

        Parameters
        ----------
        clip : what it is made from.
        draw_other : uses a random clip of the same set, for splices and quarters.
        random : all the randomness of this example, but for the choice of others.

        Raises
        ------
        ValueError or OSError
            When a file in `clip` cannot be decoded, or holds less than 0.41 s of sound.
        """
        image_3HW, image_mask_1HW = self._picture(clip, draw_other, random)
        sound_S = decode_sound(clip.audio, 0, WAVE_SAMPLES)
        if len(sound_S) < LEAST_SAMPLES:
            raise ValueError("there is less than 0.41 s of sound")
        spliced_S, positive_S = self._splice(sound_S, draw_other, random)
        mask_S = torch.ones_like(sound_S)
        if random.random() < self._changes.window_share:
            start, end = augment.draw_window(len(sound_S), random)
            mask_S[:start], mask_S[end:] = 0, 0
        return Example(
            image_3HW=image_3HW,
            wave_S=_pad(spliced_S * mask_S, 0),
            plain_S=_pad(sound_S * mask_S, 0),
            audio_mask_S=_pad(mask_S, 0),
            positive_mask_S=_pad(positive_S, 1),
            image_mask_1HW=image_mask_1HW,
            kind=KINDS[clip.kind],
        )

    def _picture(
        self, clip: Clip, draw_other: DrawOther, random: Generator
    ) -> tuple[Tensor, Tensor]:
        own_3HW = self._one_picture(clip, random)
        if random.random() >= self._changes.quad_share:
            return own_3HW, torch.ones_like(own_3HW[:1])
        others = [draw_other(lambda other: self._one_picture(other, random)) for _ in range(3)]
        return augment.quad(torch.stack([own_3HW, *others]), random)

    def _one_picture(self, clip: Clip, random: Generator) -> Tensor:
        count = len(clip.frames)
        index = int(random.integers(count)) if self._changes.pictures else count // 2
        return self._fit(decode_picture(clip.frames[index]), random)

    def _splice(
        self, sound_S: Tensor, draw_other: DrawOther, random: Generator
    ) -> tuple[Tensor, Tensor]:
        if not self._changes.splice:
            return sound_S, torch.ones_like(sound_S)

        def cut(other: Clip) -> tuple[Tensor, int]:
            samples = sound_samples(other.audio)
            begin, span, start = augment.draw_splice(len(sound_S), samples, random)
            return decode_sound(other.audio, begin, span) if span else sound_S[:0], start

        other_S, start = draw_other(cut)
        if not len(other_S):
            return sound_S, torch.ones_like(sound_S)
        return augment.splice(sound_S, other_S, start)


def decode_picture(file: bytes) -> Image.Image:
    """Return the picture of a JPEG file, in red, green and blue."""
    with Image.open(io.BytesIO(file), formats=("JPEG",)) as picture:
        return picture.convert("RGB")


def decode_sound(file: bytes, start: int, samples: int) -> Tensor:
    """Return up to so many samples, float32 in [-1, 1], of a mono FLAC file from one on."""
    with _open(file) as sound:
        if start:
            sound.seek(start)
        wave_S = sound.read(samples, dtype="float32")
    if wave_S.ndim != 1:
        raise ValueError("the sound has several channels")
    return torch.from_numpy(np.ascontiguousarray(wave_S))


def sound_samples(file: bytes) -> int:
    """Return how many samples a FLAC file holds."""
    with _open(file) as sound:
        return int(sound.frames)


def _open(file: bytes) -> soundfile.SoundFile:
    try:
        return soundfile.SoundFile(io.BytesIO(file))
    except soundfile.LibsndfileError as error:
        raise ValueError(f"the sound cannot be decoded ({error})") from None


def _pad(part_S: Tensor, value: float) -> Tensor:
    return torch.nn.functional.pad(part_S, (0, WAVE_SAMPLES - len(part_S)), value=value)
