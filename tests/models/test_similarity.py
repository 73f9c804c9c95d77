import math

import pytest
import torch
from torch import Tensor

from denseav.models.config import Aggregation
from denseav.models.similarity import (
    Calibrator,
    aggregate,
    all_volumes,
    similarity_slice,
    volume,
)

MASK_BT = torch.tensor([[True, True, False], [True, False, False]])


def features() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, 2, 5, 3, 4), torch.randn(2, 2, 5, 3)


def test_volume_is_the_inner_product_at_every_place_and_token() -> None:
    image, audio = features()
    sims = volume(image, audio)
    assert sims.shape == (2, 2, 3, 3, 4)
    by_hand = sum(image[1, 0, c, 2, 3] * audio[1, 0, c, 1] for c in range(5))
    torch.testing.assert_close(sims[1, 0, 1, 2, 3], by_hand)


def test_all_volumes_hold_the_pairs_on_their_diagonal() -> None:
    image, audio = features()
    crossed = all_volumes(image, audio)
    assert crossed.shape == (2, 2, 2, 3, 3, 4)
    torch.testing.assert_close(torch.stack([crossed[0, 0], crossed[1, 1]]), volume(image, audio))
    torch.testing.assert_close(crossed[0, 1], volume(image[1:], audio[:1])[0])


def test_one_clip_serves_all_frames() -> None:
    image, audio = features()
    expected = torch.cat([volume(image[:1], audio[:1]), volume(image[1:], audio[:1])])
    torch.testing.assert_close(volume(image, audio[:1]), expected)


def test_slice_is_the_volume_at_a_token_and_linear() -> None:
    image, audio = features()
    sims = volume(image, audio)
    torch.testing.assert_close(similarity_slice(image, audio[..., 2]), sims[:, :, 2])
    torch.testing.assert_close(similarity_slice(image[0], audio[0, ..., 2]), sims[0, :, 2])
    mean = similarity_slice(image, audio[..., 1:].mean(dim=-1))
    torch.testing.assert_close(mean, sims[:, :, 1:].mean(dim=2))


def test_half_features_give_float32_similarities() -> None:
    image, audio = features()
    assert volume(image.half(), audio.half()).dtype == torch.float32
    assert similarity_slice(image.half(), audio[..., 0].half()).dtype == torch.float32


def test_masked_tokens_do_not_count() -> None:
    image, audio = features()
    loud = audio.clone()
    loud[~MASK_BT[:, None, None, :].expand_as(audio)] = 1e3
    for clips in ("misa", "mima", "sisa", "paired"):
        aggregation = Aggregation(clips=clips)  # type: ignore[arg-type]
        quiet_B = aggregate(volume(image, audio), MASK_BT, aggregation, join_heads=True)
        loud_B = aggregate(volume(image, loud), MASK_BT, aggregation, join_heads=True)
        torch.testing.assert_close(loud_B, quiet_B)
        heard_B = aggregate(volume(image, loud), None, aggregation, join_heads=True)
        assert (heard_B - quiet_B).abs().min() > 1


def test_misa_by_hand() -> None:
    sims = volume(*features())
    peak_BKT = sims.flatten(3).max(dim=-1).values
    expected = torch.stack([peak_BKT[0, :, :2].mean(dim=-1), peak_BKT[1, :, 0]])
    found = aggregate(sims, MASK_BT, Aggregation(), join_heads=False)
    torch.testing.assert_close(found, expected)


def test_a_silent_clip_has_no_similarity_and_no_nan() -> None:
    silent = aggregate(
        volume(*features()), torch.zeros(2, 3, dtype=torch.bool), Aggregation(), join_heads=True
    )
    assert silent.tolist() == [0, 0]


@pytest.mark.parametrize(("log_scale", "scale"), [(0.5, math.exp(0.5)), (9.0, 100), (-9.0, 0.01)])
def test_calibrator_scales_within_limits(log_scale: float, scale: float) -> None:
    centred, biased = Calibrator(bias=False), Calibrator(bias=True)
    assert biased.bias is not None
    centred.log_scale.data.fill_(log_scale)
    biased.log_scale.data.fill_(log_scale)
    biased.bias.data.fill_(3.0)
    sims = torch.tensor([1.0, 2.0, 6.0])
    torch.testing.assert_close(centred(sims), scale * (sims - 3))
    torch.testing.assert_close(biased(sims), scale * sims + 3)
