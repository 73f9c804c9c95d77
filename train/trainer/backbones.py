"""The first weights: hub ids or folders enter, a network that has them leaves.

DINO and HuBERT are read by `transformers`; what differs from our encoders in kind is refused,
in size too. Heads that others put on top, such as the speech recogniser's, are left behind.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import HubertModel, ViTModel

from denseav.models import CheckpointError, DenseAV, ModelConfig, load
from denseav.models.lora import BASE
from denseav.train.trainer.settings import Backbones


def new_network(config: ModelConfig, backbones: Backbones, seed: int, initial: str = "") -> DenseAV:
    """Return a network whose encoders have pretrained weights and whose rest is random.

    Parameters
    ----------
    config
        The network.
    backbones
        What its encoders begin as.
    seed
        Of what is random.
    initial
        A trained network that all weights are from instead; LoRA that it lacks is added, LoRA
        that the configuration lacks is merged.

    Raises
    ------
    CheckpointError
        When what it begins with cannot be had, or is not what the configuration describes.
    """
    torch.manual_seed(seed)
    model = DenseAV(config)
    if initial:
        has_lora = config.image.lora is not None or config.audio.lora is not None
        _adopt(model, load(initial, lora="separate" if has_lora else "merged"), initial)
        return model
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


def _adopt(encoder: nn.Module, pretrained: nn.Module, source: str) -> None:
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
        "name one of its size, or set network to it"
    )
