"""The evaluation, in order: a source and its data sets enter, rows leave as they are found.

Each set is asked its own question with clean sound, and again with the other kind of audio mixed
in. Retrieval scores of speech and of sound together give the disentanglement.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from denseav.train.errors import DataError
from denseav.train.eval import tasks
from denseav.train.eval.heatmaps import (
    TOTAL,
    LoadAudio,
    Maps,
    Truths,
    maps,
    read_truths,
    similarities,
)
from denseav.train.eval.items import EvalSet, Item, listed
from denseav.train.eval.mixtures import (
    Wave,
    by_item,
    draw,
    from_scene,
    loudness,
    mix,
    place,
    read_pairs,
    write_pairs,
)
from denseav.train.eval.model import BatchedModel, VolumeModel
from denseav.train.eval.negative_audio import negative_maps
from denseav.train.eval.pieces import Pieces, Track
from denseav.train.eval.read import read_wave
from denseav.train.eval.report import Row

RETRIEVAL_ITEMS = 1000
SEED = 0

Partners = Mapping[str, tuple[Item, float]]


@dataclass(frozen=True, kw_only=True)
class Variants:
    """What is asked beyond the clean sets.

    Attributes
    ----------
    mixed : the folder of lists of pairs and gains, read or written; None for clean sound only.
    snrs_db : signal-to-noise ratios of mixtures; 0 dB is the headline.
    negative_audio : whether sets with boxes are also heard with silence, noise and wrong sounds.
    """

    mixed: Path | None = None
    snrs_db: Sequence[float] = (0.0,)
    negative_audio: bool = False


def subset(data: EvalSet, count: int = RETRIEVAL_ITEMS) -> EvalSet:
    """Return the items of a retrieval set that are evaluated: the released draw of 1,000."""
    if data.task != "retrieval" or len(data.items) <= count:
        return data
    chosen = np.random.RandomState(SEED).permutation(len(data.items))[:count]
    return replace(data, items=tuple(data.items[index] for index in chosen))


def audible(
    data: EvalSet, model: VolumeModel, variants: Variants, track: Track, *, allow_missing: bool
) -> EvalSet:
    """Listen whether distractors can be drawn for all items: nothing is as loud as silence.

    Returns
    -------
    EvalSet
        Without its silent items, if it is to be mixed and that is allowed.

    Raises
    ------
    DataError
        When a file cannot be read, items are silent and that is not allowed, or nothing is left.
    """
    if not _is_mixed(data, variants) or data.overlaid_by:
        return data
    heard = track(data.items, f"{data.name}: silent or not")
    items = tuple(item for item in heard if loudness(item, model.window_samples))
    silent = sorted({item.audio for item in data.items} - {item.audio for item in items})
    if silent and not allow_missing:
        raise DataError(
            f"{data.name}: {len(silent)} sounds are silent and cannot be mixed: {listed(silent)}; "
            "remove their items, or leave them out with --allow-missing"
        )
    if not items:
        raise DataError(f"{data.name} is silent, all of it; check its sounds")
    return replace(data, items=items, silent=tuple(silent))


def evaluate(
    model: BatchedModel, sets: Sequence[EvalSet], variants: Variants, pieces: Pieces
) -> Iterator[list[Row]]:
    """Ask every set its question.

    Parameters
    ----------
    model
        What makes the heatmaps.
    sets
        The data, files present.
    pieces
        Where its results are kept; of a share of them nothing is yielded.

    Yields
    ------
    list of Row
        The results of one set with one way of hearing it.

    Raises
    ------
    DataError
        When a file cannot be read, masks lack what is asked for, or a mixture has no distractors.
    """
    heads = (TOTAL, *model.heads)
    clean: dict[str, Tensor] = {}
    dark_VMhw: dict[str, NDArray[np.float32]] = {}
    truths = {
        data.name: read_truths(data, model.frame_size, pieces.track)
        for data in sets
        if data.task in ("segmentation", "boxes")
    }
    for data in sets:
        for audio, load_audio in _audio_variants(model, data, sets, variants):
            condition = tasks.Condition(data=data.name, audio=audio, heads=heads)
            what = f"{data.name}, {audio}"
            if data.task == "retrieval":
                found = similarities(model, data, load_audio, what, pieces)
                if found is None:
                    continue
                if audio == "clean":
                    clean.setdefault(data.kind, found)
                yield tasks.retrieval(condition, found)
                continue
            drawn = maps(model, data, load_audio, what, pieces)
            negative = data.task == "boxes" and variants.negative_audio
            silent = negative_maps(model, data, load_audio, pieces) if negative else None
            if drawn is None:
                continue
            if data.task == "off screen":
                dark_VMhw[data.name] = drawn.heat_VNhw
                continue
            yield _located(data, condition, drawn, truths[data.name], dark_VMhw)
            if silent is not None:
                yield tasks.negatives(condition, drawn, silent, truths[data.name])
    if len(clean) == len(model.heads) == 2:
        condition = tasks.Condition(data="speech and sound", audio="clean", heads=heads)
        own = (clean[kind].diagonal().T for kind in ("speech", "sound"))
        yield tasks.disentangled(condition, *own)


def _located(
    data: EvalSet,
    condition: tasks.Condition,
    drawn: Maps,
    truths: Truths,
    dark_VMhw: Mapping[str, NDArray[np.float32]],
) -> list[Row]:
    """Return the figures of places; heatmaps of sets whose sources are off screen are known."""
    if data.task == "segmentation":
        categories = [item.category for item in data.items]
        return tasks.segmentation(condition, drawn, categories, truths)
    rows = tasks.boxes(condition, drawn, truths, [item.scene for item in data.items])
    if data.dark in dark_VMhw:
        rows += tasks.off_screen(condition, drawn, dark_VMhw[data.dark], truths)
    return rows


def _audio_variants(
    model: VolumeModel, data: EvalSet, sets: Sequence[EvalSet], variants: Variants
) -> Iterator[tuple[str, LoadAudio]]:
    window_samples = model.window_samples
    if not data.overlaid_by:
        yield "clean", lambda item: place(read_wave(item), window_samples)
    partners = _partners(data, sets, variants, window_samples)
    for snr_db in variants.snrs_db if partners else ():
        yield f"mixed {snr_db:+g} dB", _mixed(partners, snr_db, window_samples)


def _mixed(partners: Partners, snr_db: float, window_samples: int) -> LoadAudio:
    def load_audio(item: Item) -> tuple[Wave, int]:
        other, gain_db = partners[item.key]
        waves = read_wave(item), read_wave(other)
        return mix(*waves, gain_db - snr_db, window_samples)

    return load_audio


def _partners(
    data: EvalSet, sets: Sequence[EvalSet], variants: Variants, window_samples: int
) -> Partners:
    if not _is_mixed(data, variants):
        return {}
    pool = _pool(data, sets)
    path = variants.mixed / f"{data.name.replace(' ', '-').lower()}.csv" if variants.mixed else None
    if path and path.is_file():
        return by_item(read_pairs(path, data.items, pool), pool)
    pair_up = from_scene if data.overlaid_by else draw
    pairs = pair_up(data.items, pool, window_samples)
    if path:
        write_pairs(path, pairs)
    return by_item(pairs, pool)


def _is_mixed(data: EvalSet, variants: Variants) -> bool:
    asked = variants.mixed is not None and data.task in ("segmentation", "retrieval")
    return asked or bool(data.overlaid_by)


def _pool(data: EvalSet, sets: Sequence[EvalSet]) -> Sequence[Item]:
    if data.overlaid_by:
        return next(other for other in sets if other.name == data.overlaid_by).items
    others = [other for other in sets if other.kind != data.kind and not other.overlaid_by]
    if not others:
        kind = "sound, such as --audioset" if data.kind == "speech" else "speech, such as --places"
        raise DataError(f"{data.name} has nothing to be mixed with; name a set of {kind}")
    # Whole clips of the training kind before prompts and boxes.
    return min(others, key=lambda other: other.task != "retrieval").items
