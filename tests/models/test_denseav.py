from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from denseav.models import DenseAV
from denseav.models.aligners import ChannelNorm, TokenMixer
from denseav.models.audio_encoder import normalize_wave
from tests.support.tiny_model import CONFIG, inputs, tiny, tiny_audio


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def mixed_by_hand(mixer: TokenMixer, tokens_BTE: Tensor) -> Tensor:
    """The transformer block from its weights, attention spelled out head by head."""
    block = mixer.block
    x = functional.pad(tokens_BTE, (mixer.padding, 0))
    size = x.shape[-1] // 6

    def normed(y: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
        variance = y.var(dim=-1, unbiased=False, keepdim=True)
        return (y - y.mean(-1, keepdim=True)) / (variance + 1e-4).sqrt() * norm.weight + norm.bias

    n = normed(x, block.layernorm_before)
    q, k, v = (
        p(n) for p in (block.attention.q_proj, block.attention.k_proj, block.attention.v_proj)
    )
    heads = []
    for i in range(6):
        part = slice(i * size, (i + 1) * size)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / size**0.5
        heads.append(scores.softmax(-1) @ v[..., part])
    x = x + block.attention.o_proj(torch.cat(heads, dim=-1))
    n = normed(x, block.layernorm_after)
    x = x + block.mlp.fc2(functional.gelu(block.mlp.fc1(n)))
    return x[..., mixer.padding :]


def test_audio_tokens_follow_the_window() -> None:
    model = tiny()
    for samples, tokens in ((2960, 1), (5839, 1), (5840, 2), (16_000, 5), (48_000, 16)):
        assert model.encode_audio(torch.randn(1, samples)).shape == (1, 2, 10, tokens)


def test_too_short_a_waveform_is_refused() -> None:
    with pytest.raises(ValueError, match=r"2959 samples are too few .* at least 2960"):
        tiny().encode_audio(torch.zeros(1, 2959))


def test_a_frame_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="32x50 pixels does not divide into patches of 8"):
        tiny().encode_image(torch.zeros(1, 3, 32, 50))


def test_grid_follows_the_frame() -> None:
    assert tiny().encode_image(inputs()[0]).shape == (2, 2, 10, 4, 6)


def test_heads_split_the_channels_in_order() -> None:
    image, wave = inputs()
    two, one = tiny(), tiny(heads=("sound",))
    torch.testing.assert_close(
        two.encode_image(image).flatten(1, 2), one.encode_image(image).squeeze(1)
    )
    torch.testing.assert_close(
        two.encode_audio(wave).flatten(1, 2), one.encode_audio(wave).squeeze(1)
    )


def test_cls_channels_add_one_number_to_a_whole_volume() -> None:
    image, wave = inputs()
    plain, with_cls = tiny(), tiny(cls_similarity=True)
    v, a = with_cls(image, wave)
    added = with_cls.similarity(v, a) - plain.similarity(*plain(image, wave))
    expected_BK = (v[:, :, 10:, 0, 0] * a[:, :, 10:, 0]).sum(dim=2)
    close(added, expected_BK[:, :, None, None, None].expand_as(added))
    assert expected_BK.abs().min() > 1e-3


def test_unit_vectors_have_unit_length_over_all_heads() -> None:
    features = tiny(unit_vectors=True).encode_audio(inputs()[1])
    close(features.flatten(1, 2).norm(dim=1), torch.ones(2, 4))


def test_training_mode_pools_audio_when_asked() -> None:
    model = tiny(audio=tiny_audio(pool_width=2)).train()
    wave = inputs()[1]
    assert model.encode_audio(wave).shape[-1] == 2
    assert model.eval().encode_audio(wave).shape[-1] == 4


def test_training_mode_pool_is_the_mean_of_four_cells() -> None:
    model, image = tiny(), inputs()[0]
    whole = model.encode_image(image)
    pooled = model.train().encode_image(image)
    close(pooled[..., 1, 2], whole[..., 2:4, 4:6].mean(dim=(-2, -1)))


def test_mixer_is_a_pre_norm_block_over_cls_and_tokens() -> None:
    model = tiny()
    mixer = model.audio_aligner.mixer
    assert mixer.padding == 4
    features_BET, cls_BE = torch.randn(2, 20, 5), torch.randn(2, 20)
    tokens, cls = mixer(features_BET, cls_BE)
    expected = mixed_by_hand(mixer, torch.cat((cls_BE[:, None], features_BET.mT), dim=1))
    close(cls, expected[:, 0])
    close(tokens, expected[:, 1:].mT)
    alone, none = mixer(features_BET, None)
    assert none is None
    close(alone, mixed_by_hand(mixer, features_BET.mT).mT)


