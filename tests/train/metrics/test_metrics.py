"""Each metric against numbers recorded from the released evaluation, and against small sums."""

import itertools
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from denseav.models.config import Aggregation
from denseav.models.similarity import aggregate, volume
from denseav.train.eval.model import token_mask
from denseav.train.metrics import localization, negative_audio, retrieval, segmentation
from denseav.train.metrics.bootstrap import interval
from denseav.train.metrics.disentanglement import (
    activation_disentanglement,
    explained_share,
    prediction_disentanglement,
)

WINDOW_S = 164_200 / 16_000


@cache
def golden() -> dict[str, NDArray[Any]]:
    with np.load(Path(__file__).parents[2] / "golden" / "eval.npz") as file:
        return dict(file)


def golden_volume() -> Tensor:
    image = torch.from_numpy(golden()["eval_seg/in_image_feats"]).reshape(12, 2, 16, 7, 7)
    audio = torch.from_numpy(golden()["eval_seg/in_audio_feats"]).reshape(12, 2, 16, 14)
    return volume(image, audio)


def golden_scores(mask_BT: Tensor) -> segmentation.ClassScores:
    heat = segmentation.time_mean(golden_volume().amax(dim=1), mask_BT)
    labels, classes = golden()["eval_seg/in_semseg"], golden()["eval_seg/class"]
    truth = torch.from_numpy(labels == classes[:, None, None])
    return segmentation.score_classes(
        heat[None], [str(c) for c in classes], lambda items: truth[list(items)]
    )


