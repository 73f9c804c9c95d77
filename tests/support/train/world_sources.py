"""Sources for which the right figures are known: one that sees the truth, one that guesses."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from denseav.train.eval.world.evaluator import RESERVED
from denseav.train.eval.world.split import Case, Split
from denseav.train.world.clips import HEADS, KINDS, AudioEvent

SIZE = (96, 112)
SAMPLES = 31_760
TOKENS = 11


class Oracle:
    """Knows every clip of a split: a head is 1 exactly where its kind of sound belongs, else 0.

    Of what belongs to nothing in the picture it is sure: all things there are -1.
    """

    frame_size = SIZE
    window_samples = SAMPLES

    def __init__(
        self, split: Split, clips: int, heads: tuple[str, ...] = ("speech", "sound"), aside: int = 0
    ) -> None:
        self.heads = heads
        self._order = [{"a": "speech", "b": "sound", "c": "tune"}.get(head, head) for head in heads]
        self._cases: dict[bytes, Case] = {}
        self._heard: dict[bytes, tuple[AudioEvent, ...]] = {}
        numbers = [*range(clips), *range(RESERVED, RESERVED + aside)]
        for kind in KINDS:
            for case in (split.case(kind, number) for number in numbers):
                self._cases[case.picture_HW3.tobytes()] = case
                self._heard[case.clip.wave_S.tobytes()] = case.clip.events
        for event, wave_S in chain.from_iterable(map(split.one_of_each_class, HEADS)):
            self._heard[wave_S.tobytes()] = (event,)

    def encode_image(self, image_HW3: NDArray[np.uint8]) -> Case:
        return self._cases[image_HW3.tobytes()]

    def encode_audio(self, wave_S: NDArray[np.float32]) -> tuple[AudioEvent, ...]:
        return self._heard[wave_S.tobytes()]

    def volumes(self, sounds: Sequence[Any], pictures: Sequence[Any]) -> Tensor:
        return torch.stack([torch.stack([self._volume(s, p) for p in pictures]) for s in sounds])

    def _volume(self, heard: tuple[AudioEvent, ...], case: Case) -> Tensor:
        truth_KHW = np.zeros((len(self.heads), *SIZE), np.float32)
        for event in heard:
            head_HW = truth_KHW[self._order.index(event.head)]
            if event.name in case.clip.scene.names:
                head_HW += case.truth(event.name)
            else:
                head_HW -= case.masks_NHW.any(0)
        return torch.from_numpy(truth_KHW)[:, None].expand(-1, TOKENS, -1, -1)


class Guesser:
    """Says anything, and for the same picture and sound always the same."""

    heads = ("speech", "sound")
    frame_size = SIZE
    window_samples = SAMPLES

    def encode_image(self, image_HW3: NDArray[np.uint8]) -> int:
        return int(image_HW3.sum())

    def encode_audio(self, wave_S: NDArray[np.float32]) -> int:
        return int(np.abs(wave_S).sum() * 1000)

    def volumes(self, sounds: Sequence[Any], pictures: Sequence[Any]) -> Tensor:
        return torch.stack(
            [torch.stack([_noise(sound, picture) for picture in pictures]) for sound in sounds]
        )


def _noise(sound: int, picture: int) -> Tensor:
    random = np.random.default_rng([sound, picture])
    return torch.from_numpy(random.standard_normal((2, TOKENS, 12, 14), dtype=np.float32))
