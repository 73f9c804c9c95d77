"""What the network is: encoders, aligners, similarity, checkpoints."""

from denseav.models.checkpoints.checkpoint import load, save
from denseav.models.config import CheckpointError, ModelConfig
from denseav.models.denseav import DenseAV

__all__ = ["CheckpointError", "DenseAV", "ModelConfig", "load", "save"]
