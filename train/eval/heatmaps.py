"""Items enter, their heatmaps, similarities and true masks leave: all a metric needs.

V map variants: `total`, the maximum over heads at each place and token, then each head alone.
N items, A clips, V pictures, K heads, T tokens, H W pixels, h w the feature grid, S samples.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from denseav.models.audio_encoder import SAMPLE_RATE_HZ
from denseav.models.config import Aggregation
from denseav.models.similarity import aggregate
from denseav.train.errors import DataError
from denseav.train.eval.items import EvalSet, Item, listed
from denseav.train.eval.mixtures import Wave
from denseav.train.eval.model import BatchedModel, Features, VolumeModel, token_mask
from denseav.train.eval.pieces import Arrays, Pieces, Track
from denseav.train.eval.read import read_picture, read_truth
from denseav.train.metrics.localization import Mask
from denseav.train.metrics.segmentation import time_mean, word_tokens

TOTAL = "total"
TILE = 16
MISA = Aggregation(clips="misa")

LoadAudio = Callable[[Item], tuple[Wave, int]]
"""Gives what an item sounds like in a source's window, and how many samples are heard."""


@dataclass(frozen=True, kw_only=True)
class Maps:
    """Heatmaps float32 [V, N, h, w], and how many words had to be cut to their clip."""

    heat_VNhw: NDArray[np.float32]
    words_cut: int


class Truths:
    """True masks bool [H, W], kept as one bit for a pixel."""

    def __init__(self, size: tuple[int, int], masks: Iterable[Mask]) -> None:
        self._size = size
        self._packed = [np.packbits(mask_HW) for mask_HW in masks]

    def mask(self, index: int) -> Mask:
        """Return the true mask of one item, bool [H, W]."""
        height, width = self._size
        bits = np.unpackbits(self._packed[index], count=height * width)
        return bits.reshape(self._size).astype(np.bool_)

    def __call__(self, items: Sequence[int]) -> Tensor:
        """Return the true masks of some items, bool [n, H, W]."""
        return torch.from_numpy(np.stack([self.mask(index) for index in items]))

    def __len__(self) -> int:
        return len(self._packed)


def read_truths(data: EvalSet, size: tuple[int, int], track: Track) -> Truths:
    """Read and check the true masks of a set, before any model runs.

    Raises
    ------
    DataError
        When one cannot be read, or no picture shows what a category asks for.
    """
    seen: dict[str, bool] = {}

    def masks() -> Iterator[Mask]:
        for item in track(data.items, f"{data.name}: true masks"):
            mask_HW, whole_has_it = read_truth(item, size, stretch=data.stretch)
            seen[item.category] = seen.get(item.category, False) or whole_has_it
            yield mask_HW

    truths = Truths(size, masks())
    unseen = sorted(category for category, found in seen.items() if not found)
    if unseen:
        raise DataError(
            f"{data.name}: no picture shows what is asked for in the categories "
            f"{listed(unseen)}; correct their masks or remove their rows"
        )
    return truths


def pictures(model: BatchedModel, data: EvalSet, items: range) -> Tensor:
    """Encode the pictures of some items."""
    with ThreadPoolExecutor() as readers:
        images = list(readers.map(lambda at: _picture(model, data, data.items[at]), items))
    return _batched(model.encode_images, images, model.batch_size)


def sounds(model: BatchedModel, waves: Iterable[Wave]) -> Tensor:
    """Encode sounds of the model's window."""
    return _batched(model.encode_waves, list(waves), model.batch_size)


def read_sounds(data: EvalSet, items: range, load_audio: LoadAudio) -> list[tuple[Wave, int]]:
    """Return what some items sound like, and how many samples of it are heard."""
    with ThreadPoolExecutor() as readers:
        return list(readers.map(lambda at: load_audio(data.items[at]), items))


def _picture(model: VolumeModel, data: EvalSet, item: Item) -> NDArray[np.uint8]:
    return read_picture(item.image, model.frame_size, stretch=data.stretch)


def _batched(
    encode: Callable[[NDArray[Any]], Tensor], given: Sequence[NDArray[Any]], batch_size: int
) -> Tensor:
    starts = range(0, len(given), batch_size)
    return torch.cat([encode(np.stack(given[at : at + batch_size])) for at in starts])


