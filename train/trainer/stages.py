"""The stages of training: which weights learn when.

First the aligners, with both backbones as they are; then HuBERT as a whole too, and DINO through
LoRA (Hamilton et al., 2024, section 3.5). A backbone without LoRA learns as a whole, or, where
that is wanted, without the convolutions of HuBERT's stem.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import nn

from denseav.models import ModelConfig
from denseav.train.loss.learner import Learner
from denseav.train.trainer.settings import Optimization

Group = Literal["aligners", "audio_aligner", "stem", "audio", "image", "frozen"]


@dataclass(frozen=True)
class Stage:
    """One stretch of training."""

    name: str
    learning: frozenset[Group]
    begin: int
    end: int


def stages(optimization: Optimization, *, sound_alone: bool = False) -> list[Stage]:
    """Return the stages in their order; the last ends with the run.

    With `sound_alone`, what encodes pictures and what compares them with sound stays as it is.
    """
    aligners: set[Group] = {"audio_aligner"} if sound_alone else {"aligners", "audio_aligner"}
    encoders: set[Group] = {"audio"} if sound_alone else {"audio", "image"}
    learning = aligners | encoders
    if optimization.learn_stem:
        learning.add("stem")
    first = min(optimization.aligner_steps, optimization.steps)
    whole = Stage("everything", frozenset(learning), first, optimization.steps)
    return [Stage("aligners", frozenset(aligners), 0, first), whole]


def group_of(name: str, config: ModelConfig) -> Group:
    """Return the group of a learner's weight by its name."""
    name = name.removeprefix("model.")
    if _unused(name, config):
        return "frozen"
    if name.startswith("image_encoder."):
        return "frozen" if config.image.lora and "lora_" not in name else "image"
    if name.startswith("audio_encoder."):
        if config.audio.lora:
            return "audio" if "lora_" in name else "frozen"
        return "stem" if "feature_extractor" in name else "audio"
    return "audio_aligner" if name.startswith("audio_") else "aligners"


def set_learning(learner: Learner, stage: Stage) -> None:
    """Let the weights of a stage learn, and no others."""
    for group, parameter in grouped(learner):
        parameter.requires_grad_(group in stage.learning)
        if group not in stage.learning:
            parameter.grad = None


def grouped(learner: Learner) -> Iterator[tuple[Group, nn.Parameter]]:
    """Yield each weight with its group."""
    for name, parameter in learner.named_parameters():
        yield group_of(name, learner.model.config), parameter


def _unused(name: str, config: ModelConfig) -> bool:
    """Tell whether training never sees a weight that is part of the released network."""
    if name == "calibrator.bias":
        return True  # no softmax sees it
    if name.startswith("image_aligner.cls_projection"):
        return not config.cls_similarity
    if name.startswith("audio_aligner.cls_projection"):
        return not config.audio.learned_cls
    if name.endswith("masked_spec_embed"):
        return config.audio.time_mask == 0
    return False
