"""A trained network learns to hear a stream from recordings and its former self alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from denseav.models import load, save
from denseav.models.config import LoraConfig
from denseav.train.data.recordings import SoundSettings
from denseav.train.errors import SettingsError
from denseav.train.loss.streaming import Streaming
from denseav.train.trainer.checkpointer import MODEL
from denseav.train.trainer.loop import train
from denseav.train.trainer.settings import Settings
from tests.support.train.parts import NETWORK, learner
from tests.support.train.runs import SMALL, losses, quiet


@pytest.fixture
def taught(tmp_path: Path) -> Settings:
    save(learner().model, tmp_path / "initial")
    (tmp_path / "sound").mkdir()
    noise_S = np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32)
    soundfile.write(tmp_path / "sound" / "noise.wav", noise_S, 16_000)
    return replace(
        SMALL,
        initial=str(tmp_path / "initial"),
        made=None,
        sound=SoundSettings(folder=str(tmp_path / "sound"), batch_size=4, samples=2960 + 2880 * 7),
        streaming=Streaming(least_context=1, most_context=3, most_revisit=1, teacher=True),
        optimization=replace(SMALL.optimization, aligner_steps=0, steps=30, learning_rate=3e-3),
        rhythm=replace(SMALL.rhythm, validate=30),
    )


def test_the_stream_comes_nearer_to_the_window_and_pictures_stay(
    tmp_path: Path, taught: Settings
) -> None:
    train(taught, tmp_path / "run", quiet())
    found = losses(tmp_path / "run")
    first, last = ([found[step] for step in steps] for steps in (range(1, 9), range(23, 31)))
    assert sum(last) < 0.7 * sum(first)
    before, after = (
        load(folder).state_dict() for folder in (taught.initial, tmp_path / "run" / MODEL)
    )
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed
    assert all(key.startswith(("audio_encoder.", "audio_aligner.", "audio_cls")) for key in changed)


def test_lora_alone_learns_of_the_encoder_where_there_is_any(
    tmp_path: Path, taught: Settings
) -> None:
    audio = replace(NETWORK.audio, lora=LoraConfig(rank=2, dropout=0.0))
    short = replace(taught.optimization, steps=2)
    train(
        replace(taught, network=replace(NETWORK, audio=audio), optimization=short),
        tmp_path / "run",
        quiet(),
    )
    apart = load(tmp_path / "run" / MODEL, lora="separate").state_dict()
    before = load(taught.initial).state_dict()
    encoder = {key: value for key, value in apart.items() if key.startswith("audio_encoder.")}
    plain = {key: value for key, value in encoder.items() if key in before}
    assert plain
    assert all(torch.equal(value, before[key]) for key, value in plain.items())
    assert any("lora_B" in key and value.abs().max() > 0 for key, value in encoder.items())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"initial": ""}, "name it with --initial"),
        ({"streaming": None}, "needs a teacher"),
        ({"made": SMALL.made}, "name the shards"),
    ],
)
def test_settings_that_do_not_go_together(
    taught: Settings, wrong: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        replace(taught, **wrong)  # type: ignore[arg-type]
