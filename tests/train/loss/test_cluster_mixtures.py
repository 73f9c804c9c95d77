"""Clips of two clusters at once: which are mixed, when each is loud, and which head finds which."""

import dataclasses

import torch

from denseav.models.config import Aggregation
from denseav.models.similarity import aggregate, all_volumes
from denseav.train.loss.cluster_mixtures import Assigned, mix
from denseav.train.loss.denseav_loss import Weights, denseav_terms
from denseav.train.loss.info_nce import info_nce
from denseav.train.loss.pooling import AUDIBLE, token_mask
from tests.support.train.parts import batch, learner

HEADS = ("first", "second")
HEAD_B = torch.tensor([0, 1, 1, 0, 1, 0, 1])


def test_each_mixture_has_both_clusters_and_both_are_equally_loud_at_once() -> None:
    clips = batch(len(HEAD_B))
    samples = clips.wave_BS.shape[1]
    wave_BS = torch.zeros_like(clips.wave_BS)
    for clip, start in enumerate((0, 400, 900, 100, 0, 1200, 300)):
        wave_BS[clip, start : start + 50] = clip + 1
    mask_BS = (wave_BS > 0).float()
    masks = {"audio_mask_BS": mask_BS, "positive_mask_BS": mask_BS}
    found = mix(dataclasses.replace(clips, wave_BS=wave_BS, **masks), HEAD_B)
    first_M, second_M = found.clips_2M
    assert HEAD_B[first_M].tolist() == [0, 0, 0]
    assert HEAD_B[second_M].tolist() == [1, 1, 1]
    assert len({*first_M.tolist(), *second_M.tolist()}) == 6
    assert found.wave_MS.shape == found.mask_MS.shape == (3, samples)
    for wave_S, mask_S, one in zip(found.wave_MS, found.mask_MS, first_M, strict=True):
        loud_S = wave_BS[one] > 0
        assert set(wave_S[loud_S].tolist()) == {2 * float(one + 1)}
        assert not wave_S[~loud_S].any()
        assert torch.equal(mask_S > 0, loud_S)


def test_the_head_of_a_clips_cluster_finds_its_picture_among_those_of_both_halves() -> None:
    clips, made = batch(6), learner()
    head_B = torch.tensor([1, 0, 0, 1, 1, 0])
    terms = denseav_terms(
        made, clips, HEADS, Weights(), torch.Generator(), Assigned(head_B, alone=False)
    )
    mixed = mix(clips, head_B)
    whole = made(clips.image_B3HW, mixed.wave_MS, mixed.mask_MS)
    heard = token_mask(mixed.mask_MS, whole.audio_bKCT.shape[-1]) > AUDIBLE
    expected = []
    for clip_M, other_M in (mixed.clips_2M, mixed.clips_2M[::-1]):
        head, shown_V = int(head_B[clip_M[0]]), torch.cat((clip_M, other_M))
        volumes = all_volumes(
            whole.image_VKCHW[shown_V][:, head, None], whole.audio_bKCT[:, head, None]
        )
        sims_MV = aggregate(volumes, heard, Aggregation(), join_heads=True)
        expected.append(info_nce(sims_MV * whole.scale, slice(0, 3)))
    torch.testing.assert_close(terms["separation"], torch.stack(expected).mean())
    plain = denseav_terms(made, clips, HEADS, Weights(), torch.Generator())
    torch.testing.assert_close(terms["contrast"], plain["contrast"])
    assert terms.keys() - plain.keys() == {"separation"}
