"""Aggregation in one pass on a GPU: features in, one number a pair and each maximum's place out.

Triton's kernels behind `chunked_similarity`, whose values, gradients and choice among ties these
are. Products, maximum over heads and places, and mean over tokens stay on the chip; what is
written is the result and the index of each maximum. Imported only where it is used.

A clips, V images, K heads, C channels, T tokens, P places of the grid.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 32
"""Tokens, places and channels of one tile; a tensor core's product needs 16 at least."""


def peaks(image_VKPC: Tensor, audio_AKTC: Tensor, weight_AT: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weighted mean [A, V] over tokens of the maximum, and where each is.

    Parameters
    ----------
    image_VKPC, audio_AKTC, weight_AT
        Contiguous, float32, on one device.

    Returns
    -------
    tuple[Tensor, Tensor]
        Similarities, and indices [A, V, T] in [0, K P), int32.
    """
    clips, heads, tokens, channels = audio_AKTC.shape
    images, _, places, _ = image_VKPC.shape
    sims_AV = audio_AKTC.new_empty(clips, images)
    index_AVT = torch.empty(clips, images, tokens, dtype=torch.int32, device=sims_AV.device)
    exact = torch.get_float32_matmul_precision() == "highest"
    _forward[(clips, images)](
        image_VKPC,
        audio_AKTC,
        weight_AT,
        sims_AV,
        index_AVT,
        heads,
        tokens,
        places,
        channels,
        precision="ieee" if exact else "tf32",
        block=BLOCK,
    )
    return sims_AV, index_AVT


def gradients(
    image_VKPC: Tensor, audio_AKTC: Tensor, weight_AT: Tensor, index_AVT: Tensor, grad_AV: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients of image and audio features from that of the similarities [A, V]."""
    clips, heads, tokens, channels = audio_AKTC.shape
    images, _, places, _ = image_VKPC.shape
    grad_image_VKPC = torch.zeros_like(image_VKPC)
    grad_audio_AKTC = torch.zeros_like(audio_AKTC)
    sizes = heads, tokens, places, channels
    found = weight_AT, index_AVT, grad_AV.contiguous()
    _image_backward[(clips, images)](audio_AKTC, *found, grad_image_VKPC, *sizes, block=BLOCK)
    wide = triton.next_power_of_2(channels)
    _audio_backward[(clips, tokens)](image_VKPC, *found, grad_audio_AKTC, images, *sizes, wide=wide)
    return grad_image_VKPC, grad_audio_AKTC


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _forward(  # type: ignore[no-untyped-def]
    image,
    audio,
    weight,
    sims,
    index,
    heads,
    tokens,
    places,
    channels,
    precision: tl.constexpr,
    block: tl.constexpr,
) -> Any:
    """Compare one clip with one image."""
    a, v = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    images = tl.num_programs(1)
    step = tl.arange(0, block)
    total = tl.zeros((block,), tl.float32)
    for t0 in range(0, tokens, block):
        t = t0 + step
        best = tl.full((block,), float("-inf"), tl.float32)
        where = tl.zeros((block,), tl.int32)
        for k in range(heads):
            audio_TC = audio + ((a * heads + k) * tokens + t[:, None]) * channels
            for p0 in range(0, places, block):
                p = p0 + step
                image_CP = image + ((v * heads + k) * places + p[None, :]) * channels
                sims_TP = tl.zeros((block, block), tl.float32)
                for c0 in range(0, channels, block):
                    c = c0 + step
                    heard = (t < tokens)[:, None] & (c < channels)[None, :]
                    seen = (c < channels)[:, None] & (p < places)[None, :]
                    some_TC = tl.load(audio_TC + c[None, :], mask=heard, other=0.0)
                    some_CP = tl.load(image_CP + c[:, None], mask=seen, other=0.0)
                    sims_TP += tl.dot(some_TC, some_CP, input_precision=precision)
                sims_TP = tl.where((p < places)[None, :], sims_TP, float("-inf"))
                peak, place = tl.max(
                    sims_TP, axis=1, return_indices=True, return_indices_tie_break_left=True
                )
                louder = peak > best
                best = tl.where(louder, peak, best)
                where = tl.where(louder, k * places + p0 + place, where)
        inside = t < tokens
        total += tl.load(weight + a * tokens + t, mask=inside, other=0.0) * tl.where(
            inside, best, 0.0
        )
        tl.store(index + (a * images + v) * tokens + t, where, mask=inside)
    tl.store(sims + a * images + v, tl.sum(total, axis=0))


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _image_backward(  # type: ignore[no-untyped-def]
    audio,
    weight,
    index,
    grad,
    grad_image,
    heads,
    tokens,
    places,
    channels,
    block: tl.constexpr,
) -> Any:
    """Add, of one clip and one image, each token's features to the place that it found."""
    a, v = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    images = tl.num_programs(1)
    step = tl.arange(0, block)
    of_pair = tl.load(grad + a * images + v)
    for t0 in range(0, tokens, block):
        t = t0 + step
        inside = t < tokens
        found = tl.load(index + (a * images + v) * tokens + t, mask=inside, other=0)
        of_token = of_pair * tl.load(weight + a * tokens + t, mask=inside, other=0.0)
        row = (a * heads + found // places) * tokens + t
        for c0 in range(0, channels, block):
            c = c0 + step
            both = inside[:, None] & (c < channels)[None, :]
            features = tl.load(audio + row[:, None] * channels + c[None, :], mask=both, other=0.0)
            into = (v * heads * places + found)[:, None] * channels + c[None, :]
            tl.atomic_add(grad_image + into, of_token[:, None] * features, mask=both)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _audio_backward(  # type: ignore[no-untyped-def]
    image,
    weight,
    index,
    grad,
    grad_audio,
    images,
    heads,
    tokens,
    places,
    channels,
    wide: tl.constexpr,
) -> Any:
    """Add up, for one token of one clip, the features of the places that it found."""
    a, t = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    c = tl.arange(0, wide)
    inside = c < channels
    of_token = tl.load(weight + a * tokens + t)
    for k in range(heads):
        total = tl.zeros((wide,), tl.float32)
        for v in range(images):
            found = tl.load(index + (a * images + v) * tokens + t)
            own = found // places == k
            of_pair = tl.where(own, tl.load(grad + a * images + v), 0.0)
            row = (v * heads * places + found).to(tl.int64)
            total += of_pair * tl.load(image + row * channels + c, mask=inside & own, other=0.0)
        into = ((a * heads + k) * tokens + t) * channels + c
        tl.store(grad_audio + into, of_token * total, mask=inside)
