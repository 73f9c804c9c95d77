"""One stored clip becomes one example."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import pytest
import torch

from denseav.train.data.example import (
    NO_AUGMENTATION,
    WAVE_SAMPLES,
    Augmentation,
    Example,
    ExampleMaker,
    decode_sound,
)
from denseav.train.data.shards import Clip
from tests.support.train.made_clips import flac_file, jpeg_file, made_clip


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


T = TypeVar("T")

PLAIN = {"splice": False, "window_share": 0.0, "quad_share": 0.0, "pictures": False}


def example(
    clip: Clip, changes: Augmentation, *, seed: int = 0, other: Clip | None = None
) -> Example:
    def draw_other(use: Callable[[Clip], T]) -> T:
        return use(other or made_clip(20))

    return ExampleMaker(16, changes).make(clip, draw_other, np.random.default_rng(seed))


def changes(**chosen: object) -> Augmentation:
    return Augmentation(**{**PLAIN, **chosen})  # type: ignore[arg-type]


def test_unchanged_it_is_the_middle_picture_and_the_padded_sound() -> None:
    made = example(made_clip(7, kind="speech", frames=3), NO_AUGMENTATION)
    assert made.wave_S.shape == (WAVE_SAMPLES,)
    assert torch.equal(made.audio_mask_S, (torch.arange(WAVE_SAMPLES) < 32_000).float())
    torch.testing.assert_close(made.wave_S, 0.07 * made.audio_mask_S, atol=1e-4, rtol=0)
    assert torch.equal(made.positive_mask_S, torch.ones(WAVE_SAMPLES))
    assert torch.equal(made.plain_S, made.wave_S)
    assert torch.equal(made.image_mask_1HW, torch.ones(1, 16, 16))
    assert made.kind == 0
    green = made.image_3HW[1] * 0.224 + 0.456
    torch.testing.assert_close(green, torch.full((16, 16), 73 / 255), atol=0.006, rtol=0)


def test_a_long_sound_is_cut_to_its_beginning() -> None:
    made = example(made_clip(7, seconds=12), NO_AUGMENTATION)
    assert made.audio_mask_S.min() == 1
    assert made.wave_S[-1] == pytest.approx(0.07, abs=1e-4)


def test_frames_are_drawn_evenly() -> None:
    clip = made_clip(5, frames=4)
    drawn = []
    for seed in range(80):
        green = example(clip, changes(pictures=True), seed=seed).image_3HW[1].mean()
        drawn.append(float(green))
    assert np.ptp(drawn) > 0.03  # beyond one picture's own jitter stand the four greys
    means = {float(example(clip, changes(), seed=seed).image_3HW.mean()) for seed in range(5)}
    assert len(means) == 1


def test_a_splice_lies_in_the_sound_and_is_marked() -> None:
    for seed in range(20):
        made = example(made_clip(5, seconds=6), changes(splice=True), seed=seed)
        expected_S = 0.05 * made.positive_mask_S + 0.20 * (1 - made.positive_mask_S)
        heard_S = made.audio_mask_S == 1
        torch.testing.assert_close(made.wave_S[heard_S], expected_S[heard_S], atol=1e-3, rtol=0)
        assert made.positive_mask_S.min() == 0
        assert torch.equal(made.positive_mask_S[96_000:], torch.ones(WAVE_SAMPLES - 96_000))
        torch.testing.assert_close(
            made.plain_S[:96_000], torch.full((96_000,), 0.05), atol=1e-3, rtol=0
        )


def test_a_window_silences_the_rest_of_all_waves() -> None:
    masked = 0
    for seed in range(60):
        made = example(made_clip(5, seconds=4), changes(window_share=0.5), seed=seed)
        heard = int(made.audio_mask_S.sum())
        masked += heard < 64_000
        assert heard >= 8_000
        assert torch.equal(made.wave_S != 0, made.audio_mask_S == 1)
        assert torch.equal(made.plain_S, made.wave_S)
    assert 15 <= masked <= 45


def test_a_quad_shows_the_clip_where_its_mask_is() -> None:
    made = example(made_clip(5), changes(quad_share=1.0))
    own = made.image_3HW[0][made.image_mask_1HW[0] == 1]
    rest = made.image_3HW[0][made.image_mask_1HW[0] == 0]
    assert len(own) * 3 == len(rest)
    assert own.max() < rest.min()


def test_too_little_sound_is_refused() -> None:
    clip = Clip(key="k", kind="sound", frames=(jpeg_file(9),), audio=flac_file(0.1, 0.4))
    with pytest.raises(ValueError, match=r"less than 0\.41 s"):
        example(clip, NO_AUGMENTATION)


@pytest.mark.parametrize("field", ["audio", "frames"])
def test_what_cannot_be_decoded_is_refused(field: str) -> None:
    files = {"frames": (jpeg_file(9),), "audio": flac_file(0.1, 2)}
    broken = files | {field: b"noise" * 9 if field == "audio" else (b"noise" * 9,)}
    clip = Clip(key="k", kind="sound", **broken)  # type: ignore[arg-type]
    with pytest.raises((ValueError, OSError)):
        example(clip, NO_AUGMENTATION)


def test_sound_is_read_from_any_sample_on() -> None:
    file = flac_file(0.25, 1)
    assert len(decode_sound(file, 15_000, 5_000)) == 1_000
    assert len(decode_sound(file, 2_000, 5_000)) == 5_000
