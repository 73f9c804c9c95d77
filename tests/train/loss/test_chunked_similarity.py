"""Chunked aggregation against the plain one, in values, gradients and size."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from denseav.models.config import Aggregation
from denseav.models.similarity import aggregate, all_volumes
from denseav.train.loss import chunked_similarity as chunked
from denseav.train.loss.chunked_similarity import dense_similarity, gated_similarity

CLIPS, IMAGES, HEADS, CHANNELS, TOKENS = 5, 4, 3, 6, 7


def features(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(IMAGES, HEADS, CHANNELS, 3, 5, generator=generator, dtype=dtype)
    audio = torch.randn(CLIPS, HEADS, CHANNELS, TOKENS, generator=generator, dtype=dtype)
    mask = torch.rand(CLIPS, TOKENS, generator=generator) > 0.3
    mask[1] = False
    return image.requires_grad_(), audio.requires_grad_(), mask


def plain(image: Tensor, audio: Tensor, mask: Tensor, head: int | None) -> Tensor:
    volumes = all_volumes(image, audio)
    if head is None:
        return aggregate(volumes, mask, Aggregation(), join_heads=True)
    return aggregate(volumes, mask, Aggregation(), join_heads=False)[..., head]


@pytest.mark.parametrize("head", [None, 0, 2])
@pytest.mark.parametrize("chunk_bytes", [1, 700, 2**20])
def test_values_and_gradients_are_the_plain_ones(
    monkeypatch: pytest.MonkeyPatch, head: int | None, chunk_bytes: int
) -> None:
    monkeypatch.setattr(chunked, "CHUNK_BYTES", chunk_bytes)
    weight = torch.randn(CLIPS, IMAGES)
    results = []
    for make in (plain, lambda i, a, m, h: dense_similarity(i, a, m, head=h)):
        image, audio, mask = features()
        sims = make(image, audio, mask, head)
        (sims * weight).sum().backward()
        results.append((sims, image.grad, audio.grad))
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_soft_masks_weigh_tokens() -> None:
    image, audio, mask = features()
    soft = mask * torch.rand(CLIPS, TOKENS)
    torch.testing.assert_close(
        dense_similarity(image, audio, soft), plain(image, audio, soft, None)
    )


def test_half_features_are_summed_in_float32() -> None:
    image, audio, mask = features(torch.bfloat16)
    sims = dense_similarity(image, audio, mask)
    assert sims.dtype == torch.float32
    sims.sum().backward()
    assert image.grad is not None
    assert image.grad.dtype == torch.bfloat16
    torch.testing.assert_close(sims, plain(image, audio, mask, None))


def test_a_tie_goes_to_the_first() -> None:
    image = torch.ones(1, 2, 1, 2, 2, requires_grad=True)
    audio = torch.ones(1, 2, 1, 1, requires_grad=True)
    dense_similarity(image, audio, torch.ones(1, 1)).backward()
    assert image.grad is not None
    assert image.grad.flatten().tolist() == [1, 0, 0, 0, 0, 0, 0, 0]


class Largest(TorchDispatchMode):
    """Watches how many bytes the largest tensor has that any operation makes."""

    size = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, Tensor):
                self.size = max(self.size, tensor.untyped_storage().nbytes())
        return made


def test_nothing_near_a_volume_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked, "CHUNK_BYTES", 2**16)
    image = torch.randn(24, 2, 4, 14, 14, requires_grad=True)
    audio = torch.randn(24, 2, 4, 20, requires_grad=True)
    mask = torch.ones(24, 20)
    volume_bytes = 24 * 24 * 2 * 14 * 14 * 20 * 4
    with Largest() as largest:
        dense_similarity(image, audio, mask).sum().backward()
    assert largest.size <= max(2**16, image.numel() * 4) < volume_bytes / 50
    with Largest() as oracle:
        plain(image, audio, mask, None).sum().backward()
    assert oracle.size >= volume_bytes


@pytest.mark.parametrize("head_A", [(0, 2, 2, 0, 1), (1, 1, 1, 1, 1), (2, 0, 2, 0, 2)])
def test_gated_clips_are_compared_in_their_head_alone(head_A: tuple[int, ...]) -> None:
    """Values and gradients are those of a plain loop over clips, one at a time."""
    weight = torch.randn(CLIPS, IMAGES)
    found, expected = features(), features()
    gated = gated_similarity(*found, torch.tensor(head_A))
    rows = [
        plain(expected[0], expected[1][clip, None], expected[2][clip, None], head)
        for clip, head in enumerate(head_A)
    ]
    looped = torch.cat(rows)
    torch.testing.assert_close(gated, looped)
    for sims in (gated, looped):
        (sims * weight).sum().backward()
    for ours, theirs in zip(found[:2], expected[:2], strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    unused = set(range(HEADS)) - set(head_A)
    assert all(not found[0].grad[:, head].any() for head in unused)
