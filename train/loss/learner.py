"""The network as training calls it: pictures and waves of a batch in, float32 features out.

The one place where training runs the network. It knows no loss and no other process.
b clips of one process, V images of one, K heads, C channels, D = K C, T tokens, S samples.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from denseav.models import DenseAV
from denseav.models.audio_encoder import normalize_wave
from denseav.train.loss.pooling import AUDIBLE, Pooling, SimPool, average, cls, token_mask
from denseav.train.loss.streaming import Streaming, encode_streamed


class Features(NamedTuple):
    """What the network makes of a batch: float32 features, and vectors unless pooling is dense.

    `sums_heads` says that a place has the sum of its heads, not the strongest.
    """

    image_VKCHW: Tensor
    audio_bKCT: Tensor
    mask_bT: Tensor
    scale: Tensor
    image_VD: Tensor | None = None
    audio_bD: Tensor | None = None
    sums_heads: bool = False


Encode = Callable[[Tensor, Tensor, Tensor], Features]


class Learner(nn.Module):
    """The network with the weights that only training needs, called once for a batch."""

    def __init__(
        self, model: DenseAV, pooling: Pooling, streaming: Streaming | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling
        self.streaming = streaming
        width = model.config.channels * len(model.config.heads)
        self.pool = SimPool(width) if pooling == "simpool" else None

    def forward(self, image_V3HW: Tensor, wave_bS: Tensor, mask_bS: Tensor) -> Features:
        """Encode pictures and waves; each wave is given zero mean and unit variance first.

        Pictures without pixels have features without places. In training mode the wave may be
        encoded as a stream.
        """
        image_VKCHW = self._encode_image(image_V3HW)
        audio_bKCT = self._encode_audio(normalize_wave(wave_bS))
        # Copies, for what gathers sharded weights on the way back hangs on what is no view.
        image_VKCHW = image_VKCHW.to(torch.float32, copy=True)
        audio_bKCT = audio_bKCT.to(torch.float32, copy=True)
        mask_bT = token_mask(mask_bS, audio_bKCT.shape[-1])
        scale = self.model.calibrator.scale
        if self.pooling in ("dense", "dense_sum"):
            sums_heads = self.pooling == "dense_sum"
            return Features(image_VKCHW, audio_bKCT, mask_bT, scale, sums_heads=sums_heads)
        grid_VKCN, heard_bT = image_VKCHW.flatten(3), (mask_bT > AUDIBLE).float()
        vectors = self._pool(grid_VKCN, torch.ones_like(grid_VKCN[:, 0, 0]))
        return Features(
            image_VKCHW=image_VKCHW,
            audio_bKCT=audio_bKCT,
            mask_bT=mask_bT,
            scale=scale,
            image_VD=vectors,
            audio_bD=self._pool(audio_bKCT, heard_bT),
        )

    def _encode_image(self, image_V3HW: Tensor) -> Tensor:
        if image_V3HW.numel():
            return self.model.encode_image(image_V3HW)
        config = self.model.config
        return image_V3HW.new_zeros(len(image_V3HW), len(config.heads), config.channels, 0, 0)

    def _encode_audio(self, wave_bS: Tensor) -> Tensor:
        config = self.streaming.draw() if self.streaming and self.training else None
        if config is None:
            return self.model.encode_audio(wave_bS)
        return encode_streamed(self.model, wave_bS, config)

    def _pool(self, features_BKCN: Tensor, weight_BN: Tensor) -> Tensor:
        if self.pool is not None:
            vector_BD: Tensor = self.pool(features_BKCN, weight_BN)
            return vector_BD
        if self.pooling == "cls":
            return cls(features_BKCN)
        return average(features_BKCN, weight_BN)
