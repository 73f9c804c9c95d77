"""The authors' checkpoints in our form: their hyper-parameters and state dict to ours.

A `ModelConfig` and weights under our names come out. Everything is read from the file's own
hyper-parameters; what they cannot say (LoRA's alpha and dropout, HuBERT's size) is fixed in
the released code.
"""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from denseav.models.checkpoints.keys import check_keys, expected_shapes
from denseav.models.checkpoints.released_keys import canonical, from_released, to_released
from denseav.models.config import (
    Aggregation,
    AudioAlignerKind,
    AudioConfig,
    CheckpointError,
    ImageConfig,
    LoraConfig,
    ModelConfig,
)

logger = logging.getLogger(__name__)

REQUIRED = (
    "code_dim",
    "image_model_type",
    "image_model_token_type",
    "image_aligner_type",
    "image_pool_width",
    "audio_model_type",
    "audio_aligner_type",
    "audio_lora",
    "image_lora",
    "learn_audio_cls",
    "sim_agg_type",
    "sim_agg_heads",
    "loss_type",
)
"""Hyper-parameters that say what the network is. Others came and went between releases."""

_ALIGNERS: Mapping[str, AudioAlignerKind] = {
    "audio_sa_3_3_pool_2": "pool",
    "audio_sa_3_3_pool": "project_pool",
    "audio_sa": "project",
}
_ONLY = {
    "image_model_type": ("dino8",),
    "image_model_token_type": ("token",),
    "image_aligner_type": ("image_linear",),
    "audio_model_type": ("hubert",),
    "audio_aligner_type": tuple(_ALIGNERS),
}
_COUNTS = (
    "code_dim",
    "sim_agg_heads",
    "image_pool_width",
    "audio_pool_width",
    "image_lora_rank",
    "audio_lora_rank",
)
_COUNT_MAX = 2**12
_FLAGS = (
    "audio_lora",
    "image_lora",
    "learn_audio_cls",
    "mask_silence",
    "nonneg_sim",
    "norm_vectors",
    "sim_use_cls",
)
_WORDS = ("sim_agg_type", "head_agg", "loss_type")
_CLIPS = ("misa", "mima", "sisa", "paired")
_POOL = "sim_agg.pool."  # SimPool's own weights: it only ever scored whole pairs
_SPEECH_WORDS = ("speech", "language", "places")
_SOUND_WORDS = ("sound", "audioset", "asf")


def is_released(record: object) -> bool:
    """Tell whether a `config.json` is the released one: flat constructor arguments."""
    return isinstance(record, dict) and {"code_dim", "audio_aligner_type"} <= record.keys()


