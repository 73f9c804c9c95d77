"""Batches of the world: the same from the same seed, and continued where they were left."""

import ctypes.util

import numpy as np
import pytest
import torch

from denseav.models.audio_encoder import SAMPLE_RATE_HZ
from denseav.models.image_encoder import IMAGE_MEAN, IMAGE_STD
from denseav.train.data.batch import SOUND, SPEECH, TUNE, UNKNOWN
from denseav.train.errors import SettingsError
from denseav.train.world.clips import HEADS, make_clip
from denseav.train.world.library import library
from denseav.train.world.loader import MARGIN_S, WorldLoader, WorldSettings, stack
from denseav.train.world.scenes import draw

pytestmark = pytest.mark.skipif(
    ctypes.util.find_library("espeak-ng") is None, reason="espeak-ng is not installed"
)
FIELDS = ("image_B3HW", "wave_BS", "audio_mask_BS", "positive_mask_BS", "kind_B")


def settings_of(**changes):
    common = {"batch_size": 3, "single_batches": 1, "validation_clips": 6, "told": True}
    return WorldSettings(**(common | changes))


def loader_of(rank=0, seed=5, mixtures=False, **changes):
    return WorldLoader(
        settings_of(**changes), rank=rank, world_size=2, seed=seed, mixtures=mixtures
    )


def take(loader, count):
    batches = loader.endless()
    return [next(batches) for _ in range(count)]


def same(first, second):
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in FIELDS)


def test_a_batch_has_pictures_waves_masks_and_kinds():
    single, batch = take(loader_of(), 2)
    assert batch.image_B3HW.shape == (3, 3, 96, 96)
    assert single.image_B3HW.shape == (3, 3, 64, 64)
    assert batch.wave_BS.shape == batch.positive_mask_BS.shape == (3, 2 * SAMPLE_RATE_HZ)
    assert batch.wave_BS.dtype == batch.image_B3HW.dtype == torch.float32
    assert bool((batch.audio_mask_BS == 1).all())
    assert bool((batch.image_mask_B1HW == 1).all())
    assert set(batch.kind_B.tolist()) <= {SOUND, SPEECH}
    assert batch.partner is None


def test_the_same_seed_gives_the_same_batches_and_another_others():
    first, again, other = (take(loader_of(seed=seed), 3) for seed in (5, 5, 6))
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert not any(same(a, b) for a, b in zip(first, other, strict=True))
    assert not same(first[1], first[2])


def test_processes_have_different_batches():
    assert not any(
        torch.equal(a.wave_BS, b.wave_BS)
        for a, b in zip(take(loader_of(0), 2), take(loader_of(1), 2), strict=True)
    )


def test_a_loader_continues_with_the_very_next_batch():
    loader = loader_of()
    take(loader, 2)
    state = loader.state_dict()
    expected = take(loader, 2)
    restored = loader_of()
    restored.load_state_dict(state)
    assert state == {"given": 2}
    assert all(same(a, b) for a, b in zip(expected, take(restored, 2), strict=True))


def test_the_first_batches_have_one_thing_in_each_scene(monkeypatch):
    counts = []

    def counting(*arguments, **options):
        clip = make_clip(*arguments, **options)
        counts.append(len(clip.scene.things))
        return clip

    monkeypatch.setattr("denseav.train.world.loader.make_clip", counting)
    take(loader_of(fewest_things=2, single_batches=2), 4)
    assert counts[:6] == [1] * 6
    assert set(counts[6:]) == {2, 3}


def test_mixtures_are_a_sound_and_speech_of_other_clips_and_their_sum():
    for batch in take(loader_of(mixtures=True), 2):
        assert batch.partner is not None
        assert set(batch.kind_B.tolist()) == {SOUND}
        assert set(batch.partner.kind_B.tolist()) == {SPEECH}
        assert torch.equal(batch.mixed_wave_BS, batch.wave_BS + batch.partner.wave_BS)
        assert not torch.equal(batch.image_B3HW, batch.partner.image_B3HW)
        sounding_BS, spoken_BS = batch.positive_mask_BS, batch.partner.positive_mask_BS
        shorter_B = torch.minimum(sounding_BS.sum(1), spoken_BS.sum(1))
        at_once_B = (sounding_BS * spoken_BS).sum(1)
        assert torch.allclose(at_once_B, shorter_B, atol=2 * MARGIN_S * SAMPLE_RATE_HZ)


def test_a_clip_says_its_kind_only_when_it_is_told():
    told, untold = (take(loader_of(told=told), 1)[0] for told in (True, False))
    assert UNKNOWN not in told.kind_B.tolist()
    assert set(untold.kind_B.tolist()) == {UNKNOWN}
    assert torch.equal(told.wave_BS, untold.wave_BS)
    measured = next(iter(loader_of(told=False).held_out()))
    assert UNKNOWN not in measured.kind_B.tolist()


def test_three_kinds_are_in_what_is_learned_from_and_in_what_is_measured(monkeypatch):
    kinds = []

    def noting(random, library, kind, **options):
        kinds.append(kind)
        return make_clip(random, library, kind, **options)

    monkeypatch.setattr("denseav.train.world.loader.make_clip", noting)
    loader = loader_of(kinds=HEADS, told=False, batch_size=8, validation_clips=16)
    take(loader, 1)
    assert set(kinds) == set(HEADS)
    kinds.clear()
    measured = next(iter(loader.held_out()))
    assert set(kinds) == set(HEADS)
    assert set(measured.kind_B.tolist()) == {SOUND, SPEECH, TUNE}


def test_validation_is_always_the_same_and_each_process_has_its_share():
    loader = loader_of()
    first = list(loader.held_out())
    take(loader, 1)
    again = list(loader.held_out())
    assert [len(batch.wave_BS) for batch in first] == [3]
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert not same(first[0], next(iter(loader_of(1).held_out())))


def test_what_counts_is_what_is_heard_with_a_margin():
    parts = library(held_out=False)
    clips = [make_clip(np.random.default_rng(n), parts, "sound", size=(96, 96)) for n in range(2)]
    batch = stack(clips, [draw(clip.scene, parts)[0] for clip in clips], told=True)
    for clip, mask_S in zip(clips, batch.positive_mask_BS, strict=True):
        (event,) = clip.events
        counted = torch.nonzero(mask_S).flatten() / SAMPLE_RATE_HZ
        assert float(counted[0]) == pytest.approx(max(0, event.start_s - MARGIN_S), abs=1e-3)
        assert float(counted[-1]) == pytest.approx(min(2.0, event.stop_s + MARGIN_S), abs=1e-3)
    picture_HW3 = batch.image_B3HW[0].permute(1, 2, 0) * torch.tensor(IMAGE_STD)
    shown = (picture_HW3 + torch.tensor(IMAGE_MEAN)) * 255
    assert np.allclose(shown.numpy(), draw(clips[0].scene, parts)[0], atol=0.01)


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 1}, {"fewest_things": 0}, {"fewest_things": 3, "most_things": 2}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(SettingsError, match="batch_size must be at least 2"):
        WorldSettings(**wrong)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"kinds": ()}, "one kind or more"),
        ({"kinds": ("tune", "tune")}, "none twice"),
        ({"kinds": HEADS, "told": True}, "leave tune out"),
    ],
)
def test_kinds_that_cannot_be_learned_from_are_refused(wrong, says):
    with pytest.raises(SettingsError, match=says):
        WorldSettings(**wrong)
