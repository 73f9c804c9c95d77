"""The network: images [B, 3, H, W] and waves [B, S] to features of one shared space.

Features are [B, K, C, H, W] of an image and [B, K, C, T] of audio. It joins encoders, aligners,
heads and similarity, and refuses to know of files and losses.
B items, K heads, C channels of a head, H W pixels or grid, S samples at 16 kHz, T tokens.

With `cls_similarity`, a pair's similarity has a term <audio CLS, image CLS> at every position.
As a similarity is an inner product, that term rides along as further channels: each head's
features are then `[feature, CLS]`, 2C wide, and volume, slice and export need not know.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from denseav.models import lora, similarity
from denseav.models.aligners import ImageAligner, audio_aligner
from denseav.models.audio_encoder import AudioEncoder
from denseav.models.config import ModelConfig
from denseav.models.image_encoder import ImageEncoder


class DenseAV(nn.Module):
    """Hamilton et al.'s DenseAV (2024), sized by its configuration.

    Random weights at first; `denseav.models.load` opens trained ones.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = ImageEncoder(config.image)
        self.audio_encoder = AudioEncoder(config.audio)
        self.image_aligner = ImageAligner(config.image.hidden, config.code_dim)
        self.audio_aligner = audio_aligner(config.audio, config.code_dim)
        self.calibrator = similarity.Calibrator(bias=config.calibrator_bias)
        self.audio_cls = (
            nn.Parameter(torch.randn(config.audio.hidden)) if config.audio.learned_cls else None
        )
        if config.image.lora is not None:
            lora.inject(self.image_encoder.vit, config.image.lora)
        if config.audio.lora is not None:
            lora.inject(self.audio_encoder.hubert, config.audio.lora)

    def encode_image(self, image_B3HW: Tensor) -> Tensor:
        """Encode frames into features [B, K, C, h, w].

        Parameters
        ----------
        image_B3HW
            float32 RGB, normalised by ImageNet's mean and deviation; any H and W that are
            multiples of the patch.

        Returns
        -------
        Tensor
            float32 features; one grid cell for each patch, or for each `pool_width` squared
            patches in training mode.

        Raises
        ------
        ValueError
            When a side is no multiple of the patch.
        """
        hidden_BDhw, hidden_cls_BD = self.image_encoder(image_B3HW)
        features_BEhw, cls_BE = self.image_aligner(hidden_BDhw, hidden_cls_BD)
        if self.training and self.config.image.pool_width > 1:
            features_BEhw = functional.avg_pool2d(features_BEhw, self.config.image.pool_width)
        return self.split_heads(features_BEhw, cls_BE)

    def encode_audio(self, wave_BS: Tensor) -> Tensor:
        """Encode waveforms into features [B, K, C, T].

        Parameters
        ----------
        wave_BS
            float32 at 16 kHz, zero mean and unit variance as in training (the released demo
            feeds the raw waveform); at least 2,960 samples. Token i hears the samples
            `[2880 i, 2880 i + 2960)`, and through attention all others.

        Raises
        ------
        ValueError
            When the waveform is too short for one token.
        """
        if wave_BS.shape[-1] < self.config.audio.token_span_samples:
            raise ValueError(
                f"{wave_BS.shape[-1]} samples are too few for one audio token; give at least "
                f"{self.config.audio.token_span_samples}"
            )
        hidden_BDL = self.audio_encoder(wave_BS)
        cls_BD = None if self.audio_cls is None else self.audio_cls.expand(len(wave_BS), -1)
        features_BET, cls_BE = self.audio_aligner(hidden_BDL, cls_BD)
        if self.training and self.config.audio.pool_width > 1:
            features_BET = functional.avg_pool1d(features_BET, self.config.audio.pool_width)
        return self.split_heads(features_BET, cls_BE)

    def similarity(self, features_BKCHW: Tensor, features_BKCT: Tensor) -> Tensor:
        """Return the similarity volume [B, K, T, H, W] of each image with its audio."""
        return similarity.volume(features_BKCHW, features_BKCT)

    def forward(self, image_B3HW: Tensor, wave_BS: Tensor) -> tuple[Tensor, Tensor]:
        """Encode both: `encode_image` and `encode_audio` in one call, as data parallelism needs."""
        return self.encode_image(image_B3HW), self.encode_audio(wave_BS)

    def split_heads(self, features_BEx: Tensor, cls_BE: Tensor | None) -> Tensor:
        """Return aligned features [B, E, ...] head by head, [B, K, C, ...]; the CLS rides along."""
        if self.config.unit_vectors:
            features_BEx = functional.normalize(features_BEx, dim=1)
        heads, (batch, _, *grid) = len(self.config.heads), features_BEx.shape
        features_BKCx = features_BEx.reshape(batch, heads, -1, *grid)
        if not self.config.cls_similarity:
            return features_BKCx
        assert cls_BE is not None
        cls_BKC1 = cls_BE.reshape(batch, heads, -1, *(1 for _ in grid))
        cls_BKCx = cls_BKC1.expand_as(features_BKCx)
        return torch.cat((features_BKCx, cls_BKCx), dim=2)

    def set_attention(self, kind: str) -> None:
        """Choose how attention is computed.

        `sdpa` is fused, `eager` is spelled out and exports to fewer nodes; names registered
        with transformers' `AttentionInterface` work too.
        """
        self.image_encoder.vit.set_attn_implementation(kind)
        self.audio_encoder.hubert.set_attn_implementation(kind)
        self.audio_aligner.mixer.set_attention(kind)

    def prepare_export(self, height: int, width: int) -> None:
        """Fix the network for frames of `height` by `width` pixels, for good.

        Evaluation mode, no weight norm, the position table a constant: the same numbers with
        fewer operations. A model so prepared is not one to save.
        """
        self.eval()
        self.audio_encoder.fold_weight_norm()
        self.image_encoder.bake(height, width)
