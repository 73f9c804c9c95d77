"""The three graphs of a bundle as torch modules: preprocessing, network and similarity.

A trained `DenseAV` enters; `ImageGraph`, `AudioGraph` and `HeatmapGraph` leave, which take what
sensors give. ONNX and TensorRT are both made from these modules, so a precision means the same
numbers in both. Axes: K heads, C channels, H W pixels or grid, T tokens, S samples.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from denseav.models import DenseAV
from denseav.models.similarity import slice_KHW

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
_WAVE_EPSILON = 1e-7  # as in the Wav2Vec2 feature extractor


class ImageGraph(nn.Module):
    """`image` uint8 [H, W, 3] RGB -> `image_features` [K, C, H/8, W/8]."""

    def __init__(self, model: DenseAV) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(IMAGE_MEAN)[:, None, None] * 255)
        self.register_buffer("std", torch.tensor(IMAGE_STD)[:, None, None] * 255)

    def forward(self, image: Tensor) -> Tensor:
        pixels_3HW = (image.permute(2, 0, 1).float() - self.mean.float()) / self.std.float()
        return self.model.encode_image(pixels_3HW[None].to(dtype_of(self.model)))[0]


class AudioGraph(nn.Module):
    """`wave` float32 [S] at 16 kHz -> `audio_features` [K, C, T], normalised per window."""

    def __init__(self, model: DenseAV) -> None:
        super().__init__()
        self.model = model

    def forward(self, wave: Tensor) -> Tensor:
        centred_S = wave - wave.mean()
        normed_S = centred_S / torch.sqrt(centred_S.square().mean() + _WAVE_EPSILON)
        return self.model.encode_audio(normed_S[None].to(dtype_of(self.model)))[0]


class HeatmapGraph(nn.Module):
    """`image_features`, `audio_features`, `token` int64 [1] -> `heat` float32 [K, H, W]."""

    def forward(self, image_features: Tensor, audio_features: Tensor, token: Tensor) -> Tensor:
        token_KC = audio_features.float().index_select(2, token).squeeze(2)
        return slice_KHW(image_features.float(), token_KC)
