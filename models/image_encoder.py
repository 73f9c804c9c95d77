"""The image encoder, a DINO vision transformer: images [B, 3, H, W] to patches [B, D, h, w].

Images are RGB, normalised by ImageNet's mean; with the last block's patches comes its CLS token.
It knows nothing of heads or of audio. B frames, D hidden, H W pixels, h w patches, N tokens.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers" (2021), with the
released DenseAV's layer-norm epsilon of 1e-4.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import ViTConfig, ViTModel

from denseav.models.config import ImageConfig

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
LAYER_NORM_EPS = 1e-4


def normalize_image(image_B3HW: Tensor) -> Tensor:
    """Normalise pictures [B, 3, H, W] in [0, 1] by ImageNet's mean and deviation."""
    mean_311, std_311 = (image_B3HW.new_tensor(x)[:, None, None] for x in (IMAGE_MEAN, IMAGE_STD))
    return (image_B3HW - mean_311) / std_311


class ImageEncoder(nn.Module):
    """A DINO ViT whose position table follows the size of the frame."""

    baked_position_1ND: Tensor | None

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        self.patch = config.patch
        self.grid = config.size // config.patch
        self.vit = ViTModel(_vit_config(config), add_pooling_layer=False)
        self.attention_width = config.attention_width
        self.register_buffer("baked_position_1ND", None, persistent=False)

    def forward(self, image_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Encode frames.

        Parameters
        ----------
        image_B3HW
            float32 RGB, normalised by `IMAGE_MEAN` and `IMAGE_STD`; H and W are multiples of
            the patch.

        Returns
        -------
        tuple[Tensor, Tensor]
            The patch features [B, D, h, w] and the CLS feature [B, D].

        Raises
        ------
        ValueError
            When a side is no multiple of the patch.
        """
        height, width = image_B3HW.shape[-2:]
        if height % self.patch or width % self.patch:
            raise ValueError(
                f"an image of {height}x{width} pixels does not divide into patches of "
                f"{self.patch}; crop or resize it to a multiple"
            )
        h, w = height // self.patch, width // self.patch
        patches_BND = self.vit.embeddings.patch_embeddings(image_B3HW)
        cls_B1D = self.vit.embeddings.cls_token.expand(len(patches_BND), -1, -1)
        tokens_BND = torch.cat((cls_B1D, patches_BND), dim=1) + self.position(h, w)
        seen_NN = self.neighbours(h, w, tokens_BND.dtype)
        for layer in self.vit.layers:
            tokens_BND = layer(tokens_BND, seen_NN)
        tokens_BND = self.vit.layernorm(tokens_BND)
        return tokens_BND[:, 1:].transpose(1, 2).reshape(len(tokens_BND), -1, h, w), tokens_BND[
            :, 0
        ]

    def position(self, h: int, w: int) -> Tensor:
        """Return the position table [1, 1 + h*w, D] of a grid of `h` by `w` patches.

        DINO interpolates by a scale factor of `(h + 0.1) / grid`, and the 0.1, there against
        rounding, moves the sampling points too; trained weights are used to it.
        """
        if self.baked_position_1ND is not None:
            return self.baked_position_1ND
        table_1ND: Tensor = self.vit.embeddings.position_embeddings
        if h == w == self.grid:
            return table_1ND
        patches_1Dhw = table_1ND[:, 1:].transpose(1, 2).reshape(1, -1, self.grid, self.grid)
        scale = ((h + 0.1) / self.grid, (w + 0.1) / self.grid)
        resized_1Dhw = functional.interpolate(
            patches_1Dhw, scale_factor=scale, mode="bicubic", align_corners=False
        )
        return torch.cat((table_1ND[:, :1], resized_1Dhw.flatten(2).transpose(1, 2)), dim=1)

    def neighbours(self, h: int, w: int, dtype: torch.dtype) -> Tensor | None:
        """Return what is added to attention, [1, 1, N, N]: 0 where a token sees, else -inf.

        None where every token sees all. In a small network that sees everything, evidence of
        a thing wanders to the background, where the maximum over the image finds it.
        """
        if not self.attention_width:
            return None
        reach = self.attention_width // 2
        device = self.vit.embeddings.cls_token.device
        row_N = torch.arange(h, device=device).repeat_interleave(w)
        column_N = torch.arange(w, device=device).repeat(h)
        near_NN = ((row_N[:, None] - row_N).abs() <= reach) & (
            (column_N[:, None] - column_N).abs() <= reach
        )
        near_NN = functional.pad(near_NN, (1, 0, 1, 0), value=False)
        near_NN[0] = True
        mask_NN = torch.zeros(near_NN.shape, dtype=dtype, device=device)
        return mask_NN.masked_fill(~near_NN, float("-inf"))[None, None]

    def bake(self, height: int, width: int) -> None:
        """Fix the position table for frames of `height` by `width` pixels, as a constant."""
        self.baked_position_1ND = None
        table = self.position(height // self.patch, width // self.patch)
        self.baked_position_1ND = table.detach().clone()


def _vit_config(config: ImageConfig) -> ViTConfig:
    return ViTConfig(
        image_size=config.size,
        patch_size=config.patch,
        hidden_size=config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=4 * config.hidden,
        layer_norm_eps=LAYER_NORM_EPS,
        initializer_range=0.5 * config.hidden**-0.5,
    )
