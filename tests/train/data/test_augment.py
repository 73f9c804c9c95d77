"""Pictures and sound as training changes them, held against recorded numbers and by meaning."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from denseav.models.audio_encoder import normalize_wave
from denseav.models.image_encoder import IMAGE_MEAN, IMAGE_STD
from denseav.train.data.augment import (
    Pictures,
    draw_splice,
    draw_window,
    mix,
    quad,
    splice,
)

Arrays = dict[str, NDArray[np.generic]]


@pytest.fixture(scope="module")
def golden() -> Arrays:
    with np.load(Path(__file__).parents[2] / "golden" / "data.npz") as file:
        return dict(file)


def tensor(golden: Arrays, name: str) -> Tensor:
    return torch.from_numpy(golden[name])


def noisy(width: int = 90, height: int = 60, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_a_splice_is_the_recorded_one(golden: Arrays) -> None:
    wave_S, share_S = splice(tensor(golden, "splice/wave"), tensor(golden, "splice/other"), 2000)
    torch.testing.assert_close(wave_S, tensor(golden, "splice/out"), atol=2e-6, rtol=0)
    torch.testing.assert_close(share_S, tensor(golden, "splice/mask"), atol=1e-6, rtol=0)


def test_fitted_pictures_are_the_recorded_ones(golden: Arrays) -> None:
    picture = Image.fromarray(np.ascontiguousarray(np.moveaxis(golden["img/in"], 0, -1)))
    image_3HW = Pictures(224, augment=False)(picture, np.random.default_rng(0))
    expected = tensor(golden, "img/fitted_every4th")
    torch.testing.assert_close(image_3HW[:, ::4, ::4], expected, atol=2e-6, rtol=0)


def test_the_normalised_wave_is_the_recorded_one(golden: Arrays) -> None:
    wave_S = torch.nn.functional.pad(tensor(golden, "prep/padded"), (0, 164_200 - 48_000))
    every50th = normalize_wave(wave_S)[::50]
    torch.testing.assert_close(every50th, tensor(golden, "prep/hubert_every50th"))


def test_pictures_depend_on_the_random_alone() -> None:
    pictures, picture = Pictures(32, augment=True), noisy()
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = (pictures(picture, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_pictures_leave_the_gpus_generators_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaded in the training process, pictures must not decide what dropout draws on a GPU."""
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    Pictures(32, augment=True)(noisy(), np.random.default_rng(1))
    assert not seeded


def test_pictures_are_cropped_flipped_and_sometimes_grey() -> None:
    pictures, picture = Pictures(16, augment=True), noisy()
    mean, deviation = torch.tensor(IMAGE_MEAN), torch.tensor(IMAGE_STD)
    grey = 0
    for seed in range(200):
        image_3HW = pictures(picture, np.random.default_rng(seed))
        assert image_3HW.shape == (3, 16, 16)
        rgb_3HW = image_3HW * deviation[:, None, None] + mean[:, None, None]
        assert rgb_3HW.min() > -1e-5
        assert rgb_3HW.max() < 1 + 1e-5
        grey += bool((rgb_3HW.amax(0) - rgb_3HW.amin(0)).max() < 1e-5)
    assert 8 <= grey <= 36


def test_a_quad_has_each_picture_once_and_knows_its_own() -> None:
    images_B3HW = torch.arange(1.0, 5).view(4, 1, 1, 1).expand(4, 3, 8, 8)
    places = set()
    for seed in range(30):
        image_3HW, own_1HW = quad(images_B3HW, np.random.default_rng(seed))
        corners = image_3HW[0, [0, 0, 7, 7], [0, 7, 0, 7]]
        assert sorted(corners.tolist()) == [1, 2, 3, 4]
        assert torch.equal(own_1HW[0] == 1, image_3HW[0] == 1)
        places.add(int(corners.argmin()))
    assert places == {0, 1, 2, 3}