def heat(
    model: VolumeModel, seen: Features, heard: Features, samples: int, item: Item
) -> tuple[NDArray[np.float32], bool]:
    """Return the heatmaps [V, h, w] of one picture with one sound, and whether a word was cut.

    Parameters
    ----------
    samples
        How many samples of the window are audible; tokens after them do not count, and are zero
        where a word's span has them.
    item
        Says when its word is heard, if only that is to count.
    """
    volume_KTHW = model.volumes([heard], [seen])[0, 0]
    tokens = volume_KTHW.shape[1]
    audible_T = token_mask(samples, model.window_samples, tokens)
    mask_T, cut = audible_T, False
    if item.word_s is not None:
        mask_T, cut = word_tokens(item.word_s, model.window_samples / SAMPLE_RATE_HZ, tokens)
    # A word's tokens after the audio's end count as zero: released volumes are masked first.
    volume_KTHW = volume_KTHW * audible_T.to(volume_KTHW.device)[:, None, None]
    variants_VTHW = torch.cat((volume_KTHW.amax(dim=0, keepdim=True), volume_KTHW))
    mask_VT = mask_T.to(volume_KTHW.device).expand(len(variants_VTHW), -1)
    return time_mean(variants_VTHW, mask_VT).cpu().numpy(), cut


def maps(
    model: BatchedModel, data: EvalSet, load_audio: LoadAudio, what: str, pieces: Pieces
) -> Maps | None:
    """Return the heatmaps of all items of a set; None while others compute their share."""

    def compute(items: range) -> Arrays:
        heard = read_sounds(data, items, load_audio)
        image, audio = pictures(model, data, items), sounds(model, [wave_S for wave_S, _ in heard])
        drawn = [
            heat(model, image[at], audio[at], samples=heard[at][1], item=data.items[item])
            for at, item in enumerate(items)
        ]
        return {
            "heat_NVhw": np.stack([heat_Vhw for heat_Vhw, _ in drawn]),
            "cut_N": np.array([cut for _, cut in drawn]),
        }

    found = pieces.of(what, len(data.items), compute)
    if found is None:
        return None
    return Maps(heat_VNhw=found["heat_NVhw"].swapaxes(0, 1), words_cut=int(found["cut_N"].sum()))


def similarities(
    model: BatchedModel, data: EvalSet, load_audio: LoadAudio, what: str, pieces: Pieces
) -> Tensor | None:
    """Return the similarity [A, V, K] of every clip with every picture; partners lie on A = V.

    Features of the whole set are held: 1.3 MB for an item of the full-size model.
    """

    def encode(items: range) -> Arrays:
        heard = read_sounds(data, items, load_audio)
        return {
            "image": pictures(model, data, items).numpy(),
            "audio": sounds(model, [wave_S for wave_S, _ in heard]).numpy(),
            "samples": np.array([samples for _, samples in heard]),
        }

    count = len(data.items)
    features = pieces.of(f"{what}: features", count, encode)
    if features is None:
        return None
    image, audio = torch.from_numpy(features["image"]), torch.from_numpy(features["audio"])

    def compare(items: range) -> Arrays:
        rows = slice(items.start, items.stop)
        samples = features["samples"][rows].tolist()
        tiles = [
            _tile(model, list(audio[rows]), list(image[at : at + TILE]), samples)
            for at in range(0, count, TILE)
        ]
        return {"similarity_AVK": torch.cat(tiles, dim=1).numpy()}

    found = pieces.of(f"{what}: all with all", count, compare)
    return None if found is None else torch.from_numpy(found["similarity_AVK"])


def _tile(
    model: VolumeModel, heard: Sequence[Features], seen: Sequence[Features], samples: Sequence[int]
) -> Tensor:
    volume_AVKTHW = model.volumes(heard, seen)
    tokens = volume_AVKTHW.shape[3]
    mask_AT = torch.stack([token_mask(s, model.window_samples, tokens) for s in samples])
    mask_AT = mask_AT.to(volume_AVKTHW.device)
    return aggregate(volume_AVKTHW, mask_AT, MISA, join_heads=False).cpu()
