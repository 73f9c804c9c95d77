"""Mix and separate: who is whose image, which head listens, and what is refused."""

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from denseav.models.audio_encoder import normalize_wave
from denseav.models.config import Aggregation
from denseav.models.similarity import aggregate, all_volumes
from denseav.train.data.batch import SOUND, SPEECH, Batch
from denseav.train.errors import DataError
from denseav.train.loss.denseav_loss import Weights
from denseav.train.loss.mix_and_separate import Separation, check_heads, couples, separation_terms
from denseav.train.loss.pooling import AUDIBLE, token_mask
from tests.support.train.parts import NETWORK, batch, learner, mixed_batch

HEADS = ("speech", "sound")
CLIPS = 6


def terms(separation: Separation, *, mixtures: bool) -> dict[str, Tensor]:
    return separation_terms(
        learner(),
        mixed_batch(CLIPS),
        HEADS,
        Weights(),
        torch.Generator(),
        separation,
        mixtures=mixtures,
    )


def by_hand(image_of: Batch, wave: Tensor, mask: Tensor, head: int | None) -> Tensor:
    """Return the calibrated similarities [A, V], by the plain way."""
    made = learner()
    image = made.model.encode_image(image_of.image_B3HW)
    audio = made.model.encode_audio(normalize_wave(wave))
    heard = token_mask(mask, audio.shape[-1]) > AUDIBLE
    if head is not None:
        image, audio = image[:, head, None], audio[:, head, None]
    sims = aggregate(all_volumes(image, audio), heard, Aggregation(), join_heads=True)
    return sims * made.model.calibrator.scale


def symmetric(logits: Tensor) -> Tensor:
    pairs = torch.arange(len(logits))
    rows, columns = (functional.cross_entropy(x, pairs) for x in (logits, logits.T))
    return (rows + columns) / 2


def test_couples_are_told_apart_row_by_row() -> None:
    mixed = mixed_batch(CLIPS)
    assert mixed.kind_B.unique().tolist() == [SPEECH, SOUND]
    sound, speech = couples(mixed)
    assert torch.equal(sound.kind_B, torch.full((CLIPS,), SOUND))
    assert torch.equal(speech.wave_BS, batch(CLIPS, SPEECH, 1).wave_BS)
    assert torch.equal(sound.image_B3HW, batch(CLIPS, SOUND, 2).image_B3HW)


def test_clean_clips_are_contrasted_within_their_kind() -> None:
    found = terms(Separation(), mixtures=True)
    sound, speech = couples(mixed_batch(CLIPS))
    for kind, clips in (("sound", sound), ("speech", speech)):
        logits = by_hand(clips, clips.wave_BS, clips.audio_mask_BS, None)
        torch.testing.assert_close(found[f"correspondence_{kind}"], symmetric(logits))


def test_clean_clips_may_be_left_to_the_head_of_their_kind() -> None:
    found = terms(Separation(own_head=True), mixtures=False)
    sound, speech = couples(mixed_batch(CLIPS))
    for kind, clips in (("sound", sound), ("speech", speech)):
        logits = by_hand(clips, clips.wave_BS, clips.audio_mask_BS, HEADS.index(kind))
        torch.testing.assert_close(found[f"correspondence_{kind}"], symmetric(logits))


@pytest.mark.parametrize("shared", [False, True])
def test_each_head_finds_its_own_image_in_the_mixture(shared: bool) -> None:
    found = terms(Separation(shared_negatives=shared), mixtures=True)
    mixed = mixed_batch(CLIPS)
    sound, speech = couples(mixed)
    assert mixed.mixed_wave_BS is not None
    heard = mixed.mixed_wave_BS, mixed.mixed_mask_BS
    for kind, own, other in (("sound", sound, speech), ("speech", speech, sound)):
        logits = by_hand(own, *heard, HEADS.index(kind))
        expected = symmetric(logits)
        if shared:
            wide = torch.cat((logits, by_hand(other, *heard, HEADS.index(kind))), dim=1)
            pairs = torch.arange(CLIPS)
            rows = functional.cross_entropy(wide, pairs)
            expected = (rows + functional.cross_entropy(logits.T, pairs)) / 2
        torch.testing.assert_close(found[f"separation_{kind}"], expected)


def test_while_aligners_warm_up_no_mixture_is_heard() -> None:
    warm, full = (terms(Separation(), mixtures=mixtures) for mixtures in (False, True))
    assert full.keys() - warm.keys() == {"separation_sound", "separation_speech"}
    torch.testing.assert_close(warm["correspondence_sound"], full["correspondence_sound"])
    torch.testing.assert_close(warm["splice"], full["splice"])


def test_contrasts_all_weigh_the_same() -> None:
    found = {"separation_sound": torch.tensor(2.0), "splice": torch.tensor(3.0)}
    assert Weights(contrast=0.5, splice=0.1).total(found).item() == pytest.approx(1.3)
    with pytest.raises(ValueError, match="terms without a weight: correspondence, splices"):
        Weights().total(dict.fromkeys(("contrast", "splices", "correspondence"), torch.ones(())))


def test_what_cannot_be_separated_is_refused() -> None:
    with pytest.raises(DataError, match=r"set data\.others"):
        couples(batch(CLIPS))
    speech = batch(CLIPS, SPEECH)
    with pytest.raises(DataError, match="--kind"):
        couples(dataclasses.replace(speech, partner=speech, mixed_wave_BS=speech.wave_BS))
    with pytest.raises(DataError, match=r"network\.heads"):
        check_heads(dataclasses.replace(NETWORK, heads=("speech",)))
