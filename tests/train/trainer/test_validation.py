"""What is measured while training is what evaluation measures."""

import pytest
import torch

from denseav.models.similarity import volume
from denseav.train.data.batch import SOUND, SPEECH, UNKNOWN
from denseav.train.loss.pooling import AUDIBLE
from denseav.train.metrics.disentanglement import (
    activation_disentanglement,
    prediction_disentanglement,
)
from denseav.train.trainer import validation
from denseav.train.trainer.validation import disentanglement, encode_clips
from tests.support.train.parts import NETWORK, batch, learner

CPU = torch.device("cpu")


def test_heads_are_apart_as_evaluation_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "AT_ONCE", 2)
    made = learner().eval()
    sets = [batch(5, SPEECH, 1), batch(4, SOUND, 2), batch(3, UNKNOWN, 3)]
    encoded = [encode_clips(made, [clips], CPU, 100) for clips in sets]
    expected = []
    for one in encoded:
        rows = []
        for image, audio, mask in zip(*one.features[:3], strict=True):
            peaks_KT = volume(image[None], audio[None])[0].amax(dim=(-2, -1))
            rows.append(peaks_KT[:, mask > AUDIBLE].mean(dim=-1))
        expected.append(torch.stack(rows))
    found = disentanglement(encoded)
    speech_NK, sound_NK = expected[:2]
    assert found == {
        "PredDis": pytest.approx(100 * prediction_disentanglement(speech_NK, sound_NK)),
        "ActDis": pytest.approx(100 * activation_disentanglement(speech_NK, sound_NK), rel=1e-5),
    }


def test_heads_are_not_compared_on_one_kind_or_without_places() -> None:
    assert NETWORK.heads == ("speech", "sound")
    speech, sound = batch(3, SPEECH, 1), batch(3, SOUND, 2)
    assert disentanglement([encode_clips(learner().eval(), [speech], CPU, 9)]) == {}
    pooled = learner(pooling="average").eval()
    assert disentanglement([encode_clips(pooled, [speech, sound], CPU, 9)]) == {}
    assert disentanglement([]) == {}


def test_no_more_clips_are_encoded_than_are_wanted() -> None:
    encoded = encode_clips(learner().eval(), [batch(3, seed=1), batch(3, seed=2)], CPU, 4)
    assert len(encoded.kind_b) == len(encoded.features.mask_bT) == 4
