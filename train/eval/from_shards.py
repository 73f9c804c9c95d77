"""Shards made for training, as evaluation data: clips enter, retrieval sets leave.

A draw of the clips is unpacked into a folder, so that all data is read from files in one way.
"""

from pathlib import Path

import numpy as np

from denseav.train.data.shards import DamagedClip, Shards
from denseav.train.errors import DataError
from denseav.train.eval.items import EvalSet, Item, Kind

SEED = 0


def shards(folder: str, into: Path, count: int) -> list[EvalSet]:
    """Unpack a draw of clips, each with its middle frame; one set for each kind of audio.

    Parameters
    ----------
    folder
        Written by `denseav-data prepare`, or the address of a copy.
    into
        An existing folder for the pictures and sounds, some 0.3 MB a clip.
    count
        How many clips are drawn, always the same ones.

    Raises
    ------
    DataError
        When the folder is no set of shards, a shard is damaged, or no clip says its kind.
    """
    data = Shards(folder)
    kinds: dict[Kind, list[Item]] = {"speech": [], "sound": []}
    for number in np.random.RandomState(SEED).permutation(data.clips)[:count]:
        try:
            clip = data.clip(int(number))
        except DamagedClip as error:
            raise DataError(
                f"{folder}: the shard {error} is damaged; copy it again, or prepare anew"
            ) from None
        image, audio = into / f"{number}.jpg", into / f"{number}.flac"
        image.write_bytes(clip.frames[len(clip.frames) // 2])
        audio.write_bytes(clip.audio)
        for kind, items in kinds.items():
            if clip.kind == kind:
                items.append(Item(key=clip.key, image=image, audio=audio))
    if not any(kinds.values()):
        raise DataError(
            f"{folder} does not say whether its clips are speech or sound; prepare it with a kind"
        )
    name = Path(folder).resolve().name
    return [
        EvalSet(name=f"{name} {kind}", kind=kind, task="retrieval", items=tuple(items))
        for kind, items in kinds.items()
        if items
    ]