def test_a_quad_halves_its_pictures() -> None:
    ramp_HW = torch.arange(8.0).expand(8, 8)
    image_3HW, _ = quad(ramp_HW.expand(4, 3, 8, 8), np.random.default_rng(0))
    expected = torch.tensor([0.5, 2.5, 4.5, 6.5] * 2).expand(3, 8, 8)
    torch.testing.assert_close(image_3HW, expected)


def test_splices_stay_inside_both_sounds() -> None:
    lengths = set()
    for seed in range(300):
        random = np.random.default_rng(seed)
        sound, other = int(random.integers(8_000, 164_200)), int(random.integers(4_000, 200_000))
        begin, span, start = draw_splice(sound, other, random)
        if span:
            assert 0 <= begin <= other - span
            assert 0 <= start <= sound - span
            assert span == other or 16_000 <= span <= 64_000
            lengths.add(span)
    assert len(lengths) > 100


def test_a_sound_shorter_than_the_splice_is_left_alone() -> None:
    assert draw_splice(8_000, 100_000, np.random.default_rng(0)) == (0, 0, 0)


def test_a_very_short_splice_fades_without_reaching_beyond() -> None:
    wave_S, share_S = splice(torch.ones(100), torch.zeros(11), 50)
    assert torch.equal(wave_S, share_S)
    assert torch.equal(share_S[:50], torch.ones(50))
    assert torch.equal(share_S[61:], torch.ones(39))
    assert share_S.min() == 0


def test_windows_keep_half_a_second_at_least() -> None:
    spans = []
    for seed in range(300):
        start, end = draw_window(40_000, np.random.default_rng(seed))
        assert 0 <= start < end <= 40_000
        spans.append(end - start)
    assert min(spans) >= 8_000
    assert max(spans) > 30_000
    assert draw_window(7_000, np.random.default_rng(0)) == (0, 7_000)


def rms(wave_S: Tensor) -> float:
    return float(wave_S.square().mean().sqrt())


@pytest.mark.parametrize("gain_db", [-6.0, 0.0, 10.0])
def test_mixing_levels_where_there_is_sound(gain_db: float) -> None:
    generator = torch.Generator().manual_seed(0)
    wave_S = 0.1 * torch.randn(4000, generator=generator)
    partner_S = 0.01 * torch.randn(4000, generator=generator)
    partner_mask_S = (torch.arange(4000) < 1000).float()
    partner_S = partner_S * partner_mask_S
    mask_S = torch.ones(4000)
    mixed_S = mix(
        wave_S, mask_S, partner_S, partner_mask_S, gain_db=gain_db, level=True, normalized=False
    )
    ratio_db = 20 * np.log10(rms(wave_S) / rms((mixed_S - wave_S)[:1000]))
    assert ratio_db == pytest.approx(gain_db, abs=1e-3)


def test_mixing_without_levels_is_the_sum() -> None:
    wave_S, partner_S, ones_S = torch.full((9,), 0.5), torch.full((9,), 0.25), torch.ones(9)
    mixed_S = mix(wave_S, ones_S, partner_S, ones_S, gain_db=0, level=False, normalized=False)
    assert torch.equal(mixed_S, torch.full((9,), 0.75))


def test_silence_is_not_made_loud() -> None:
    wave_S, silence_S, ones_S = torch.full((9,), 0.5), torch.zeros(9), torch.ones(9)
    mixed_S = mix(wave_S, ones_S, silence_S, ones_S, gain_db=0, level=True, normalized=False)
    assert torch.equal(mixed_S, wave_S)


def test_normalised_mixing_adds_what_hubert_is_given() -> None:
    generator = torch.Generator().manual_seed(0)
    wave_S, partner_S = (
        torch.randn(2, 500, generator=generator) * torch.tensor([[0.1], [9]])
    ).unbind()
    ones_S = torch.ones(500)
    mixed_S = mix(wave_S, ones_S, partner_S, ones_S, gain_db=0, level=True, normalized=True)
    torch.testing.assert_close(mixed_S, normalize_wave(wave_S) + normalize_wave(partner_S))
