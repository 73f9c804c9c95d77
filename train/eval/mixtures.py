"""Two sounds at once: which distractor each item gets, how loud it is, and their sum.

The papers add the two waveforms and say no more (Seeing Speech and Sound, 2025, section 4.3.4).
Here the draw and the gains are written down, so that a result can be had again: one CSV file for
each set, `item,distractor,gain_db,seed`. The gain, in decibels on the distractor's waveform,
makes both equally loud (root mean square); for another signal-to-noise ratio it is lowered by it.

S samples at 16 kHz.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from denseav.models.checkpoints.atomic_files import replacing
from denseav.train.errors import DataError
from denseav.train.eval.items import Item, finite, read_rows
from denseav.train.eval.read import read_wave

Wave = NDArray[np.float32]
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One item and what is heard with it, by their keys.

    `gain_db` makes the distractor as loud as the item; `seed` is the draw's, -1 if none was made.
    """

    item: str
    distractor: str
    gain_db: float
    seed: int


def place(wave_S: Wave, window_samples: int) -> tuple[Wave, int]:
    """Return a wave's start in a window, padded with zeros, and how many samples are heard."""
    heard = min(len(wave_S), window_samples)
    window_S = np.zeros(window_samples, np.float32)
    window_S[:heard] = wave_S[:heard]
    return window_S, heard


def mix(wave_S: Wave, other_S: Wave, gain_db: float, window_samples: int) -> tuple[Wave, int]:
    """Return the sum of both in a window, and how many samples are heard: those of the longer."""
    window_S, heard = place(wave_S, window_samples)
    louder_S, other_heard = place(other_S * np.float32(10 ** (gain_db / 20)), window_samples)
    return window_S + louder_S, max(heard, other_heard)


def draw(
    items: Iterable[Item], pool: Sequence[Item], window_samples: int, seed: int = SEED
) -> list[Pair]:
    """Give each item a distractor from the pool, drawn evenly; where it is silent, another.

    Raises
    ------
    DataError
        When an item is silent, or all of the pool is.
    """
    random = np.random.default_rng(seed)
    left = list(pool)
    return [
        _pair(item, _drawn_audible(left, random, window_samples), window_samples, seed)
        for item in items
    ]


def from_scene(items: Iterable[Item], pool: Sequence[Item], window_samples: int) -> list[Pair]:
    """Give each item the first other object of its scene that is in the pool.

    Raises
    ------
    DataError
        When a scene has no second object.
    """
    pairs = []
    for item in items:
        found = (o for o in pool if o.scene == item.scene and o.category != item.category)
        other = next(found, None)
        if other is None:
            raise DataError(
                f"{item.key}: its scene {item.scene} has one object only; remove it from the list"
            )
        pairs.append(_pair(item, other, window_samples, seed=-1))
    return pairs


def write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    """Write the list, whole or not at all.

    Raises
    ------
    DataError
        When it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            replacing(path) as partial,
            partial.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(field.name for field in fields(Pair))
            writer.writerows(map(astuple, pairs))
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error}); name another folder") from None


def read_pairs(path: Path, items: Iterable[Item], pool: Iterable[Item]) -> list[Pair]:
    """Read a list made for these items and this pool.

    Raises
    ------
    DataError
        When it cannot be read, or does not name every item and only known distractors.
    """
    rows = read_rows(path, (field.name for field in fields(Pair)))
    try:
        pairs = [
            Pair(
                item=row["item"],
                distractor=row["distractor"],
                gain_db=finite(row["gain_db"]),
                seed=int(row["seed"]),
            )
            for row in rows
        ]
    except ValueError as error:
        raise DataError(f"{path}: {error}; write numbers, or remove the file") from None
    strange = {item.key for item in items} - {pair.item for pair in pairs}
    strange |= {pair.distractor for pair in pairs} - {item.key for item in pool}
    if strange:
        raise DataError(
            f"{path} was made for other data: it does not fit {sorted(strange)[0]!r}; "
            "use that data, or remove the file to draw anew"
        )
    return pairs


def loudness(item: Item, window_samples: int) -> float:
    """Return the root mean square of what is heard of an item in a window."""
    wave_S = read_wave(item)[:window_samples]
    return float(np.sqrt(np.mean(np.square(wave_S, dtype=np.float64))))


def by_item(pairs: Iterable[Pair], pool: Iterable[Item]) -> Mapping[str, tuple[Item, float]]:
    """Return each item's distractor and gain in decibels, by the item's key."""
    known = {item.key: item for item in pool}
    return {pair.item: (known[pair.distractor], pair.gain_db) for pair in pairs}


def _drawn_audible(left: list[Item], random: np.random.Generator, window_samples: int) -> Item:
    """Draw an item; those that turn out to be silent are left no more."""
    while left:
        index = int(random.integers(len(left)))
        if loudness(left[index], window_samples):
            return left[index]
        del left[index]
    raise DataError("all that could be mixed in is silent; name another set to mix with")


def _pair(item: Item, other: Item, window_samples: int, seed: int) -> Pair:
    """Make both equally loud.

    Raises
    ------
    DataError
        When one is silent, so that no gain can do it.
    """
    levels = [loudness(one, window_samples) for one in (item, other)]
    for one, level in zip((item, other), levels, strict=True):
        if not level:
            raise DataError(f"{one.audio} is silent and cannot be mixed; remove its item")
    gain_db = round(20 * float(np.log10(levels[0] / levels[1])), 4)
    return Pair(item=item.key, distractor=other.key, gain_db=gain_db, seed=seed)
