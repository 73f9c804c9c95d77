"""The released numbers: the same weights give the same features and similarities."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from denseav.models.checkpoints.checkpoint import fill
from denseav.models.checkpoints.released_checkpoint import adopt
from denseav.models.config import Aggregation, LoraConfig, ModelConfig
from denseav.models.denseav import DenseAV
from denseav.models.lora import merge
from denseav.models.similarity import aggregate, all_volumes, volume
from tests.golden import released as golden

TOLERANCE = 1e-5


def adopted(**changes: object) -> tuple[ModelConfig, dict[str, Tensor]]:
    return adopt(
        golden.hyperparameters() | changes,
        golden.weights(),
        source="denseav_2head.ckpt",
        audio_layers=golden.SMALL_LAYERS,
    )


def array(name: str) -> Tensor:
    return torch.from_numpy(golden.arrays()[name])


def error(ours: Tensor, theirs: NDArray[np.float32]) -> float:
    """Return the relative L2 distance of two arrays with the same number of elements."""
    mine = ours.detach().numpy().reshape(theirs.shape)
    return float(np.linalg.norm(mine - theirs) / np.linalg.norm(theirs))


def assert_features(features_BKCHW: Tensor, name: str) -> None:
    features_BEHW = features_BKCHW.flatten(1, 2)
    assert error(features_BEHW[:, ::4], golden.arrays()[f"{name}/every4th"]) < TOLERANCE
    norm_BE = features_BEHW.square().sum(dim=(2, 3)).sqrt()
    assert error(norm_BE, golden.arrays()[f"{name}/norm"].astype(np.float32)) < TOLERANCE


@pytest.fixture(scope="module", autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model() -> DenseAV:
    return fill(*merge(*adopted())).eval()


@pytest.fixture(scope="module")
def features(model: DenseAV) -> tuple[Tensor, Tensor]:
    return model(array("image"), array("wav_norm"))


def test_image_features(features: tuple[Tensor, Tensor]) -> None:
    assert features[0].shape == (3, 2, 192, 28, 28)
    assert_features(features[0], "eval/image_feats")


def test_audio_features(features: tuple[Tensor, Tensor]) -> None:
    assert features[1].shape == (3, 2, 192, 56)
    assert error(features[1], golden.arrays()["eval/audio_feats"]) < TOLERANCE


def test_non_square_frame(model: DenseAV) -> None:
    features = model.encode_image(array("nonsquare/image"))
    assert features.shape[-2:] == (28, 37)
    assert_features(features, "nonsquare/image_feats")


def test_raw_waveform_of_the_demo(model: DenseAV) -> None:
    features = model.encode_audio(array("demo/audio"))
    assert error(features, golden.arrays()["demo/audio_feats"]) < TOLERANCE


def test_lora_kept_apart_gives_the_same_numbers() -> None:
    apart = fill(*adopted()).eval()
    assert any("lora_A" in name for name in apart.state_dict())
    features = apart.encode_image(array("nonsquare/image"))
    assert_features(features, "nonsquare/image_feats")


def test_training_mode_pools_the_grid() -> None:
    config, weights = adopted()
    quiet = replace(
        config,
        image=replace(config.image, lora=LoraConfig(dropout=0.0)),
        audio=replace(config.audio, dropout=0.0, layer_drop=0.0, time_mask=0.0),
    )
    model = fill(quiet, weights).train()
    features = model.encode_image(array("image"))
    assert features.shape[-2:] == (14, 14)
    assert_features(features, "train/image_feats")
    audio = model.encode_audio(array("demo/audio"))
    assert error(audio, golden.arrays()["demo/audio_feats"]) < TOLERANCE


def test_export_form_gives_the_same_numbers() -> None:
    model = fill(*merge(*adopted()))
    model.prepare_export(224, 296)
    model.set_attention("eager")
    assert_features(model.encode_image(array("nonsquare/image")), "nonsquare/image_feats")
    audio = model.encode_audio(array("demo/audio"))
    assert error(audio, golden.arrays()["demo/audio_feats"]) < TOLERANCE


def test_volume(features: tuple[Tensor, Tensor]) -> None:
    image, audio = features
    crossed_KTHW = volume(image[1:2], audio[:1])[0]
    theirs_KHWT = golden.arrays()["sim/raw_full_a0v1"][:, :, :, 0]
    assert error(crossed_KTHW.permute(0, 2, 3, 1), theirs_KHWT) < TOLERANCE


@pytest.mark.parametrize("heads", ["max_elementwise", "max", "sum"])
@pytest.mark.parametrize("clips", ["misa", "mima", "sisa", "paired"])
def test_aggregations(features: tuple[Tensor, Tensor], clips: str, heads: str) -> None:
    sims_AV = aggregate(
        all_volumes(*features),
        array("eval/audio_mask"),
        Aggregation(clips=clips, heads=heads),  # type: ignore[arg-type]
        join_heads=True,
    )
    assert error(sims_AV, golden.arrays()[f"agg_variants/{clips}_{heads}"]) < TOLERANCE


def test_nonnegative_similarity_without_mask(features: tuple[Tensor, Tensor]) -> None:
    aggregation = Aggregation(nonnegative=True, mask_silence=False)
    sims_AV = aggregate(
        all_volumes(*features), array("eval/audio_mask"), aggregation, join_heads=True
    )
    assert error(sims_AV, golden.arrays()["agg_variants/misa_nonneg_nomask"]) < TOLERANCE


def test_cls_similarity_rides_along_as_channels() -> None:
    model = fill(*merge(*adopted(sim_use_cls=True))).eval()
    image, audio = model(array("image"), array("wav_norm"))
    assert image.shape[2] == audio.shape[2] == model.config.channels == 384
    mask = array("eval/audio_mask")
    sims_AV = aggregate(all_volumes(image, audio), mask, model.config.aggregation, join_heads=True)
    assert error(sims_AV, golden.arrays()["agg_variants/misa_use_cls"]) < TOLERANCE


def test_released_aggregation_and_calibration(
    model: DenseAV, features: tuple[Tensor, Tensor]
) -> None:
    volume_AVKTHW = all_volumes(*features)
    mask_AT = array("eval/audio_mask")
    joined_AV = aggregate(volume_AVKTHW, mask_AT, model.config.aggregation, join_heads=True)
    heads_AVK = aggregate(volume_AVKTHW, mask_AT, model.config.aggregation, join_heads=False)
    assert error(joined_AV, golden.arrays()["sim/agg"]) < TOLERANCE
    assert error(heads_AVK, golden.arrays()["sim/agg_per_head"]) < TOLERANCE
    assert error(model.calibrator(joined_AV), golden.arrays()["sim/cal"]) < TOLERANCE


def test_pairs_agree_with_the_diagonal(model: DenseAV, features: tuple[Tensor, Tensor]) -> None:
    mask_BT = array("eval/audio_mask")
    paired_BK = aggregate(
        model.similarity(*features), mask_BT, model.config.aggregation, join_heads=False
    )
    assert error(paired_BK, golden.arrays()["sim/paired_agg_per_head"]) < TOLERANCE
