"""Negative audio for a set: silence, noise, and the sound of something that is not in the picture.

V map variants, M heatmaps draw by draw, h w the feature grid, S samples.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from denseav.train.errors import DataError
from denseav.train.eval.heatmaps import LoadAudio, Track, heat, picture
from denseav.train.eval.items import EvalSet, Item
from denseav.train.eval.mixtures import Wave, place
from denseav.train.eval.model import EvalModel

SEEDS = (1234, 2345, 3456, 4567, 5678, 6789, 7890, 8901, 9012, 9999)


def negative_maps(
    model: EvalModel, data: EvalSet, load_audio: LoadAudio, track: Track
) -> dict[str, NDArray[np.float32]]:
    """Return heatmaps [V, M, h, w] of each kind of negative audio.

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
    seen = [picture(model, data, item) for item in data.items]
    kinds = {"silence": (0,), "noise": SEEDS, "off screen": SEEDS}
    found: dict[str, NDArray[np.float32]] = {}
    for kind, seeds in kinds.items():
        heats = []
        for seed in track(seeds, f"{data.name}: {kind}"):
            for index, (wave_S, samples) in enumerate(
                _waves(kind=kind, model=model, data=data, load_audio=load_audio, seed=seed)
            ):
                heard = model.encode_audio(wave_S)
                item = data.items[index]
                heats.append(heat(model, seen[index], heard, samples=samples, item=item)[0])
        found[kind] = np.stack(heats, axis=1)
    return found


def _waves(
    kind: str, model: EvalModel, data: EvalSet, load_audio: LoadAudio, seed: int
) -> Iterator[tuple[Wave, int]]:
    random = np.random.default_rng(seed)
    for item in data.items:
        if kind == "off screen":
            yield load_audio(_another(item, data.items, random))
            continue
        samples = load_audio(item)[1]
        noise_S = random.standard_normal(samples, dtype=np.float32)
        yield place(noise_S if kind == "noise" else 0 * noise_S, model.window_samples)


def _another(item: Item, items: Sequence[Item], random: np.random.Generator) -> Item:
    while (other := items[int(random.integers(len(items)))]).category == item.category:
        pass
    return other
