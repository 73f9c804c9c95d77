"""What the network is: encoders, aligners, similarity, checkpoints.

What is named here is loaded when it is used: PyTorch takes seconds, and who needs a configuration
or a file's name alone does not wait for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from denseav.models.checkpoints.checkpoint import load, save
    from denseav.models.config import CheckpointError, ModelConfig
    from denseav.models.denseav import DenseAV

__all__ = ["CheckpointError", "DenseAV", "ModelConfig", "load", "save"]

_PLACES = {
    "CheckpointError": "denseav.models.config",
    "DenseAV": "denseav.models.denseav",
    "ModelConfig": "denseav.models.config",
    "load": "denseav.models.checkpoints.checkpoint",
    "save": "denseav.models.checkpoints.checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
