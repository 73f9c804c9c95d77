"""Every loss term and its gradient against the numbers recorded from the released code."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from denseav.models.config import Aggregation
from denseav.models.similarity import aggregate, all_volumes
from denseav.train.loss import regularizers
from denseav.train.loss.denseav_loss import Weights
from denseav.train.loss.info_nce import info_nce
from denseav.train.loss.pooling import AUDIBLE, token_mask
from denseav.train.loss.regularizers import PLACES, Pairs, Places

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "losses.npz")
RECORDED = {
    "contrast": "nce",
    "disentanglement": "specialize",
    "splice": "neg_audio",
    "calibration": "cal_balance",
    "nonnegativity": "nonneg",
    "total_variation": "tv",
    "silence_l1": "silence_l1",
    "silence_l2": "silence_l2",
    "image_mixup": "image_mixup",
    "wrong_head": "disentangle",
}
SCALE = torch.tensor([0.5])
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def golden(name: str) -> Tensor:
    return torch.from_numpy(GOLDEN[name])


def recorded_weights(heads: int) -> Weights:
    return Weights(silence_l2=0.02, wrong_head=0.3 if heads > 1 else 0.0)


def recorded_pairs(heads: int) -> tuple[Tensor, Tensor, Pairs]:
    image = golden("in_image_feats").requires_grad_()
    audio = golden("in_audio_feats").requires_grad_()
    batch, _, height, width = image.shape
    pairs = Pairs(
        image_VKCHW=image.reshape(batch, heads, -1, height, width),
        audio_AKCT=audio.reshape(batch, heads, -1, audio.shape[-1]),
        mask_AT=golden("in_audio_mask"),
        positive_AT=golden("in_audio_pos_mask"),
        image_mask_A1HW=golden("in_image_masks"),
    )
    return image, audio, pairs


def recorded_places() -> Places:
    clip, token, _, row, column = golden("nonneg_idx")
    return Places(clip=clip, token=token, row=row, column=column, silent=golden("silence_perm"))


def all_terms(pairs: Pairs, weights: Weights) -> dict[str, Tensor]:
    volumes = all_volumes(pairs.image_VKCHW, pairs.audio_AKCT)
    sims = aggregate(volumes, pairs.mask_AT, Aggregation(), join_heads=True)
    terms = regularizers.regularizers(
        pairs, SCALE, recorded_places(), golden("in_source"), vars(weights)
    )
    return {"contrast": info_nce(sims * SCALE, pairs.own)} | terms


@pytest.mark.parametrize("heads", [1, 2])
def test_terms_are_the_recorded_ones(heads: int) -> None:
    _, _, pairs = recorded_pairs(heads)
    terms = all_terms(pairs, recorded_weights(heads))
    compared = 0
    for ours, theirs in RECORDED.items():
        if f"h{heads}/loss/{theirs}" in GOLDEN:
            torch.testing.assert_close(
                terms[ours].item(), GOLDEN[f"h{heads}/loss/{theirs}"].item(), **CLOSE
            )
            compared += 1
    assert compared == (10 if heads == 2 else 8)


@pytest.mark.parametrize("heads", [1, 2])
def test_total_and_its_gradient_are_the_recorded_ones(heads: int) -> None:
    image, audio, pairs = recorded_pairs(heads)
    weights = recorded_weights(heads)
    total = weights.total(all_terms(pairs, weights))
    total.backward()
    torch.testing.assert_close(total.item(), GOLDEN[f"h{heads}/loss/total"].item(), **CLOSE)
    for ours, name in ((image.grad, "grad_image"), (audio.grad, "grad_audio")):
        theirs = golden(f"h{heads}/{name}")
        assert ours is not None
        assert (ours - theirs).norm() < 1e-5 * theirs.norm()


def test_weight_zero_leaves_a_term_out() -> None:
    _, _, pairs = recorded_pairs(2)
    terms = all_terms(pairs, Weights(total_variation=0.0))
    assert "total_variation" not in terms
    assert "wrong_head" not in terms
    assert "splice" in terms


def test_shares_of_two_processes_add_up_to_the_loss() -> None:
    _, _, pairs = recorded_pairs(2)
    whole = all_terms(pairs, recorded_weights(2))
    sims = torch.randn(10, 10, generator=torch.Generator().manual_seed(0))
    contrast = info_nce(sims, slice(0, 10))
    sums = dict.fromkeys(whole, 0.0) | {"contrast": 0.0}
    for first in (0, 5):
        part = Pairs(**{**vars(pairs), "image_VKCHW": pairs.image_VKCHW[first : first + 5]})
        part = Pairs(**{**vars(part), "first": first})
        terms = regularizers.regularizers(
            part,
            SCALE,
            recorded_places(),
            golden("in_source")[part.own],
            vars(recorded_weights(2)),
        )
        sums["contrast"] += info_nce(sims, part.own).item()
        for name, term in terms.items():
            sums[name] += term.item()
    for name, value in sums.items():
        expected = contrast if name == "contrast" else whole[name]
        assert value == pytest.approx(expected.item(), rel=1e-5), name


def test_info_nce_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    rows = -torch.log_softmax(logits, 1).diag().mean()
    columns = -torch.log_softmax(logits, 0).diag().mean()
    found = info_nce(logits, slice(0, 2))
    torch.testing.assert_close(found, (rows + columns) / 2)


def test_further_images_are_only_negatives() -> None:
    logits = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    wide = torch.cat((logits, torch.full((2, 2), 1.5)), dim=1)
    rows = functional.cross_entropy(wide, torch.arange(2))
    columns = functional.cross_entropy(logits.T, torch.arange(2))
    torch.testing.assert_close(info_nce(wide, slice(0, 2)), (rows + columns) / 2)


def test_three_heads_average_over_their_pairs() -> None:
    volume = torch.randn(2, 3, 4, 5, 6)
    one, two, three = volume.abs().unbind(1)
    expected = ((one * two).mean() + (one * three).mean() + (two * three).mean()) / 3
    torch.testing.assert_close(regularizers.disentanglement(volume), expected)


def test_calibration_pushes_only_from_below_one() -> None:
    assert regularizers.calibration(torch.tensor([1.5])) == 0
    assert regularizers.calibration(torch.tensor([1.0])) == 0
    low = regularizers.calibration(torch.tensor([0.5]))
    assert low.item() == pytest.approx(math.log(2) ** 2)


def test_unknown_kinds_have_no_wrong_head() -> None:
    volume = torch.ones(2, 2, 3, 1, 1)
    assert regularizers.wrong_head(volume, torch.tensor([-1, -1])) == 0
    assert regularizers.wrong_head(volume, torch.tensor([0, 1])) == 1


def test_places_are_in_range_and_repeatable() -> None:
    _, _, pairs = recorded_pairs(2)
    one = Places.draw(pairs, torch.Generator().manual_seed(3))
    two = Places.draw(pairs, torch.Generator().manual_seed(3))
    for name, value in vars(one).items():
        assert torch.equal(value, vars(two)[name]), name
    limits = {"clip": 10, "token": 56, "row": 5, "column": 6}
    for name, limit in limits.items():
        assert vars(one)[name].min() >= 0
        assert vars(one)[name].max() == limit - 1
    assert len(one.silent) == len(one.silent.unique()) == PLACES


def test_too_little_silence_gives_no_silence_term() -> None:
    _, _, pairs = recorded_pairs(2)
    loud = Pairs(**{**vars(pairs), "mask_AT": torch.ones_like(pairs.mask_AT)})
    places = Places.draw(loud, torch.Generator())
    assert len(places.silent) == 0
    assert regularizers.silence(loud, places) == (0, 0)


def test_masks_at_tokens_are_the_recorded_ones() -> None:
    samples = torch.zeros(2, 164_200)
    for row, (start, stop) in zip(samples, golden("mask/in").tolist(), strict=True):
        row[start:stop] = 1
    soft = token_mask(samples, 56)
    torch.testing.assert_close(soft, golden("mask/soft"), **CLOSE)
    assert torch.equal(soft > AUDIBLE, golden("mask/bool"))
