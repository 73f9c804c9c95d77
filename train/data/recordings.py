"""Batches of sound alone: a folder of recordings enters, waves without pictures leave.

Each wave is one stretch of a long recording, or several recordings after one another. Which batch
comes next depends on the seed and on how many came before, as in the world's loader.

B clips, S samples at 16 kHz.

Errors
------
DataError            the folder holds no recording, or one cannot be read any more
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from numpy.random import Generator

from denseav.export.terminal_text import safe_text
from denseav.models.audio_encoder import SAMPLE_RATE_HZ
from denseav.train.data.batch import UNKNOWN, Batch
from denseav.train.data.decode import Samples
from denseav.train.data.preparation.source_lists import media_files
from denseav.train.errors import DataError, SettingsError

log = logging.getLogger(__name__)

NAMED = 5
"""So many of the files that are left out are named."""


@dataclass(frozen=True, kw_only=True)
class SoundSettings:
    """Unlabelled sound to learn from.

    Attributes
    ----------
    folder
        Recordings of any rate and of any format that libsndfile reads, such as WAV, FLAC, Ogg and
        MP3, in it or in folders of it. What it does not read is left out, and said.
    batch_size
        Clips of one batch of one process.
    samples
        Length of a clip, at 16 kHz.
    """

    folder: str
    batch_size: int = 8
    samples: int = 164_200

    def __post_init__(self) -> None:
        if min(self.batch_size, self.samples) < 1:
            raise SettingsError("sound: batch_size and samples must be at least 1")


@dataclass(frozen=True)
class Recording:
    """A file of so many samples in each channel, at its own rate."""

    path: Path
    samples: int
    rate_hz: int


class SoundLoader:
    """Batches whose pictures have no pixels."""

    def __init__(self, settings: SoundSettings, *, rank: int, seed: int) -> None:
        self.settings = settings
        self._rank, self._seed = rank, seed
        self._recordings = find_recordings(Path(settings.folder))
        self._given = 0

    def endless(self) -> Iterator[Batch]:
        """Yield batches without end."""
        while True:
            random = np.random.default_rng([self._seed, self._rank, self._given])
            self._given += 1
            yield self._batch(random)

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader is."""
        return {"given": self._given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue behind the last batch that was given."""
        self._given = state["given"]

    def _batch(self, random: Generator) -> Batch:
        clips = [
            draw_clip(random, self._recordings, self.settings.samples)
            for _ in range(self.settings.batch_size)
        ]
        wave_BS = torch.from_numpy(np.stack(clips))
        return Batch(
            image_B3HW=torch.zeros(len(clips), 3, 0, 0),
            wave_BS=wave_BS,
            audio_mask_BS=torch.ones_like(wave_BS),
            positive_mask_BS=torch.ones_like(wave_BS),
            image_mask_B1HW=torch.zeros(len(clips), 1, 0, 0),
            kind_B=torch.full((len(clips),), UNKNOWN),
        )


def find_recordings(folder: Path) -> list[Recording]:
    """List what a folder and its folders hold, in the order of their names.

    Raises
    ------
    DataError
        When there is nothing that can be read.
    """
    found, left_out = [], []
    tried, alone = media_files(folder)
    for name in tried:
        path = folder / name
        try:
            info = soundfile.info(path)
        except (OSError, soundfile.LibsndfileError) as error:
            left_out.append(f"{name} ({error})")
            continue
        if info.frames > 0:
            found.append(Recording(path, info.frames, info.samplerate))
        else:
            left_out.append(f"{name} (it holds no samples)")
    if not found:
        reason = f"; {safe_text(left_out[0])} and others cannot be read" if left_out else ""
        raise DataError(
            f"{folder} holds no sound{reason}; name a folder of recordings with --sound.folder"
        )
    if alone:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(alone.items()))
        log.warning("%s: files left alone: %s", folder, safe_text(kinds))
    if left_out:
        log.warning(
            "%s: left out are %d files that libsndfile does not read, convert them to FLAC: %s",
            folder,
            len(left_out),
            safe_text(", ".join(left_out[:NAMED]) + (", …" if len(left_out) > NAMED else "")),
        )
    return found


def draw_clip(random: Generator, recordings: Sequence[Recording], samples: int) -> Samples:
    """Return `samples` of sound at 16 kHz, from one recording or from as many as it takes."""
    parts: list[Samples] = []
    missing = samples
    while missing > 0:
        recording = recordings[int(random.integers(len(recordings)))]
        part_S = _stretch(random, recording, missing)
        parts.append(part_S)
        missing -= len(part_S)
    return np.concatenate(parts)


def _stretch(random: Generator, recording: Recording, samples: int) -> Samples:
    """Return at most `samples` of a recording, its channels' mean, from anywhere in it."""
    wanted = min(recording.samples, -(-samples * recording.rate_hz // SAMPLE_RATE_HZ))
    first = int(random.integers(recording.samples - wanted + 1))
    try:
        wave_SC, _ = soundfile.read(recording.path, wanted, first, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise _unreadable(recording.path, error) from None
    wave_S = soxr.resample(wave_SC.mean(axis=1), recording.rate_hz, SAMPLE_RATE_HZ)[:samples]
    if not (len(wave_S) and np.isfinite(wave_S).all()):
        raise _unreadable(
            recording.path, ValueError("it holds no samples, or none that are numbers")
        )
    return np.asarray(wave_S, np.float32)


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} cannot be read ({error}); remove it from the folder")