def adopt(
    hyperparameters: object, weights: Mapping[str, Tensor], *, source: str, audio_layers: int = 24
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Make a released model ours.

    Parameters
    ----------
    hyperparameters
        The released constructor arguments; unknown ones are ignored, and the ones that only
        train may be missing.
    weights
        The released weights, in any of the spellings that library versions gave the keys.
    source
        Where they are from: for messages, and for the name of a single head.
    audio_layers
        The transformer layers of the audio encoder; HuBERT-large has 24.

    Returns
    -------
    tuple[ModelConfig, dict[str, Tensor]]
        The configuration, and float32 weights with LoRA apart.

    Raises
    ------
    CheckpointError
        When the hyper-parameters describe a network we do not have, or keys do not fit.
    """
    given = _checked(hyperparameters, source)
    config = _config(given, source, audio_layers)
    spelled: dict[str, str] = {}
    for key in weights:
        name = canonical(key)
        spelled[key if name in spelled else name] = key
    shapes = expected_shapes(config)
    expected = to_released(shapes, config.audio.aligner)
    if given["sim_agg_type"] == "simpool":
        spelled = {name: key for name, key in spelled.items() if not name.startswith(_POOL)}
    check_keys(
        {spelled.get(name, name): shape for name, shape in expected.items()},
        {key: tuple(weights[key].shape) for key in spelled.values()},
        source,
    )
    tensors = {name: weights[key].to(torch.float32, copy=True) for name, key in spelled.items()}
    return config, from_released(tensors, shapes, config.audio.aligner)


def _checked(hyperparameters: object, source: str) -> Mapping[str, Any]:
    if not isinstance(hyperparameters, Mapping):
        raise CheckpointError(f"{source} holds no hyper_parameters; it is not a released DenseAV")
    missing = [name for name in REQUIRED if name not in hyperparameters]
    if missing:
        raise CheckpointError(f"{source} lacks the hyper-parameters {', '.join(missing)}")
    for name, kinds in _ONLY.items():
        if hyperparameters[name] not in kinds:
            raise CheckpointError(
                f"{source} has {name} {hyperparameters[name]!r}; denseav has {', '.join(kinds)}"
            )
    wrong = [
        name
        for name in _COUNTS
        if type(count := hyperparameters.get(name, 1)) is not int or count > _COUNT_MAX
    ]
    if wrong:
        raise CheckpointError(
            f"{source}: {', '.join(wrong)} must be whole numbers up to {_COUNT_MAX}"
        )
    wrong = [name for name in _FLAGS if type(hyperparameters.get(name, False)) is not bool]
    wrong += [name for name in _WORDS if type(hyperparameters.get(name, "")) is not str]
    if wrong:
        raise CheckpointError(f"{source}: {', '.join(wrong)} cannot be used as they are")
    return hyperparameters


def _config(given: Mapping[str, Any], source: str, audio_layers: int) -> ModelConfig:
    name = source.rstrip("/").rsplit("/", 1)[-1].removesuffix(".ckpt")
    try:
        return ModelConfig(
            name=name,
            trained=True,
            heads=head_names(given["sim_agg_heads"], name),
            code_dim=given["code_dim"],
            cls_similarity=bool(given.get("sim_use_cls", False)),
            unit_vectors=bool(given.get("norm_vectors", False)),
            calibrator_bias=given["loss_type"] != "nce",
            image=ImageConfig(
                pool_width=given["image_pool_width"],
                lora=_lora(given, "image"),
            ),
            audio=AudioConfig(
                layers=audio_layers,
                aligner=_ALIGNERS[given["audio_aligner_type"]],
                learned_cls=bool(given["learn_audio_cls"]),
                pool_width=given.get("audio_pool_width", 1),
                lora=_lora(given, "audio"),
            ),
            aggregation=_aggregation(given, source),
        )
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None


def _lora(given: Mapping[str, Any], side: str) -> LoraConfig | None:
    return LoraConfig(rank=given.get(f"{side}_lora_rank", 8)) if given[f"{side}_lora"] else None


def _aggregation(given: Mapping[str, Any], source: str) -> Aggregation:
    clips = given["sim_agg_type"]
    if clips not in _CLIPS:
        logger.warning("%s scored pairs by %s; denseav will by misa", source, clips)
        clips = "misa"
    return Aggregation(
        clips=clips,
        heads=given.get("head_agg", "max_elementwise"),
        nonnegative=bool(given.get("nonneg_sim", False)),
        mask_silence=bool(given.get("mask_silence", True)),
    )


def head_names(heads: int, name: str) -> tuple[str, ...]:
    """Name the heads of a released model.

    Two heads are speech and sound, in this order, which the authors' videos show and the
    paper's prose reverses. One head is named by the words in the model's name, and `sound`
    where they say nothing. More heads are numbered.
    """
    if heads == 2:
        return "speech", "sound"
    if heads != 1:
        return tuple(f"head{index}" for index in range(heads))
    words = name.lower()
    speech = any(word in words for word in _SPEECH_WORDS)
    sound = any(word in words for word in _SOUND_WORDS)
    return ("speech",) if speech and not sound else ("sound",)
