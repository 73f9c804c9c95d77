"""The stream against one plain pass over the whole audio."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from denseav.models import DenseAV
from denseav.models.audio_stream import AudioStream
from denseav.models.config import AudioConfig, CheckpointError, ModelConfig
from denseav.models.streaming_mask import StreamConfig, encode_audio_streamed, stream_mask
from tests.support.tiny_model import inputs, tiny, tiny_audio

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def tokens_of(model: DenseAV, wave_S: Tensor) -> Iterator[Tensor]:
    """Yield each token's samples; the last 80 come again at the begin of the next."""
    audio = model.config.audio
    return iter(wave_S.unfold(0, audio.token_span_samples, audio.token_hop_samples))


@torch.no_grad()
def streamed(model: DenseAV, wave_S: Tensor, config: StreamConfig) -> Tensor:
    """Return what a stream gives step by step, [T, K, C, R]."""
    stream = AudioStream(model, config)
    state, features = stream.start(), []
    for token_S in tokens_of(model, wave_S):
        features_KCR, state = stream(token_S, state)
        features.append(features_KCR)
    return torch.stack(features)


@torch.no_grad()
def at_once(model: DenseAV, wave_S: Tensor, config: StreamConfig) -> Tensor:
    return encode_audio_streamed(model, wave_S[None], config)[0]


def audio_of(model: DenseAV, tokens: int, seed: int = 1) -> Tensor:
    audio = model.config.audio
    torch.manual_seed(seed)
    return torch.randn(audio.token_span_samples + audio.token_hop_samples * (tokens - 1))


@pytest.mark.parametrize("revisit", [0, 1, 3])
@pytest.mark.parametrize("context_tokens", [1, 2, 20])
def test_steps_are_one_masked_pass(context_tokens: int, revisit: int) -> None:
    model = tiny()
    config = StreamConfig(context_tokens=context_tokens, revisit=revisit)
    wave_S = audio_of(model, 9)
    torch.testing.assert_close(
        streamed(model, wave_S, config), at_once(model, wave_S, config), **CLOSE
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"audio": tiny_audio(aligner="project_pool")},
        {"audio": tiny_audio(aligner="project")},
        {"audio": tiny_audio(learned_cls=False)},
        {"audio": tiny_audio(position_kernel=7)},
        {"cls_similarity": True},
        {"unit_vectors": True},
    ],
    ids=str,
)
def test_every_kind_of_aligner_and_head_streams(changes: dict[str, object]) -> None:
    model = tiny(**changes)
    config = StreamConfig(context_tokens=2, revisit=2)
    wave_S = audio_of(model, 7)
    torch.testing.assert_close(
        streamed(model, wave_S, config), at_once(model, wave_S, config), **CLOSE
    )


@pytest.mark.parametrize("name", ["demo", "denseav"])
def test_the_real_sizes_stream(name: str) -> None:
    torch.manual_seed(0)
    model = DenseAV(ModelConfig(name=name, audio=REAL_SIZES[name])).eval()
    config = StreamConfig(context_tokens=3, revisit=1)
    wave_S = audio_of(model, 6)
    torch.testing.assert_close(
        streamed(model, wave_S, config), at_once(model, wave_S, config), **CLOSE
    )


REAL_SIZES = {
    "demo": AudioConfig(
        stem_channels=40, hidden=128, layers=3, heads=2, position_kernel=32, aligner_heads=4
    ),
    "denseav": AudioConfig(layers=2),
}


@pytest.mark.parametrize("cls_similarity", [False, True])
def test_a_stream_that_computes_all_anew_is_the_windowed_pass(cls_similarity: bool) -> None:
    model = tiny(cls_similarity=cls_similarity)
    wave_S = audio_of(model, 5)
    config = StreamConfig(context_tokens=1, revisit=4)
    with torch.no_grad():
        window_KCT = model.encode_audio(wave_S[None])[0]
    torch.testing.assert_close(streamed(model, wave_S, config)[-1], window_KCT, **CLOSE)


def test_a_new_start_forgets_all_that_was() -> None:
    model, config = tiny(), StreamConfig(context_tokens=4, revisit=1)
    before_S, after_S = audio_of(model, 6), audio_of(model, 5, seed=2)
    streamed(model, before_S, config)
    torch.testing.assert_close(
        streamed(model, after_S, config), at_once(model, after_S, config), **CLOSE
    )


def test_audio_after_a_gap_sees_the_silence_in_it() -> None:
    model, config = tiny(), StreamConfig(context_tokens=3, revisit=1)
    wave_S = audio_of(model, 12)
    wave_S[5_000:20_000] = 0
    torch.testing.assert_close(
        streamed(model, wave_S, config), at_once(model, wave_S, config), **CLOSE
    )


