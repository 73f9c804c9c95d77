"""What is evaluated, by its name: a bundle in the session that runs live, or a checkpoint.

A bundle's slices are stacked token by token into volumes. This is the one place where training
knows of exported models: what people run is what is measured.

A clips, V pictures, K heads, T tokens, H W the feature grid, S samples at 16 kHz.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from denseav.export.runtime.bundle import (
    MANIFEST,
    TOKEN_HOP_SAMPLES,
    TOKEN_SPAN_SAMPLES,
    Bundle,
    BundleError,
    Manifest,
    demo_folder,
    file_sha256,
    open_bundle,
    window_samples,
)
from denseav.export.runtime.devices import DEVICES, check_device_name
from denseav.export.runtime.open_session import open_session
from denseav.export.runtime.session import Features, Session
from denseav.models import CheckpointError, load
from denseav.models.checkpoints.checkpoint import WEIGHTS
from denseav.train.errors import DataError
from denseav.train.eval.model import EvalModel, TorchModel

DEMO = "demo"
TOKENS = 11
"""How many tokens a checkpoint hears at once: as many as a bundle if nobody says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """From what similarity on each head shows, [K], and what is too quiet to be looked at."""

    thresholds: tuple[float, ...]
    energy_floor_dbfs: float

    def loud(self, wave_S: NDArray[np.float32], tokens: int) -> Tensor:
        """Return which tokens are loud enough to be shown, bool [T]."""
        starts = range(0, tokens * TOKEN_HOP_SAMPLES, TOKEN_HOP_SAMPLES)
        power_T = [
            np.square(wave_S[start : start + TOKEN_SPAN_SAMPLES], dtype=np.float64).mean()
            for start in starts
        ]
        return torch.from_numpy(np.array(power_T) > 10 ** (self.energy_floor_dbfs / 10))


@dataclass(frozen=True, kw_only=True)
class OpenedModel:
    """What is evaluated; `identity` is its name for machines, JSON."""

    model: EvalModel
    name: str
    trained: bool
    identity: dict[str, Any]
    calibration: Calibration | None = None


class BundleModel:
    """A bundle that is open."""

    def __init__(self, session: Session, manifest: Manifest) -> None:
        self.heads = tuple(head.name for head in manifest.heads)
        self.frame_size = (manifest.image.height, manifest.image.width)
        self.window_samples = manifest.audio.window_samples
        self._session = session
        self._tokens = manifest.audio.tokens

    def encode_image(self, image_HW3: NDArray[np.uint8]) -> Features:
        """Encode an RGB picture of the bundle's size."""
        return self._session.encode_image(image_HW3)

    def encode_audio(self, wave_S: NDArray[np.float32]) -> Features:
        """Encode a window of sound."""
        return self._session.encode_audio(wave_S)

    def volumes(self, sounds: Sequence[Features], pictures: Sequence[Features]) -> Tensor:
        """Return the volumes [A, V, K, T, H, W] of every sound with every picture, float32."""
        slices = [[self._slices(seen, heard) for seen in pictures] for heard in sounds]
        return torch.from_numpy(np.stack([np.stack(row) for row in slices]))

    def _slices(self, seen: Features, heard: Features) -> NDArray[np.float32]:
        return np.stack(
            [self._session.heatmap(seen, heard, token) for token in range(self._tokens)], axis=1
        )


def open_model(model: str, device: str) -> OpenedModel:
    """Open what is to be evaluated.

    Parameters
    ----------
    model : `demo`, the bundle that is part of the package; a bundle's folder; or whatever
        `denseav.models.load` takes, such as the folder `model` of a run of training.
    device : where it computes.

    Raises
    ------
    CheckpointError
        When there is no such model, or it cannot be used.
    DataError
        When the device cannot be used.
    """
    folder = demo_folder() if model == DEMO else Path(model)
    try:
        if (folder / MANIFEST).is_file():
            return _bundle(open_bundle(folder), device)
        return _checkpoint(model, device)
    except BundleError as error:
        raise CheckpointError(str(error)) from None


def _bundle(bundle: Bundle, device: str) -> OpenedModel:
    try:
        check_device_name(device)
    except ValueError:
        raise DataError(f"a bundle runs on {DEVICES}, not on {device!r}") from None
    manifest, session = bundle.manifest, open_session(bundle, device)
    return OpenedModel(
        model=BundleModel(session, manifest),
        name=manifest.model,
        trained=manifest.trained,
        identity={
            "form": "bundle",
            "sha256": bundle.sha256,
            "precision": manifest.precision,
            "backend": session.backend,
        },
        calibration=Calibration(
            thresholds=tuple(head.threshold for head in manifest.heads),
            energy_floor_dbfs=manifest.audio.energy_floor_dbfs,
        ),
    )


def _checkpoint(source: str, device: str) -> OpenedModel:
    model = load(source)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model = model.to(device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).partition("\n")[0]
        raise DataError(f"the device {device!r} cannot be used ({first}); try cpu") from None
    config, weights = model.config, Path(source) / WEIGHTS
    return OpenedModel(
        model=TorchModel(model, window_samples(TOKENS), config.frame_size),
        name=config.name,
        trained=config.trained,
        identity={
            "form": "checkpoint",
            "sha256": file_sha256(weights) if weights.is_file() else None,
            "precision": "fp32",
            "backend": f"torch-{device}",
        },
    )