def test_segmentation_over_the_whole_clip_is_the_released_one() -> None:
    scores = golden_scores(torch.from_numpy(golden()["eval_seg/in_audio_mask"]))
    assert scores.classes == ("1", "2", "3")
    np.testing.assert_allclose(scores.ap_VC[0], golden()["eval_seg/basic_ap"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(scores.iou_VC[0], golden()["eval_seg/basic_iou"], atol=1e-5, rtol=0)


def test_segmentation_over_the_spoken_word_is_the_released_one() -> None:
    spans = [json.loads(span) for span in golden()["eval_seg/timing"]]
    words = [segmentation.word_tokens(span, WINDOW_S, 14) for span in spans]
    assert not any(cut for _, cut in words)
    scores = golden_scores(torch.stack([mask for mask, _ in words]))
    expected = golden()["eval_seg/advanced_ap"], golden()["eval_seg/advanced_iou"]
    np.testing.assert_allclose(scores.ap_VC[0], expected[0], atol=1e-5, rtol=0)
    np.testing.assert_allclose(scores.iou_VC[0], expected[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("span_s", "tokens", "cut"),
    [
        ((1.0, 1.4), range(2), False),  # with the margin 0.8 to 1.6 s
        ((0.1, 0.9), range(2), True),
        ((9.0, 9.9), range(8, 10), True),
        ((30.0, 31.0), range(9, 10), True),
    ],
)
def test_a_word_takes_every_token_it_touches_and_at_least_one(
    span_s: tuple[float, float], tokens: range, cut: bool
) -> None:
    mask, was_cut = segmentation.word_tokens(span_s, 10.0, 10)
    assert mask.nonzero().flatten().tolist() == list(tokens)
    assert was_cut is cut


def test_a_perfect_map_scores_one_and_an_inverted_one_only_its_area() -> None:
    truth = torch.zeros(1, 8, 8, dtype=torch.bool)
    truth[0, :, :2] = True
    heat = torch.stack([truth.float(), 1 - truth.float()])
    scores = segmentation.score_classes(heat, ["left"], lambda _: truth)
    assert scores.ap_VC[:, 0].tolist() == pytest.approx([1.0, 0.25])
    assert scores.iou_VC[:, 0].tolist() == pytest.approx([1.0, 0.0])


def test_a_class_that_the_crop_left_out_scores_zero() -> None:
    nothing = torch.zeros(1, 4, 4, dtype=torch.bool)
    scores = segmentation.score_classes(torch.rand(1, 1, 4, 4), ["gone"], lambda _: nothing)
    assert scores.ap_VC.tolist() == scores.iou_VC.tolist() == [[0.0]]


def test_scores_do_not_depend_on_the_scale_of_the_maps() -> None:
    torch.manual_seed(0)
    heat, truth = torch.randn(1, 3, 4, 4), torch.rand(3, 8, 8) > 0.5
    names = ["a", "b", "a"]
    plain = segmentation.score_classes(heat, names, lambda items: truth[list(items)])
    scaled = segmentation.score_classes(1000 * heat - 700, names, lambda items: truth[list(items)])
    np.testing.assert_allclose(scaled.ap_VC, plain.ap_VC, atol=1e-4)
    np.testing.assert_allclose(scaled.iou_VC, plain.iou_VC, atol=1e-2)


@pytest.mark.parametrize("k", retrieval.RANKS)
def test_retrieval_is_the_released_one(k: int) -> None:
    found = retrieval.hits(torch.from_numpy(golden()["eval_ret/sim"]), k)
    assert found.image_to_audio_N.mean() == pytest.approx(float(golden()[f"eval_ret/A_r{k}"]))
    assert found.audio_to_image_N.mean() == pytest.approx(float(golden()[f"eval_ret/I_r{k}"]))


def test_retrieval_by_hand_asks_in_both_directions() -> None:
    sims_AV = torch.tensor([[0.9, 0.8, 0.1], [0.95, 0.2, 0.7], [0.3, 0.1, 0.6]])
    first = retrieval.hits(sims_AV, 1)
    assert first.audio_to_image_N.tolist() == [True, False, True]
    assert first.image_to_audio_N.tolist() == [False, False, False]
    assert retrieval.hits(sims_AV, 2).image_to_audio_N.tolist() == [True, True, True]


def test_more_ranks_than_candidates_find_everything() -> None:
    found = retrieval.hits(torch.randn(3, 3), 10)
    assert found.audio_to_image_N.all()
    assert found.image_to_audio_N.all()


def test_disentanglement_is_the_released_one() -> None:
    mask = torch.from_numpy(golden()["eval_seg/in_audio_mask"])
    scores = aggregate(golden_volume(), mask, Aggregation(), join_heads=False)
    predicted = prediction_disentanglement(scores[:6], scores[6:])
    active = activation_disentanglement(scores[:6], scores[6:])
    assert predicted == pytest.approx(float(golden()["eval_dis/hp/ap_dis"]), abs=1e-6)
    assert active == pytest.approx(float(golden()["eval_dis/hp/act_dis"]), abs=1e-6)


@pytest.mark.parametrize("first", [0, 1])
def test_heads_that_split_the_kinds_are_disentangled_whichever_is_which(first: int) -> None:
    speech = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).roll(first, dims=1)
    sound = torch.tensor([[0.0, 1.0]]).roll(first, dims=1)
    assert prediction_disentanglement(speech, sound) == 1
    assert activation_disentanglement(speech, sound) == 1
    assert prediction_disentanglement(torch.ones(2, 2), torch.ones(3, 2)) == pytest.approx(0.5)


def test_head_choice_is_explained_by_what_it_follows() -> None:
    kinds, names = ["sound"] * 6 + ["speech"] * 6, ["bell", "dog", "bird"] * 4
    lead = torch.tensor([[1.0, 0, 0]]).expand(6, 3)
    by_kind = torch.cat((lead, lead.roll(1, dims=1))) + torch.arange(12.0)[:, None]
    assert explained_share(by_kind, kinds) == pytest.approx(1)
    assert explained_share(by_kind, names) == pytest.approx(0)
    assert explained_share(torch.ones(12, 2), kinds) == 0


def test_explained_shares_are_those_of_an_analysis_of_variance() -> None:
    sims_N2 = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    groups = [f"{number % 3}" for number in range(40)]
    lead_N = (sims_N2[:, 0] - sims_N2[:, 1]).numpy()
    of_groups = [lead_N[first::3] for first in range(3)]
    within = sum(((one - one.mean()) ** 2).sum() for one in of_groups)
    expected = 1 - within / ((lead_N - lead_N.mean()) ** 2).sum()
    assert explained_share(sims_N2, groups) == pytest.approx(expected, rel=1e-5)


def test_head_choice_needs_two_heads_and_groups() -> None:
    for sims_NK, groups in ((torch.ones(2, 1), ["a", "b"]), (torch.ones(2, 2), ["a"])):
        with pytest.raises(ValueError, match="two heads"):
            explained_share(sims_NK, groups)


def test_disentanglement_needs_two_heads_and_both_kinds() -> None:
    with pytest.raises(ValueError, match="two heads"):
        prediction_disentanglement(torch.ones(2, 3), torch.ones(2, 3))
    with pytest.raises(ValueError, match="both speech and sound"):
        activation_disentanglement(torch.ones(2, 2), torch.ones(0, 2))


def test_boxes_are_filled_to_the_pixel_and_cut_at_the_edge() -> None:
    mask = localization.boxes_mask([(0.5, 0.0, 2.0, 0.26), (0.0, 1.0, 1.0, 1.0)], (8, 4))
    assert mask.nonzero()[0].tolist() == [0, 0, 1, 1]
    assert mask.nonzero()[1].tolist() == [2, 3, 2, 3]


def test_ciou_by_hand() -> None:
    found = np.array([[True, True, False, False]])
    truth = np.array([[False, True, True, False]])
    assert localization.ciou(found, truth) == pytest.approx(1 / 3)
    nothing = np.zeros_like(truth)
    assert localization.ciou(found, nothing) == 0
    assert localization.ciou(nothing, nothing) == 0


def test_thresholds_are_the_median_and_the_size_of_the_truth() -> None:
    heat = np.arange(16, dtype=np.float32).reshape(4, 4)
    truth = np.zeros((4, 4), dtype=np.bool_)
    truth[3, 1:] = True
    assert localization.above_median(heat).sum() == 7  # value 8, the upper median, is outside
    assert np.array_equal(localization.as_large_as(heat, truth), truth)
    assert localization.as_large_as(heat, np.zeros_like(truth)).sum() == 8


def test_auc_and_share_by_hand() -> None:
    ciou = np.array([0.5, 0.49, 1.0, 0.0])
    assert localization.passed(ciou) == 0.5
    # At 0 all pass, up to .45 three, at .5 two, then one.
    shares = [1.0] + [0.75] * 9 + [0.5] + [0.25] * 10
    expected = sum((a + b) / 2 * 0.05 for a, b in itertools.pairwise(shares))
    assert localization.area_under_curve(ciou) == pytest.approx(expected)


def test_a_scene_is_as_good_as_its_worst_object() -> None:
    worst = localization.worst_of_scene(np.array([0.9, 0.2, 0.8]), ["a", "b", "a"])
    assert worst.tolist() == [0.8, 0.2]


def flat(*levels: float) -> NDArray[np.float32]:
    return np.stack([np.full((2, 2), level, np.float32) for level in levels])


def test_a_box_that_was_given_in_pixels_is_met_to_the_pixel() -> None:
    for edge in range(225):
        mask = localization.boxes_mask([(0, 0, edge / 224, edge / 224)], (224, 224))
        assert mask.sum() == edge**2
        assert mask[:edge, :edge].all()
        rest = localization.boxes_mask([(edge / 224, 0, 1, 1)], (224, 224))
        assert rest.sum() == 224 * (224 - edge)
    assert localization.boxes_mask([(0, 0, 0.9, 0.9)], (5, 5)).sum() == 16


def test_negative_audio_by_hand() -> None:
    positive = flat(9.0)
    positive[0, :, 1] = 0.0
    truth = np.zeros((2, 2), dtype=np.bool_)
    truth[:, 0] = True
    negatives = {"silence": flat(0.0, 0.0), "noise": flat(1.0, 5.0)}
    scores = negative_audio.score_negatives(positive, negatives, [truth])
    assert scores.threshold == pytest.approx(2.0)  # third quartile of 0, 0, 1, 5
    assert scores.ciou_N.tolist() == [1.0]
    assert {kind: area.tolist() for kind, area in scores.area.items()} == {
        "silence": [0.0, 0.0],
        "noise": [0.0, 1.0],
    }
    assert scores.f_score == pytest.approx(2 * 0.75 / 1.75)
    assert negative_audio.area_over_curve(scores.area["silence"]) == pytest.approx(1.0)
    assert negative_audio.area_over_curve(scores.area["noise"]) == pytest.approx(
        (19 * 0.5 + 0.75) * 0.05
    )
    assert negative_audio.harmonic(0, 0) == 0


def test_token_masks_are_the_released_ones() -> None:
    for (start, stop), expected in zip(golden()["mask/in"], golden()["mask/bool"], strict=True):
        if start == 0:
            assert token_mask(int(stop), 164_200, 56).tolist() == expected.tolist()


def test_intervals_hold_the_mean_narrow_with_more_items_and_repeat() -> None:
    few = np.random.default_rng(1).random(20)
    many = np.random.default_rng(1).random(2000)
    low, high = interval(lambda drawn: float(few[drawn].mean()), [20])
    assert low < few.mean() < high
    assert interval(lambda drawn: float(few[drawn].mean()), [20]) == (low, high)
    narrow = interval(lambda drawn: float(many[drawn].mean()), [2000])
    assert (high - low) / (narrow[1] - narrow[0]) == pytest.approx(10, rel=0.4)


def test_groups_are_drawn_independently() -> None:
    def product(a: NDArray[np.intp], b: NDArray[np.intp]) -> float:
        return float(a.max() < 3 and b.max() < 5 and len(a) == 3 and len(b) == 5)

    assert interval(product, [3, 5], resamples=20) == (1.0, 1.0)
