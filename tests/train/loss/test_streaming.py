"""Training hears as a stream does, and a teacher's features are what is learned from."""

import dataclasses

import pytest
import torch
from torch import Tensor

from denseav.models.audio_encoder import normalize_wave
from denseav.models.audio_stream import AudioStream
from denseav.models.streaming_mask import StreamConfig
from denseav.train.errors import SettingsError
from denseav.train.loss.distillation import distillation_terms, encode_windows
from denseav.train.loss.learner import Learner
from denseav.train.loss.streaming import Streaming, encode_streamed
from tests.support.train.parts import batch, learner

CONFIG = StreamConfig(context_tokens=3, revisit=2)
DRAWN = Streaming(least_context=2, most_context=4, most_revisit=1, windowed_share=0.0)


def step_by_step(made: Learner, wave_S: Tensor) -> list[Tensor]:
    """What a stream gives at each token, [K, C, R]."""
    made.model.audio_encoder.fold_weight_norm()
    encode = AudioStream(made.model, CONFIG)
    state, found = encode.start(), []
    for first in range(0, len(wave_S) - 2959, 2880):
        features_KCR, state = encode(wave_S[first : first + 2960], state)
        found.append(features_KCR)
    return found


@torch.no_grad()
def test_a_token_is_what_the_stream_gives_so_many_tokens_later() -> None:
    made = learner()
    wave_BS = normalize_wave(batch(2).wave_BS)
    drawn = [encode_streamed(made.model, wave_BS, CONFIG)[1] for _ in range(20)]
    steps = step_by_step(made.eval(), wave_BS[1])
    last = len(steps) - 1
    expected = [
        torch.stack(
            [
                steps[min(token + later, last)][:, :, CONFIG.revisit - min(later, last - token)]
                for token in range(len(steps))
            ],
            dim=-1,
        )
        for later in range(CONFIG.revisit + 1)
    ]
    close = [
        [torch.allclose(features_KCT, each_KCT, atol=1e-5) for each_KCT in expected]
        for features_KCT in drawn
    ]
    assert all(any(row) for row in close)
    assert all(any(row[later] for row in close) for later in range(CONFIG.revisit + 1))


def test_every_setting_is_drawn_and_no_other() -> None:
    torch.manual_seed(0)
    drawn = [dataclasses.replace(DRAWN, windowed_share=0.5).draw() for _ in range(200)]
    streams = {(each.context_tokens, each.revisit) for each in drawn if each is not None}
    assert streams == {(context, revisit) for context in (2, 3, 4) for revisit in (0, 1)}
    assert 60 < drawn.count(None) < 140


def test_sound_is_streamed_in_training_mode_alone() -> None:
    made, clips = learner(), batch(2)
    made.streaming = DRAWN
    given = clips.image_B3HW, clips.wave_BS, clips.audio_mask_BS
    streamed = made(*given)
    streamed.audio_bKCT.sum().backward()
    assert made.model.audio_aligner.mixer.block.attention.q_proj.weight.grad.abs().sum() > 0
    plain = made.eval()(*given)
    assert plain.audio_bKCT.shape == streamed.audio_bKCT.shape
    whole = made.model.encode_audio(normalize_wave(clips.wave_BS))
    torch.testing.assert_close(plain.audio_bKCT, whole)
    assert not torch.allclose(streamed.audio_bKCT, whole, atol=1e-3)


def test_a_pupil_that_hears_as_its_teacher_does_has_nothing_to_learn() -> None:
    made, teacher = learner().eval(), learner().model.eval()
    assert distillation_terms(made, batch(2), teacher, 0)["distillation"] < 1e-10
    in_parts = distillation_terms(made, batch(2), teacher, 3)["distillation"]
    assert in_parts > 1e-6


@torch.no_grad()
def test_a_teachers_windows_tile_the_clip() -> None:
    teacher = learner().model.eval()
    wave_BS = normalize_wave(batch(2).wave_BS)
    tiled_BKCT = encode_windows(teacher, wave_BS, 4)
    assert tiled_BKCT.shape[-1] == 6
    first, rest = wave_BS[:, : 2960 + 2880 * 3], wave_BS[:, 2880 * 4 : 2880 * 6 + 80]
    torch.testing.assert_close(tiled_BKCT[..., :4], teacher.encode_audio(first))
    torch.testing.assert_close(tiled_BKCT[..., 4:], teacher.encode_audio(rest))


@pytest.mark.parametrize(
    "wrong",
    [
        {"least_context": 0},
        {"least_context": 9, "most_context": 8},
        {"most_revisit": -1},
        {"windowed_share": 1.0},
        {"teacher_tokens": -1},
    ],
)
def test_what_cannot_be_drawn_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="streaming: "):
        Streaming(**wrong)  # type: ignore[arg-type]
