"""Weights & Biases beside TensorBoard: figures and pictures of a run enter, its records leave.

One run of theirs for each of ours, under an identity that stays in the run's folder, so that one
that goes on is one curve. What their service is asked, and when it cannot be reached, is their
library's matter; training does not wait for it.

Errors
------
SettingsError        the library is missing, or takes no run for this user
DiskError            the identity cannot be written
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from denseav.train.distributed.rank0_files import replacing
from denseav.train.errors import SettingsError

IDENTITY = "wandb_id.txt"


@dataclass(frozen=True, kw_only=True)
class WandbSettings:
    """What Weights & Biases is told beside the figures.

    Attributes
    ----------
    project
        Where the run is listed.
    entity
        Whose project it is, a user or a team; "" is the one who is logged in.
    mode
        offline keeps everything in the run's folder, for `wandb sync`.
    """

    project: str = "denseav"
    entity: str = ""
    mode: Literal["online", "offline"] = "online"

    def __post_init__(self) -> None:
        if find_spec("wandb") is None:
            raise SettingsError("wandb is not installed: pip install 'denseav[wandb]'")


class WandbWriter:
    """Their run; whoever opens it closes it.

    Parameters
    ----------
    folder : our run's, where theirs keeps its files too.
    settings : what they are told.
    config : the settings of our run.
    """

    def __init__(self, folder: Path, settings: WandbSettings, config: Mapping[str, Any]) -> None:
        self._wandb = import_module("wandb")
        try:
            self._run = self._wandb.init(
                project=settings.project,
                entity=settings.entity or None,
                mode=settings.mode,
                dir=folder,
                id=_identity(folder),
                name=folder.name,
                resume="allow",
                config=dict(config),
                settings=self._wandb.Settings(console="off", silent=True),
            )
        except self._wandb.Error as error:
            raise SettingsError(
                f"Weights & Biases takes no run ({' '.join(str(error).split())}); log in by "
                "`wandb login`, or set --wandb.mode offline"
            ) from None
        # Their own count only goes forward, and a run that goes on does some steps again.
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, figures: Mapping[str, float]) -> None:
        """Record figures of a step by their names."""
        self._run.log({"step": step, **figures})

    def images(self, step: int, name: str, picture_B3HW: Tensor) -> None:
        """Record pictures of a step, 0 to 1."""
        pixels_BHW3 = (255 * picture_B3HW).round().byte().permute(0, 2, 3, 1).numpy()
        pictures = [self._wandb.Image(pixels_HW3) for pixels_HW3 in pixels_BHW3]
        self._run.log({"step": step, name: pictures})

    def close(self) -> None:
        """Write what is left."""
        self._run.finish()


def _identity(folder: Path) -> str:
    path = folder / IDENTITY
    if not path.exists():
        with replacing(path) as partial:
            partial.write_text(secrets.token_hex(4))
    return path.read_text().strip()
