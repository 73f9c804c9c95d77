"""What is measured while training is what evaluation measures."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from denseav.models.similarity import volume
from denseav.train.data.batch import SOUND, SPEECH, TUNE, UNKNOWN
from denseav.train.errors import DataError
from denseav.train.eval.evaluate import Variants, evaluate
from denseav.train.eval.model import TorchModel
from denseav.train.eval.pieces import Pieces
from denseav.train.loss.pooling import AUDIBLE
from denseav.train.metrics.disentanglement import (
    activation_disentanglement,
    explained_share,
    prediction_disentanglement,
)
from denseav.train.trainer import validation
from denseav.train.trainer.loop import train
from denseav.train.trainer.prompted import prompted_scores, prompted_sets
from denseav.train.trainer.settings import PromptedSettings
from denseav.train.trainer.validation import disentanglement, encode_clips
from tests.support.train import eval_trees
from tests.support.train.parts import NETWORK, batch, learner
from tests.support.train.runs import SMALL, quiet

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


def test_of_three_heads_the_kind_explains_so_much_of_which_leads() -> None:
    made, encoded, expected = learner().eval(), [], []
    for kind in (SPEECH, SOUND, TUNE, UNKNOWN):
        one = encode_clips(made, [batch(4, kind, kind + 2)], CPU, 9)
        image, audio, mask, *_ = one.features
        image, audio = torch.cat((image, image[:, :1]), 1), torch.cat((audio, -audio[:, :1]), 1)
        encoded.append(
            one._replace(features=one.features._replace(image_VKCHW=image, audio_bKCT=audio))
        )
        expected.append((volume(image, audio).amax((-2, -1)) * (mask > AUDIBLE)[:, None]).sum(-1))
        expected[-1] /= (mask > AUDIBLE).sum(-1, keepdim=True)
    share = explained_share(torch.cat(expected[:3]), [*"aaaabbbbcccc"])
    assert disentanglement(encoded) == {"by_kind": pytest.approx(100 * share, rel=1e-4)}
    assert disentanglement(encoded[:1]) == {}


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


def test_prompted_maps_score_as_evaluation_says(tmp_path: Path) -> None:
    settings = PromptedSettings(
        speech=str(eval_trees.speech_prompted(tmp_path / "speech")),
        sound=str(eval_trees.sound_prompted(tmp_path / "sound")),
    )
    made, sets = learner().eval(), prompted_sets(settings)
    found = prompted_scores(made, sets)
    nothing_kept = Pieces(None, {}, track=lambda items, _: items)
    rows = evaluate(TorchModel(made.model), sets, Variants(), nothing_kept)
    kinds = {data.name: data.kind for data in sets}
    wanted = {
        f"{row.metric}/{kinds[row.data]}/{row.head}": pytest.approx(row.value, abs=1e-3)
        for of_set in rows
        for row in of_set
        if row.metric in ("mAP", "mIoU") and row.head in ("total", kinds[row.data])
    }
    assert len(wanted) == 8
    assert found == wanted


def test_a_folder_of_prompts_that_is_not_there_is_said_before_the_first_step(
    tmp_path: Path,
) -> None:
    prompted = PromptedSettings(sound=str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="nowhere"):
        train(replace(SMALL, prompted=prompted), tmp_path / "run", quiet())
    assert not (tmp_path / "run").exists()
