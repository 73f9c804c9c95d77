"""Negative audio for a set: silence, noise, and the sound of something that is not in the picture.

V map variants, M heatmaps draw by draw, D draws, N items, h w the feature grid, S samples.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from denseav.train.errors import DataError
from denseav.train.eval.heatmaps import LoadAudio, heat, pictures, sounds
from denseav.train.eval.items import EvalSet, Item
from denseav.train.eval.mixtures import Wave, place
from denseav.train.eval.model import BatchedModel
from denseav.train.eval.pieces import Arrays, Pieces

KINDS = ("silence", "noise", "off screen")
SEEDS = (1234, 2345, 3456, 4567, 5678, 6789, 7890, 8901, 9012, 9999)


def negative_maps(
    model: BatchedModel, data: EvalSet, load_audio: LoadAudio, pieces: Pieces
) -> dict[str, NDArray[np.float32]] | None:
    """Return heatmaps [V, M, h, w] of each kind of negative audio; None while others compute.

    Silence is the same in every draw and heard once; noise and the sound off screen are drawn
    for each of ten seeds, so that M is the number of items, or ten times that. The threshold
    over all of these maps is therefore one of noise and off-screen sounds, hardly of silence.

    Raises
    ------
    DataError
        When all items are of one category, so that nothing is off screen.
    """
    if len({item.category for item in data.items}) < 2:
        raise DataError(
            f"{data.name}: negative audio needs items of at least two categories; "
            "add some, or leave --negative-audio out"
        )
    others_DN = [_others(data.items, seed) for seed in SEEDS]

    def compute(items: range) -> Arrays:
        image = pictures(model, data, items)
        found: dict[str, list[NDArray[np.float32]]] = {kind: [] for kind in KINDS}
        for at, number in enumerate(items):
            samples = load_audio(data.items[number])[1]
            waves = {
                "silence": [(np.zeros(model.window_samples, np.float32), samples)],
                "noise": [(_noise(model, samples, seed, number), samples) for seed in SEEDS],
                "off screen": [load_audio(others_N[number]) for others_N in others_DN],
            }
            for kind, heard in waves.items():
                audio = sounds(model, [wave_S for wave_S, _ in heard])
                drawn = [
                    heat(model, image[at], one, samples=count, item=data.items[number])[0]
                    for one, (_, count) in zip(audio, heard, strict=True)
                ]
                found[kind].append(np.stack(drawn))
        return {kind: np.stack(heats) for kind, heats in found.items()}

    found_NDVhw = pieces.of(f"{data.name}: negative audio", len(data.items), compute)
    if found_NDVhw is None:
        return None
    return {kind: _draw_by_draw(found_NDVhw[kind]) for kind in KINDS}


def _draw_by_draw(heat_NDVhw: NDArray[np.float32]) -> NDArray[np.float32]:
    heat_VDNhw = np.ascontiguousarray(heat_NDVhw.transpose(2, 1, 0, 3, 4))
    return heat_VDNhw.reshape(len(heat_VDNhw), -1, *heat_VDNhw.shape[3:])


def _noise(model: BatchedModel, samples: int, seed: int, number: int) -> Wave:
    random = np.random.default_rng([seed, number])
    return place(random.standard_normal(samples, dtype=np.float32), model.window_samples)[0]


def _others(items: Sequence[Item], seed: int) -> list[Item]:
    """Draw an item of another category for each."""
    random = np.random.default_rng(seed)
    return [_another(item, items, random) for item in items]


def _another(item: Item, items: Sequence[Item], random: np.random.Generator) -> Item:
    while (other := items[int(random.integers(len(items)))]).category == item.category:
        pass
    return other