@pytest.mark.parametrize(("kind", "tokens"), [("project_pool", 4), ("project", 36)])
@pytest.mark.parametrize("learned_cls", [True, False])
def test_older_aligners_from_their_weights(kind: str, tokens: int, learned_cls: bool) -> None:
    model = tiny(audio=tiny_audio(aligner=kind, learned_cls=learned_cls))
    wave = inputs()[1]
    aligner = model.audio_aligner
    x = aligner.norm(model.audio_encoder(wave))
    x = torch.einsum("ed,bdl->bel", aligner.projection.weight[..., 0], x)
    x = x + aligner.projection.bias[:, None]
    cls = aligner.cls_projection(model.audio_cls.expand(2, -1)) if learned_cls else None
    for pool in aligner.pools:
        x = functional.conv1d(pool.norm(x), pool.conv.weight, pool.conv.bias, stride=3)
        cls = None if cls is None else pool.norm(cls)
    sequence = x.mT if cls is None else torch.cat((cls[:, None], x.mT), dim=1)
    expected = mixed_by_hand(aligner.mixer, sequence)[:, 0 if cls is None else 1 :].mT
    assert expected.shape[-1] == tokens
    close(model.encode_audio(wave).flatten(1, 2), expected)


def test_channel_norm_normalises_axis_one() -> None:
    norm, features = ChannelNorm(5), torch.randn(2, 5, 3, 4)
    expected = functional.layer_norm(features.permute(0, 2, 3, 1), (5,), eps=1e-4)
    close(norm(features), expected.permute(0, 3, 1, 2))


def test_normalized_waves_have_zero_mean_and_unit_variance() -> None:
    wave = normalize_wave(3 * torch.randn(2, 5000, dtype=torch.float64) + 7)
    close(wave.mean(dim=1), torch.zeros(2, dtype=torch.float64))
    close(wave.var(dim=1, unbiased=False), torch.ones(2, dtype=torch.float64))
    assert normalize_wave(torch.full((1, 100), 0.5)).abs().max() == 0


def test_eager_attention_gives_the_same_numbers() -> None:
    model = tiny()
    fused = model(*inputs())
    model.set_attention("eager")
    for ours, theirs in zip(model(*inputs()), fused, strict=True):
        close(ours, theirs)


def test_export_form_is_fixed_to_one_frame_size_and_has_no_weight_norm() -> None:
    model = tiny().train()
    before = model.eval()(*inputs())
    model.train().prepare_export(32, 48)
    assert not model.training
    assert not [key for key in model.state_dict() if "parametrizations" in key]
    for ours, theirs in zip(model(*inputs()), before, strict=True):
        close(ours, theirs)
    model.prepare_export(32, 40)
    assert model.encode_image(torch.zeros(1, 3, 32, 40)).shape[-1] == 5


def test_both_branches_learn() -> None:
    model = DenseAV(replace(CONFIG, cls_similarity=True)).train()
    image, wave = inputs(tokens=5)
    model.calibrator(model.similarity(*model(image, wave)).square()).square().mean().backward()
    silent = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert silent == {"audio_encoder.hubert.masked_spec_embed"}


def test_a_patch_with_local_attention_sees_no_further_than_its_reach() -> None:
    local = replace(CONFIG.image, attention_width=3)
    seen, frames = tiny(image=local), torch.randn(1, 3, 64, 96)
    changed = frames.clone()
    changed[..., :8, :8] += 1.0
    before, after = seen.encode_image(frames), seen.encode_image(changed)
    moved_HW = (before - after).abs().amax((0, 1, 2)) > 1e-6
    reach = CONFIG.image.layers * (3 // 2) + 1
    assert bool(moved_HW[:reach, :reach].all())
    moved_HW[:reach, :reach] = False
    assert not moved_HW.any()
    everywhere = tiny()
    difference = everywhere.encode_image(frames) - everywhere.encode_image(changed)
    assert bool((difference.abs().amax((0, 1, 2)) > 1e-6).all())


def test_attention_as_wide_as_the_picture_is_attention_without_limit_but_for_the_cls() -> None:
    frames, _ = inputs()
    wide = tiny(image=replace(CONFIG.image, attention_width=2 * 6 + 1))
    mask_NN = wide.image_encoder.neighbours(4, 6, torch.float32)
    assert mask_NN is not None
    assert mask_NN.shape == (1, 1, 25, 25)
    assert bool((mask_NN[0, 0, 1:, 1:] == 0).all())
    assert bool((mask_NN[0, 0, 0] == 0).all())
    assert bool(mask_NN[0, 0, 1:, 0].isneginf().all())
    assert wide.encode_image(frames).isfinite().all()
