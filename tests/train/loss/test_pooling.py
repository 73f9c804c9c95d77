"""Pooling to one vector a clip, for the ablations."""

import pytest
import torch

from denseav.models.similarity import all_volumes
from denseav.train.loss.chunked_similarity import dense_similarity
from denseav.train.loss.denseav_loss import Weights, denseav_terms
from denseav.train.loss.pooling import SimPool, average, cls, summed
from tests.support.train.parts import NETWORK, batch, learner


def features() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.tensor([[1.0, 1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0]])
    return torch.randn(2, 2, 3, 4, generator=generator), weight


def test_average_pooling_is_the_mean_of_the_volume() -> None:
    image, audio = torch.randn(3, 2, 4, 2, 5), torch.randn(2, 2, 4, 6)
    mask = (torch.rand(2, 6) > 0.4).float()
    mask[:, 0] = 1
    places = image.flatten(3)
    vectors = average(places, torch.ones(3, 10)), average(audio, mask)
    volume = all_volumes(image, audio).sum(2).mean((-2, -1))
    expected = (volume * mask[:, None]).sum(-1) / mask.sum(-1)[:, None]
    torch.testing.assert_close(vectors[1] @ vectors[0].T, expected)


def test_the_maximum_of_the_heads_sum() -> None:
    image, audio = torch.randn(3, 2, 4, 2, 5), torch.randn(2, 2, 4, 6)
    mask = torch.rand(2, 6) > 0.4
    mask[:, 0] = True
    found = dense_similarity(summed(image), summed(audio), mask)
    peaks = all_volumes(image, audio).sum(2).amax((-2, -1))
    expected = (peaks * mask[:, None]).sum(-1) / mask.sum(-1)[:, None]
    torch.testing.assert_close(found, expected)


def test_cls_is_the_latter_half() -> None:
    local, token = torch.randn(2, 2, 3, 4), torch.randn(2, 2, 3)
    joined = torch.cat((local, token[..., None].expand(-1, -1, -1, 4)), dim=2)
    assert torch.equal(cls(joined), token.flatten(1))


def test_simpool_without_attention_is_the_power_mean() -> None:
    values, weight = features()
    pool = SimPool(6)
    torch.nn.init.zeros_(pool.query.weight)
    lowest = values.amin((1, 2, 3), keepdim=True)
    powers = (values - lowest).clamp_min(1e-6) ** SimPool.GAMMA
    expected = average(powers, weight) ** (1 / SimPool.GAMMA)
    torch.testing.assert_close(pool(values, weight), expected)


def test_simpool_attends_to_what_is_like_the_average() -> None:
    values = torch.zeros(1, 1, 2, 3)
    values[0, 0, :, 0], values[0, 0, :, 1], values[0, 0, :, 2] = (
        torch.tensor(pair) for pair in ([4.0, 0.0], [3.9, 0.1], [0.0, 4.0])
    )
    pool = SimPool(2)
    for layer in (pool.query, pool.key):
        torch.nn.init.eye_(layer.weight)
    pooled = pool(values, torch.ones(1, 3))[0]
    plain = average(values, torch.ones(1, 3))[0]
    assert pooled[0] / pooled[1] > 2 * plain[0] / plain[1]


def test_simpool_is_deaf_where_there_is_no_sound() -> None:
    values, weight = features()
    pool = SimPool(6)
    loud = values.clone()
    loud[0, :, :, 2] = 0.5  # within the range of the others, so that the lowest stays
    torch.testing.assert_close(pool(loud, weight)[0], pool(values, weight)[0])
    assert pool(values, torch.zeros(2, 4)).isfinite().all()


@pytest.mark.parametrize("pooling", ["dense", "dense_sum", "average", "simpool"])
def test_the_contrast_reaches_all_that_should_learn(pooling: str) -> None:
    made = learner(pooling=pooling)  # type: ignore[arg-type]
    terms = denseav_terms(made, batch(4), NETWORK.heads, Weights(), torch.Generator())
    terms["contrast"].backward()
    for part in (made.model.image_encoder, made.model.audio_aligner, made.pool or made.model):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
