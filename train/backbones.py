"""The encoders' first weights: a hub id or a folder enters, a network that has them leaves.

DINO and HuBERT are read by `transformers`; what differs from our encoders in kind is refused,
in size too. Heads that others put on top, such as the speech recogniser's, are left behind.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import HubertModel, PreTrainedModel, ViTModel

from denseav.models import CheckpointError, DenseAV, ModelConfig
from denseav.models.lora import BASE
from denseav.train.settings import Backbones


def new_network(config: ModelConfig, backbones: Backbones, seed: int) -> DenseAV:
    """Return a network whose encoders have pretrained weights and whose rest is random.

    Raises
    ------
    CheckpointError
        When a backbone cannot be had, or is not the one the configuration describes.
    """
    torch.manual_seed(seed)
    model = DenseAV(config)
    if backbones.image:
        with _opening(backbones.image):
            vit = ViTModel.from_pretrained(backbones.image, add_pooling_layer=False)
        _adopt(model.image_encoder.vit, vit, backbones.image)
    if backbones.audio:
        with _opening(backbones.audio):
            hubert = HubertModel.from_pretrained(backbones.audio)
        _adopt(model.audio_encoder.hubert, hubert, backbones.audio)
    return model


@contextmanager
def _opening(source: str) -> Iterator[None]:
    """Say in one line why a backbone cannot be opened, and nothing of heads that are not used."""
    reports = logging.getLogger("transformers")
    level = reports.level
    reports.setLevel(logging.ERROR)
    try:
        yield
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(
            f"{source} cannot be loaded as a backbone ({reason}); give a hub id or a folder with "
            "--backbones.image and --backbones.audio"
        ) from None
    finally:
        reports.setLevel(level)


def _adopt(encoder: nn.Module, pretrained: PreTrainedModel, source: str) -> None:
    names = {key.replace(BASE, ""): key for key in encoder.state_dict() if "lora_" not in key}
    weights = {names.get(key, key): value for key, value in pretrained.state_dict().items()}
    try:
        found = encoder.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise CheckpointError(_other(source, str(error).strip().splitlines()[1])) from None
    lost = [key for key in found.missing_keys if "lora_" not in key]
    if lost or found.unexpected_keys:
        raise CheckpointError(_other(source, ", ".join([*lost, *found.unexpected_keys][:5])))


def _other(source: str, what: str) -> str:
    return (
        f"{source} is another architecture than the network's ({what.strip()}); "
        "name a backbone of its size, or set network.image and network.audio to it"
    )