def test_what_lies_beyond_memory_is_forgotten_but_for_what_frames_handed_on() -> None:
    """With one layer nothing is handed on: tokens out of reach change nothing at all."""
    model = tiny(audio=tiny_audio(layers=1))
    config = StreamConfig(context_tokens=2, revisit=1)
    wave_S = audio_of(model, 12)
    other_S = wave_S.clone()
    other_S[:5_000] = torch.randn(5_000)
    a, b = streamed(model, wave_S, config), streamed(model, other_S, config)
    assert not torch.allclose(a[2], b[2])
    torch.testing.assert_close(a[-1], b[-1], atol=0, rtol=0)


def test_a_sample_is_scaled_once() -> None:
    """The scale changes with every token; the oracle hears one wave scaled sample by sample."""
    model, config = tiny(), StreamConfig(context_tokens=3, revisit=1)
    audio = model.config.audio
    wave_S = audio_of(model, 6)
    scale_T = 2.0 ** torch.arange(6)
    stream = AudioStream(model, config)
    state, features = stream.start(), []
    with torch.no_grad():
        for token_S, scale in zip(tokens_of(model, wave_S), scale_T, strict=True):
            features_KCR, state = stream(token_S * scale, state)
            features.append(features_KCR)
    scale_S = scale_T.repeat_interleave(audio.token_hop_samples)
    overlap = audio.token_span_samples - audio.token_hop_samples
    scaled_S = wave_S * torch.cat((scale_T[:1].expand(overlap), scale_S))
    torch.testing.assert_close(torch.stack(features), at_once(model, scaled_S, config), **CLOSE)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 3e38])
def test_samples_that_are_no_numbers_count_as_silence_and_does_not_stay(bad: float) -> None:
    model, config = tiny(), StreamConfig(context_tokens=3, revisit=1)
    wave_S = audio_of(model, 6)
    broken_S, silent_S = wave_S.clone(), wave_S.clone()
    broken_S[4_000:4_100] = bad
    silent_S[4_000:4_100] = 0
    torch.testing.assert_close(
        streamed(model, broken_S, config), at_once(model, silent_S, config), **CLOSE
    )


def test_long_silence_settles_and_fills_memory_no_further() -> None:
    model, config = tiny(audio=tiny_audio(layers=1)), StreamConfig(context_tokens=3, revisit=1)
    stream = AudioStream(model, config)
    state, silence_S = stream.start(), torch.zeros(model.config.audio.token_span_samples)
    with torch.no_grad():
        for _ in range(60):
            features_KCR, state = stream(silence_S, state)
    assert int(state.taken) == 5  # it counts from 5 to 9, round and round
    again_KCR = features_KCR
    with torch.no_grad():
        features_KCR, state = stream(silence_S, state)
    torch.testing.assert_close(features_KCR, again_KCR, **CLOSE)


def test_states_keep_their_shapes_and_names() -> None:
    model = tiny()
    stream = AudioStream(model, StreamConfig(context_tokens=4, revisit=2))
    state = stream.start()
    with torch.no_grad():
        _, after = stream(audio_of(model, 1), state)
    shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in state.named().items()}
    assert shapes == {name: (t.shape, t.dtype) for name, t in after.named().items()}
    assert shapes["keys_1"] == ((2, 63, 8), torch.float32)
    back = type(state).from_flat(tuple(after.named().values()))
    assert back.named().keys() == after.named().keys()
    assert all(
        torch.equal(a, b)
        for a, b in zip(back.named().values(), after.named().values(), strict=True)
    )


def test_the_masked_pass_takes_batches_and_passes_gradients() -> None:
    model = tiny()
    config = StreamConfig(context_tokens=2, revisit=1)
    _, wave_BS = inputs(batch=2, tokens=5)
    features_BTKCR = encode_audio_streamed(model, wave_BS, config)
    assert features_BTKCR.shape == (2, 5, 2, 10, 2)
    torch.testing.assert_close(
        features_BTKCR[1], encode_audio_streamed(model, wave_BS[1:], config)[0], **CLOSE
    )
    features_BTKCR.square().mean().backward()
    grads = [p.grad for n, p in model.named_parameters() if n.startswith("audio_")]
    unused = sum(grad is None for grad in grads)
    assert unused == 1  # the vector for masked frames in training


def test_the_mask_by_hand() -> None:
    """Two tokens a step, two remembered; rows are steps, columns (step, token)."""
    seen = stream_mask(5, StreamConfig(context_tokens=2, revisit=1)).flatten(1).int().tolist()
    assert seen == [
        [0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 0, 0, 0, 0, 0, 0],
        [0, 0, 1, 0, 1, 1, 0, 0, 0, 0],
        [0, 0, 1, 0, 1, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 0, 1, 0, 1, 1],
    ]


@pytest.mark.parametrize(("context_tokens", "revisit"), [(0, 0), (3, -1)])
def test_impossible_memories_are_refused(context_tokens: int, revisit: int) -> None:
    with pytest.raises(CheckpointError, match="at least 1 token"):
        StreamConfig(context_tokens=context_tokens, revisit=revisit)
