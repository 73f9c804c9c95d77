"""`denseav.load_bundle`: what the session computes, for one clip or many; no bad arrays."""

from typing import Any

import cv2
import numpy as np
import pytest

import denseav
from denseav.export.runtime.bundle import demo_folder, open_bundle
from denseav.export.runtime.onnx_session import OnnxSession
from tests.support.media import tone

SEED = np.random.default_rng(0)


@pytest.fixture(scope="module")
def bundle() -> denseav.LoadedBundle:
    return denseav.load_bundle(demo_folder(), device="cpu")


@pytest.fixture(scope="module")
def images(bundle: denseav.LoadedBundle) -> Any:
    size = open_bundle(demo_folder()).manifest.image
    return SEED.integers(0, 255, (2, size.height, size.width, 3), np.uint8)


def wave(seconds: float) -> Any:
    return tone(16_000, seconds)[:, 0]


def test_a_whole_window_is_what_the_session_makes_of_it(
    bundle: denseav.LoadedBundle, images: Any
) -> None:
    opened = open_bundle(demo_folder())
    session, audio = OnnxSession(opened), opened.manifest.audio
    window_S = wave(3)[: audio.window_samples]
    seen = session.encode_image(cv2.cvtColor(images[0], cv2.COLOR_BGR2RGB))
    heard = session.encode_audio(window_S)
    expected_KTHW = np.stack([session.heatmap(seen, heard, t) for t in range(audio.tokens)], 1)
    found_KTHW = bundle.heatmaps(images[0], window_S)
    assert found_KTHW.shape == (2, audio.tokens, *bundle.grid)
    np.testing.assert_array_equal(found_KTHW, expected_KTHW)
    assert [head.name for head in bundle.heads] == ["speech", "sound"]
    assert bundle.window_s == audio.window_samples / 16_000


def test_clips_are_what_each_of_them_is(bundle: denseav.LoadedBundle, images: Any) -> None:
    waves = np.stack([wave(1), 0.1 * wave(1)[::-1]])
    found_NKTHW = bundle.heatmaps(images, waves)
    assert found_NKTHW.shape[:3] == (2, 2, 5)
    for clip in range(2):
        np.testing.assert_array_equal(found_NKTHW[clip], bundle.heatmaps(images[clip], waves[clip]))


def test_audio_of_another_rate_is_the_same_audio(bundle: denseav.LoadedBundle, images: Any) -> None:
    fine = bundle.heatmaps(images[0], tone(48_000, 1.0)[:, 0], rate_hz=48_000)
    plain = bundle.heatmaps(images[0], (wave(1) * 2**15).astype(np.int16))
    assert fine.shape == plain.shape
    assert np.corrcoef(fine.ravel(), plain.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(
    ("image", "audio", "words"),
    [
        (np.zeros((64, 64, 3)), wave(1), "a uint8 array, not float64"),
        (np.zeros((64, 64), np.uint8), wave(1), r"\[height, width, 3\], not \[64, 64\]"),
        (np.zeros((64, 64, 3), np.uint8), wave(0.1), r"lasts 0\.185 to .* not 0\.1; for more"),
        (np.zeros((64, 64, 3), np.uint8), wave(9), "not 9; for more"),
        (np.zeros((64, 64, 3), np.uint8), tone(16_000, 1, channels=2), r"give audio\.mean"),
        (np.zeros((64, 64, 3), np.uint8), "a sound", "audio is an array, not str"),
        (np.zeros((2, 64, 64, 3), np.uint8), [wave(1)], "2 images do not go with 1 pieces"),
        (np.zeros((2, 64, 64, 3), np.uint8), [wave(1), wave(0.5)], "audio of clips has one length"),
        ([], [], "0 images do not go with 0"),
    ],
)
def test_what_is_no_clip_is_refused(
    bundle: denseav.LoadedBundle, image: Any, audio: Any, words: str
) -> None:
    with pytest.raises(denseav.UsageError, match=words):
        bundle.heatmaps(image, audio)


def test_a_device_that_is_none_is_told() -> None:
    with pytest.raises(denseav.BundleError, match="NVIDIA"):
        denseav.load_bundle(demo_folder(), device="cuda")
