"""Prompted segmentation while training: ADE20K's prompted sets enter, mAP and mIoU leave.

What `denseav-eval` measures, of the network as it is, without intervals. All processes compute all
of it alike, for those that share weights can only encode together.

A clips, V pictures, S samples at 16 kHz.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from denseav.models.image_encoder import normalize_image
from denseav.models.similarity import all_volumes
from denseav.train.eval import public_sets
from denseav.train.eval.heatmaps import TOTAL, maps, read_truths
from denseav.train.eval.items import EvalSet, with_files
from denseav.train.eval.mixtures import place
from denseav.train.eval.model import WINDOW_SAMPLES
from denseav.train.eval.pieces import Pieces, T
from denseav.train.eval.read import read_wave
from denseav.train.loss.learner import Learner
from denseav.train.metrics.segmentation import score_classes
from denseav.train.trainer.settings import PromptedSettings

_LAYOUTS: Mapping[str, Callable[[Path], list[EvalSet]]] = {
    "speech": public_sets.speech_prompted,
    "sound": public_sets.sound_prompted,
}


@lru_cache(maxsize=1)
def prompted_sets(settings: PromptedSettings | None) -> list[EvalSet]:
    """Return the sets there are, every file looked for.

    Raises
    ------
    DataError
        When a folder is not as its authors ship it.
    """
    if settings is None:
        return []
    folders = {kind: getattr(settings, kind) for kind in _LAYOUTS}
    read = [_LAYOUTS[kind](Path(folder)) for kind, folder in folders.items() if folder]
    return [with_files(data, allow_missing=False) for sets in read for data in sets]


@torch.no_grad()
def prompted_scores(learner: Learner, sets: Sequence[EvalSet]) -> dict[str, float]:
    """Return mAP and mIoU, in percent, of each set by all heads and by the head of its kind."""
    model, found = _LearnerModel(learner), dict[str, float]()
    nothing_kept = Pieces(None, {}, track=_silently)
    for data in sets:
        truths = read_truths(data, model.frame_size, _silently)
        drawn = maps(
            model,
            data,
            load_audio=lambda item: place(read_wave(item), WINDOW_SAMPLES),
            what=data.name,
            pieces=nothing_kept,
        )
        assert drawn is not None, "nobody else has a share"
        categories = [item.category for item in data.items]
        scores = score_classes(torch.from_numpy(drawn.heat_VNhw), categories, truths)
        for variant, name in enumerate((TOTAL, *model.heads)):
            if name in (TOTAL, data.kind):
                found[f"mAP/{data.kind}/{name}"] = 100 * float(scores.ap_VC[variant].mean())
                found[f"mIoU/{data.kind}/{name}"] = 100 * float(scores.iou_VC[variant].mean())
    return found


class _LearnerModel:
    """A learner as evaluation knows a model; both are encoded as they meet, by one call of it."""

    def __init__(self, learner: Learner) -> None:
        config = learner.model.config
        self.heads = config.heads
        self.frame_size = (config.image.size, config.image.size)
        self.window_samples, self.batch_size = WINDOW_SAMPLES, 1
        self._learner = learner
        self._device = learner.model.calibrator.scale.device

    def encode_images(self, images_BHW3: NDArray[np.uint8]) -> Tensor:
        images_B3HW = torch.from_numpy(images_BHW3).to(self._device).movedim(-1, 1) / 255
        return normalize_image(images_B3HW)

    def encode_waves(self, waves_BS: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(waves_BS).to(self._device)

    def volumes(self, sounds: Sequence[Tensor], pictures: Sequence[Tensor]) -> Tensor:
        wave_AS = torch.stack(list(sounds))
        features = self._learner(torch.stack(list(pictures)), wave_AS, torch.ones_like(wave_AS))
        return all_volumes(features.image_VKCHW, features.audio_bKCT)


def _silently(sequence: Sequence[T], description: str) -> Iterable[T]:
    del description
    return sequence
