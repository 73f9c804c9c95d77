"""A source hears the clips of a test split: which head should answer, and when it is listened to.

The own head of a sound is the one named `sound`, of a spoken name `speech`. A model with three
heads or more hears tunes too. Heads of other names are taken for what they answer to, on clips that
are used for nothing else.

K heads, T tokens, H W pixels, h w the feature grid.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from denseav.models.audio_encoder import SAMPLE_RATE_HZ
from denseav.models.similarity import aggregate
from denseav.train.eval.heatmaps import MISA
from denseav.train.eval.model import EvalModel, Features
from denseav.train.eval.world.split import Case, Split
from denseav.train.metrics.localization import Mask
from denseav.train.metrics.segmentation import time_mean, to_pixels, word_tokens
from denseav.train.world.clips import HEADS, TWO_HEADS, AudioEvent, Head

RESERVED = 10**9
"""The number of the first clip that is set aside to learn what heads answer to."""
RESERVED_CLIPS = 24


@dataclass(frozen=True, kw_only=True, eq=False)
class WorldEvaluator:
    """A source, what it hears, and which head is whose."""

    model: EvalModel
    split: Split
    own: Mapping[Head, int]

    def encode(self, case: Case) -> tuple[Features, Tensor]:
        """Return a picture's features and its volume [K, T, h, w] with the clip's sound."""
        seen = self.model.encode_image(case.picture_HW3)
        heard = self.model.encode_audio(case.clip.wave_S)
        return seen, self.model.volumes([heard], [seen])[0, 0].cpu()

    def tokens_of(self, event: AudioEvent, tokens: int) -> Tensor:
        """Return in which of all tokens a thing is heard, bool [T]."""
        span_s = event.start_s, event.stop_s
        return word_tokens(span_s, self.split.samples / SAMPLE_RATE_HZ, tokens, margin_s=0.0)[0]

    def tokens_of_word(self, span_s: tuple[float, float], tokens: int) -> Tensor:
        """Return in which of all tokens a word counts, bool [T]: 0.2 s before and after it too."""
        return word_tokens(span_s, self.split.samples / SAMPLE_RATE_HZ, tokens)[0]

    def heatmap(self, volume_THW: Tensor, event: AudioEvent) -> Tensor:
        """Return the map [h, w] while a thing is heard."""
        mask_T = self.tokens_of(event, len(volume_THW))
        return time_mean(volume_THW[None], mask_T[None])[0]

    def similarity(self, volume_KTHW: Tensor, event: AudioEvent) -> Tensor:
        """Return each head's similarity [K] while a thing is heard."""
        mask_T = self.tokens_of(event, volume_KTHW.shape[1])
        return aggregate(volume_KTHW[None], mask_T[None], MISA, join_heads=False)[0]


def make_evaluator(model: EvalModel, split: Split) -> WorldEvaluator:
    """Return a listener that knows which head is whose."""
    kinds = HEADS[: max(len(TWO_HEADS), len(model.heads))]
    own: dict[Head, int] = {head: model.heads.index(head) for head in kinds if head in model.heads}
    if len(own) == len(kinds):
        return WorldEvaluator(model=model, split=split, own=own)
    aside = WorldEvaluator(model=model, split=split, own={})
    own = preferred({head: _reserved(aside, head) for head in kinds})
    return WorldEvaluator(model=model, split=split, own=own)


def preferred(sims: Mapping[Head, Tensor]) -> dict[Head, int]:
    """Return which head is the most similar to each kind of audio, by its own measure.

    `sims` are similarities [N, K] with their own pictures; as `denseav-export --name-heads`, but
    that two kinds may have the same head.
    """
    deviation_K = torch.cat([*sims.values()]).std(0).clamp_min(1e-12)
    own: dict[Head, int] = {}
    for kind, own_NK in sims.items():
        others_NK = torch.cat([other_NK for other, other_NK in sims.items() if other != kind])
        own[kind] = int(((own_NK.mean(0) - others_NK.mean(0)) / deviation_K).argmax())
    return own


def points(heat_hw: Tensor, truth_HW: Mask) -> bool:
    """Tell whether a map's peak, in pixels, lies on the truth."""
    size = truth_HW.shape[0], truth_HW.shape[1]
    return bool(truth_HW.flat[int(to_pixels(heat_hw[None], size)[0].argmax())])


def _reserved(evaluator: WorldEvaluator, head: Head) -> Tensor:
    cases = [evaluator.split.case(head, RESERVED + number) for number in range(RESERVED_CLIPS)]
    return torch.stack(
        [evaluator.similarity(evaluator.encode(case)[1], case.clip.events[0]) for case in cases]
    )
