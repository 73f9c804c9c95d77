"""Aggregation of all volumes, which are never all there: features in, one number a pair out.

The maximum over heads and places, and the mean over tokens, of every clip with every image, made
in chunks. What stays for the way back is the index of each maximum: memory grows with A V T and
not with A V K T H W. Values and gradients are those of `denseav.models.similarity.aggregate`,
but for ties: there the gradient is shared among equals, here the first has it.

A clips, V images, K heads, C channels, T tokens, P places of the grid, D = K P.
"""

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = 32 * 2**20
"""How much of the volumes, or of gathered features, there is at one time."""


_fused = False


def use_fused(fused: bool) -> None:
    """Let Triton's kernels do it from now on, in this process, or not; they need a GPU."""
    global _fused
    _fused = fused


def dense_similarity(
    image_VKCHW: Tensor, audio_AKCT: Tensor, mask_AT: Tensor, *, head: int | None = None
) -> Tensor:
    """Return the similarity [A, V] of every clip with every image, float32.

    Parameters
    ----------
    image_VKCHW, audio_AKCT
        Features.
    mask_AT
        Which tokens hold sound: bool or weights.
    head
        The one head to listen to; None is the strongest at each place and token.
    """
    if head is not None:
        image_VKCHW, audio_AKCT = image_VKCHW[:, head, None], audio_AKCT[:, head, None]
    weight_AT = mask_AT.float()
    weight_AT = weight_AT / weight_AT.sum(dim=-1, keepdim=True).clamp_min(1e-3)
    image_VKPC = image_VKCHW.float().flatten(3).transpose(2, 3).contiguous()
    audio_AKTC = audio_AKCT.float().transpose(2, 3).contiguous()
    sims_AV: Tensor = _Peaks.apply(image_VKPC, audio_AKTC, weight_AT)
    return sims_AV


def gated_similarity(
    image_VKCHW: Tensor, audio_AKCT: Tensor, mask_AT: Tensor, head_A: Tensor
) -> Tensor:
    """Return the similarity [A, V] of every clip with every image, each clip by one head alone.

    Heads are left out, and not multiplied by zero: one that is silent at 0 would be the strongest
    wherever the others are below.

    Parameters
    ----------
    image_VKCHW, audio_AKCT, mask_AT
        As `dense_similarity` takes them.
    head_A
        The head of each clip, int64.
    """
    rows_of = [(head_A == head).nonzero()[:, 0] for head in range(audio_AKCT.shape[1])]
    sims = [
        dense_similarity(image_VKCHW, audio_AKCT[rows], mask_AT[rows], head=head)
        for head, rows in enumerate(rows_of)
        if len(rows)
    ]
    return torch.cat(sims)[torch.cat(rows_of).argsort()]


class _Peaks(torch.autograd.Function):
    """The weighted mean over tokens of the maximum over heads and places."""

    @staticmethod
    def forward(ctx: Any, image_VKPC: Tensor, audio_AKTC: Tensor, weight_AT: Tensor) -> Tensor:
        clips, tokens = weight_AT.shape
        images, heads, places, _ = image_VKPC.shape
        sims_AV = audio_AKTC.new_empty(clips, images)
        if _fused:
            found: tuple[Tensor, Tensor] = _kernels().peaks(image_VKPC, audio_AKTC, weight_AT)
            sims_AV, index_AVT = found
            ctx.save_for_backward(image_VKPC, audio_AKTC, weight_AT, index_AVT)
            return sims_AV
        kind = torch.int16 if heads * places < 2**15 else torch.int32
        index_AVT = torch.empty(clips, images, tokens, dtype=kind, device=sims_AV.device)
        for some, these in _blocks(clips, images, tokens * places):
            peak_aTv, index_aTv = _peaks(image_VKPC[these], audio_AKTC[some])
            sims_AV[some, these] = torch.einsum("atv,at->av", peak_aTv, weight_AT[some])
            index_AVT[some, these] = index_aTv.transpose(1, 2).to(kind)
        ctx.save_for_backward(image_VKPC, audio_AKTC, weight_AT, index_AVT)
        return sims_AV

    @staticmethod
    def backward(ctx: Any, grad_AV: Tensor) -> tuple[Tensor, Tensor, None]:
        image_VKPC, audio_AKTC, weight_AT, index_AVT = ctx.saved_tensors
        if _fused:
            return *_kernels().gradients(*ctx.saved_tensors, grad_AV), None
        images, heads, places, channels = image_VKPC.shape
        clips, _, tokens, _ = audio_AKTC.shape
        grad_image_xC = torch.zeros_like(image_VKPC).flatten(0, 2)
        grad_audio_xC = torch.zeros_like(audio_AKTC).flatten(0, 2)
        image_xC, audio_xC = image_VKPC.flatten(0, 2), audio_AKTC.flatten(0, 2)
        image_V1 = torch.arange(images, device=grad_AV.device)[:, None] * heads * places
        token_T = torch.arange(tokens, device=grad_AV.device)
        for some, these in _blocks(clips, images, tokens * channels):
            index_avT = index_AVT[some, these].long()
            clip_a = torch.arange(clips, device=grad_AV.device)[some]
            from_image = (index_avT + image_V1[these]).flatten()
            row_avT = clip_a[:, None, None] * heads + index_avT // places
            from_audio = (row_avT * tokens + token_T).flatten()
            grad_x1 = (grad_AV[some, these, None] * weight_AT[some, None]).reshape(-1, 1)
            grad_image_xC.index_add_(0, from_image, audio_xC[from_audio].mul_(grad_x1))
            grad_audio_xC.index_add_(0, from_audio, image_xC[from_image].mul_(grad_x1))
        return grad_image_xC.view_as(image_VKPC), grad_audio_xC.view_as(audio_AKTC), None


def _kernels() -> Any:
    # Triton is on Linux alone, and takes a second to import.
    return import_module("denseav.train.loss.fused_similarity")


def _blocks(clips: int, images: int, floats: int) -> list[tuple[slice, slice]]:
    """Cut all pairs into blocks that hold `floats` numbers for each pair and fit a chunk."""
    pairs = max(1, CHUNK_BYTES // (4 * floats))
    wide = min(images, pairs)
    high = max(1, pairs // wide)
    return [
        (slice(clip, clip + high), slice(image, image + wide))
        for clip in range(0, clips, high)
        for image in range(0, images, wide)
    ]


def _peaks(image_VKPC: Tensor, audio_AKTC: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maximum [A, T, V] over heads and places, and where it is in [0, K P)."""
    images, heads, places, _ = image_VKPC.shape
    clips, _, tokens, _ = audio_AKTC.shape
    best: tuple[Tensor, Tensor] | None = None
    for head in range(heads):
        image_CxVP = image_VKPC[:, head].flatten(0, 1).T
        sims_xVP = audio_AKTC[:, head].flatten(0, 1) @ image_CxVP
        peak_ATV, index_ATV = sims_xVP.view(clips, tokens, images, places).max(dim=-1)
        index_ATV += head * places
        if best is not None:
            louder = peak_ATV > best[0]
            peak_ATV = torch.where(louder, peak_ATV, best[0])
            index_ATV = torch.where(louder, index_ATV, best[1])
        best = peak_ATV, index_ATV
    assert best is not None, "there is at least one head"
    return best
