"""The aligners: an encoder's D channels to the E of the space that images and audio share.

Hamilton et al., "Separating the Chirp from the Chat" (2024), as released: the audio side ends
in a transformer block with a learned CLS token that the paper does not mention.
B clips, D encoder channels, E shared channels (all heads), H W grid, L stem frames, T tokens.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import ViTConfig
from transformers.models.vit.modeling_vit import ViTLayer

from denseav.models.config import AudioConfig
from denseav.models.image_encoder import LAYER_NORM_EPS


class ChannelNorm(nn.Module):
    """Layer norm over axis 1, whatever follows it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=LAYER_NORM_EPS)

    def forward(self, features_BCx: Tensor) -> Tensor:
        """Normalise [B, C, ...] over C."""
        normed_BxC: Tensor = self.norm(features_BCx.movedim(1, -1))
        return normed_BxC.movedim(-1, 1)


class ImageAligner(nn.Module):
    """Channel norm and a 1x1 convolution; the CLS has its own projection and no norm."""

    def __init__(self, hidden: int, code_dim: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(hidden)
        self.projection = nn.Conv2d(hidden, code_dim, 1)
        self.cls_projection = nn.Linear(hidden, code_dim)

    def forward(self, features_BDHW: Tensor, cls_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Return aligned features [B, E, H, W] and the aligned CLS [B, E]."""
        return self.projection(self.norm(features_BDHW)), self.cls_projection(cls_BD)


class TimePool(nn.Module):
    """A stride-3 convolution over time; frames left over at the end are dropped."""

    def __init__(self, channels: int, code_dim: int, *, normed: bool) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels) if normed else nn.Identity()
        self.conv = nn.Conv1d(channels, code_dim, 3, stride=3)

    def forward(self, features_BDL: Tensor, cls_BD: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return features [B, E, L // 3] and the CLS, normed where the features are."""
        cls_BD = None if cls_BD is None else self.norm(cls_BD)
        return self.conv(self.norm(features_BDL)), cls_BD


class TokenMixer(nn.Module):
    """One pre-norm transformer block over `[CLS, tokens]`, without positions.

    Channels that do not divide among the attention heads are zero-padded in front.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.padding = -channels % heads
        self.block = ViTLayer(
            ViTConfig(
                hidden_size=channels + self.padding,
                num_attention_heads=heads,
                intermediate_size=4 * (channels + self.padding),
                layer_norm_eps=LAYER_NORM_EPS,
            )
        )
        self.set_attention("sdpa")

    def set_attention(self, kind: str) -> None:
        """Choose how attention is computed: `sdpa` or `eager`."""
        self.block.attention.config._attn_implementation = kind

    def mix(self, tokens_BNE: Tensor, mask_NN: Tensor | None) -> Tensor:
        """Return tokens [B, N, E] that have seen the others; the mask is added to attention."""
        mixed_BNE: Tensor = self.block(functional.pad(tokens_BNE, (self.padding, 0)), mask_NN)
        return mixed_BNE[..., self.padding :]

    def forward(self, features_BET: Tensor, cls_BE: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return features [B, E, T] and the CLS [B, E], each having seen all the others."""
        tokens_BTE = features_BET.transpose(1, 2)
        if cls_BE is not None:
            tokens_BTE = torch.cat((cls_BE.unsqueeze(1), tokens_BTE), dim=1)
        mixed_BTE = self.mix(tokens_BTE, None)
        if cls_BE is None:
            return mixed_BTE.transpose(1, 2), None
        return mixed_BTE[:, 1:].transpose(1, 2), mixed_BTE[:, 0]


class AudioAligner(nn.Module):
    """What all audio aligners share: tokens, each from frames of its own, then one block."""

    mixer: TokenMixer

    def tokens(self, features_BDL: Tensor, cls_BD: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return tokens [B, E, T] and the CLS [B, E] that have not seen one another."""
        raise NotImplementedError

    def forward(self, features_BDL: Tensor, cls_BD: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return aligned features [B, E, T] and the aligned CLS [B, E]."""
        mixed: tuple[Tensor, Tensor | None] = self.mixer(*self.tokens(features_BDL, cls_BD))
        return mixed


class PoolAligner(AudioAligner):
    """The released audio aligner: norm, two stride-3 convolutions, one transformer block."""

    def __init__(self, config: AudioConfig, code_dim: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(config.hidden)
        self.pools = nn.ModuleList(
            TimePool(channels, code_dim, normed=False) for channels in (config.hidden, code_dim)
        )
        self.cls_projection = nn.Linear(config.hidden, code_dim)
        self.mixer = TokenMixer(code_dim, config.aligner_heads)

    def tokens(self, features_BDL: Tensor, cls_BD: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return tokens [B, E, T] and the CLS [B, E] that have not seen one another."""
        cls = None if cls_BD is None else self.cls_projection(self.norm(cls_BD))
        features = self.norm(features_BDL)
        for pool in self.pools:
            features, cls = pool(features, cls)
        return features, cls


class ProjectAligner(AudioAligner):
    """The older audio aligners: norm and projection, `pools` normed convolutions, one block."""

    def __init__(self, config: AudioConfig, code_dim: int, *, pools: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(config.hidden)
        self.projection = nn.Conv1d(config.hidden, code_dim, 1)
        self.cls_projection = nn.Linear(config.hidden, code_dim)
        self.pools = nn.ModuleList(TimePool(code_dim, code_dim, normed=True) for _ in range(pools))
        self.mixer = TokenMixer(code_dim, config.aligner_heads)

    def tokens(self, features_BDL: Tensor, cls_BD: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return tokens [B, E, T] and the CLS [B, E] that have not seen one another."""
        cls = None if cls_BD is None else self.cls_projection(cls_BD)
        features = self.projection(self.norm(features_BDL))
        for pool in self.pools:
            features, cls = pool(features, cls)
        return features, cls


def audio_aligner(config: AudioConfig, code_dim: int) -> AudioAligner:
    """Build the audio aligner that the configuration names."""
    if config.aligner == "pool":
        return PoolAligner(config, code_dim)
    return ProjectAligner(config, code_dim, pools=2 if config.aligner == "project_pool" else 0)
