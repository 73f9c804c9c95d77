"""The audio encoder, a HuBERT: waves [B, S] to features [B, D, L], one for every 20 ms.

It knows nothing of heads or of images. B clips, S samples at 16 kHz, L stem frames, D hidden.

Hsu et al., "HuBERT" (2021), in its "stable layer norm" form with a layer-normed stem; epsilons
are the released DenseAV's: 1e-5 in the stem, 1e-4 elsewhere.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import HubertConfig, HubertModel

from denseav.models.config import SAMPLE_RATE_HZ as SAMPLE_RATE_HZ
from denseav.models.config import STEM_KERNELS, STEM_STRIDES, AudioConfig
from denseav.models.image_encoder import LAYER_NORM_EPS


class AudioEncoder(nn.Module):
    """A HuBERT without attention mask: padding is heard as silence."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.hubert = HubertModel(_hubert_config(config))
        # Else transformers computes a gradient of the wave itself, which nobody reads.
        self.hubert.feature_extractor._requires_grad = False
        for layer in self.hubert.feature_extractor.conv_layers:
            layer.activation = _InOrder(cast(nn.Module, layer.activation))
        if config.layer_drop:
            for layer in self.hubert.encoder.layers:
                layer.register_forward_hook(_LayerDrop(config.layer_drop))

    def forward(self, wave_BS: Tensor) -> Tensor:
        """Encode float32 waveforms [B, S] at 16 kHz into features [B, D, L]."""
        hidden_BLD: Tensor = self.hubert(wave_BS).last_hidden_state
        return hidden_BLD.transpose(1, 2)

    def stem(self, wave_BS: Tensor) -> Tensor:
        """Return frames [B, L, D] as they enter the encoder: each from its own 400 samples."""
        extracted_BDL = self.hubert.feature_extractor(wave_BS)
        hidden_BLD = self.hubert.feature_projection(extracted_BDL.transpose(1, 2))
        masked_BLD: Tensor = self.hubert._mask_hidden_states(hidden_BLD)
        return masked_BLD

    def fold_weight_norm(self) -> None:
        """Replace the weight-normed position convolution by the plain one it equals."""
        convolution = self.hubert.encoder.pos_conv_embed.conv
        if parametrize.is_parametrized(convolution, "weight"):
            parametrize.remove_parametrizations(convolution, "weight")


class _LayerDrop:
    """Puts a layer's input in place of its output, at random, in training mode.

    The layer is computed all the same, so that every weight has a gradient, if of zero, on each
    process: data parallelism waits for it.
    """

    def __init__(self, share: float) -> None:
        self._share = share

    def __call__(
        self, layer: nn.Module, inputs: tuple[Tensor, ...], output_BLD: Tensor
    ) -> Tensor | None:
        if not layer.training:
            return None
        dropped = torch.rand((), device=output_BLD.device) < self._share
        return torch.where(dropped, inputs[0].to(output_BLD.dtype), output_BLD)


class _InOrder(nn.Module):
    """An activation that lays its input out in order: after a transpose it is 3 times faster."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, features_BDL: Tensor) -> Tensor:
        activated_BDL: Tensor = self.activation(features_BDL.contiguous())
        return activated_BDL


def normalize_wave(wave_BS: Tensor) -> Tensor:
    """Give each waveform [B, S] zero mean and unit variance over all its S samples."""
    centred_BS = wave_BS - wave_BS.mean(dim=-1, keepdim=True)
    variance_B1 = centred_BS.square().mean(dim=-1, keepdim=True)
    return centred_BS / (variance_B1 + 1e-7).sqrt()


def _hubert_config(config: AudioConfig) -> HubertConfig:
    return HubertConfig(
        hidden_size=config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=4 * config.hidden,
        conv_dim=(config.stem_channels,) * len(STEM_KERNELS),
        conv_kernel=STEM_KERNELS,
        conv_stride=STEM_STRIDES,
        conv_bias=True,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_conv_pos_embeddings=config.position_kernel,
        num_conv_pos_embedding_groups=config.position_groups,
        layer_norm_eps=LAYER_NORM_EPS,
        initializer_range=0.5 * config.hidden**-0.5,
        hidden_dropout=config.dropout,
        attention_dropout=config.dropout,
        activation_dropout=config.dropout,
        feat_proj_dropout=config.dropout,
        layerdrop=0.0,  # ours is the same on all processes
        # The masking vector is part of released weights, used or not.
        mask_time_prob=0.05 if config.time_mask == 0 else config.time_mask,
        apply_spec_augment=config.time_mask > 0,
    )
