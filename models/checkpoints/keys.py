"""The keys a network needs, and one readable complaint about all that do not fit."""

from collections.abc import Mapping

import torch

from denseav.models import lora
from denseav.models.config import CheckpointError, ModelConfig
from denseav.models.denseav import DenseAV

_SHOWN = 20


def expected_shapes(config: ModelConfig) -> lora.Shapes:
    """Return the key and shape of every weight of the network that `config` describes."""
    with torch.device("meta"):
        model = DenseAV(config.without_lora())
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    if config.image.lora is not None:
        shapes = lora.adapted_shapes(shapes, lora.IMAGE_ENCODER, config.image.lora)
    if config.audio.lora is not None:
        shapes = lora.adapted_shapes(shapes, lora.AUDIO_ENCODER, config.audio.lora)
    return shapes


def check_keys(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], source: str
) -> None:
    """Compare the keys of a file with those its configuration needs.

    Raises
    ------
    CheckpointError
        When any is missing, unknown or misshapen; the message lists them all by kind, and
        after 20 of a kind says how many more there are.
    """
    complaints = {
        "missing": [key for key in expected if key not in found],
        "unknown": [key for key in found if key not in expected],
        "misshapen": [
            f"{key} is {_size(found[key])}, not {_size(shape)}"
            for key, shape in expected.items()
            if key in found and found[key] != shape
        ],
    }
    if any(complaints.values()):
        kinds = [_listed(kind, keys) for kind, keys in complaints.items() if keys]
        raise CheckpointError(
            f"{source}: the weights are not those of the model its configuration describes; "
            + "; ".join(kinds)
        )


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a scalar"


def _listed(kind: str, keys: list[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{len(keys)} {kind}: {', '.join(keys[:_SHOWN])}{more}"
