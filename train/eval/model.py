"""Who makes the heatmaps that are evaluated: pictures and sound enter, similarity volumes leave.

Its protocols are all that the evaluation knows of a model; `TorchModel` is a network in PyTorch. An
exported bundle becomes a source by stacking its slices token by token.

A clips, V pictures, K heads, T tokens, H W the feature grid, S samples at 16 kHz.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from denseav.models import DenseAV
from denseav.models.audio_encoder import normalize_wave
from denseav.models.image_encoder import normalize_image
from denseav.models.similarity import all_volumes

Features = Any  # opaque: only the source that made them looks inside

WINDOW_SAMPLES = 164_200
"""The padded clip of the released evaluation: 10.2625 s, 56 tokens."""

AUDIBLE = 0.01


class VolumeModel(Protocol):
    """What is evaluated, as far as it has features already.

    Attributes
    ----------
    heads : their names, in the order of K.
    frame_size : height and width of the pictures it takes, in pixels.
    window_samples : length of the sound it takes.
    """

    heads: tuple[str, ...]
    frame_size: tuple[int, int]
    window_samples: int

    def volumes(self, sounds: Sequence[Features], pictures: Sequence[Features]) -> Tensor:
        """Return the volumes [A, V, K, T, H, W] of every sound with every picture, float32."""


class EvalModel(VolumeModel, Protocol):
    """What is evaluated item by item."""

    def encode_image(self, image_HW3: NDArray[np.uint8]) -> Features:
        """Encode an RGB picture of `frame_size`."""

    def encode_audio(self, wave_S: NDArray[np.float32]) -> Features:
        """Encode a sound of `window_samples` as recorded, zero where there is none."""


class BatchedModel(VolumeModel, Protocol):
    """What is evaluated on whole sets: features are tensors, and are made several at a time.

    Attributes
    ----------
    batch_size : so many.
    """

    batch_size: int

    def encode_images(self, images_BHW3: NDArray[np.uint8]) -> Tensor:
        """Encode RGB pictures of `frame_size` into features [B, ...]."""

    def encode_waves(self, waves_BS: NDArray[np.float32]) -> Tensor:
        """Encode sounds of `window_samples` into features [B, ...]."""


class TorchModel:
    """A network in evaluation mode, on its device, without gradients; square pictures if not said.

    Parameters
    ----------
    model : the network.
    window_samples, frame_size, batch_size : what it is given.
    """

    def __init__(
        self,
        model: DenseAV,
        window_samples: int = WINDOW_SAMPLES,
        frame_size: tuple[int, int] | None = None,
        batch_size: int = 1,
    ) -> None:
        self.batch_size = batch_size
        self.heads = model.config.heads
        self.frame_size = frame_size or (model.config.image.size, model.config.image.size)
        self.window_samples = window_samples
        self._model = model.eval()
        self._device = next(model.parameters()).device

    @torch.inference_mode()
    def encode_images(self, images_BHW3: NDArray[np.uint8]) -> Tensor:
        """Encode pictures into features [B, K, C, H, W], given back on the CPU."""
        images_B3HW = torch.from_numpy(images_BHW3).to(self._device).movedim(-1, 1) / 255
        return self._model.encode_image(normalize_image(images_B3HW)).cpu()

    @torch.inference_mode()
    def encode_waves(self, waves_BS: NDArray[np.float32]) -> Tensor:
        """Encode sounds into features [B, K, C, T]; mean and variance are those of each window."""
        given_BS = torch.from_numpy(waves_BS).to(self._device)
        return self._model.encode_audio(normalize_wave(given_BS)).cpu()

    def encode_image(self, image_HW3: NDArray[np.uint8]) -> Tensor:
        """Encode a picture into features [K, C, H, W]."""
        return self.encode_images(image_HW3[None])[0]

    def encode_audio(self, wave_S: NDArray[np.float32]) -> Tensor:
        """Encode a sound into features [K, C, T]."""
        return self.encode_waves(wave_S[None])[0]

    @torch.inference_mode()
    def volumes(self, sounds: Sequence[Tensor], pictures: Sequence[Tensor]) -> Tensor:
        """Return the volumes of every sound with every picture, on the model's device."""
        seen, heard = (torch.stack(list(part)).to(self._device) for part in (pictures, sounds))
        return all_volumes(seen, heard)


def token_mask(heard_samples: int, window_samples: int, tokens: int) -> Tensor:
    """Return which tokens hear any of the first samples of a window, bool [T].

    As in the released code tokens share the window evenly, which is up to half a token off. Of a
    sound too short for any, the first token counts (there, a random one).
    """
    heard_11S = (torch.arange(window_samples) < heard_samples).float()[None, None]
    mask_T = functional.interpolate(heard_11S, tokens, mode="linear")[0, 0] > AUDIBLE
    mask_T[0] = True
    return mask_T
