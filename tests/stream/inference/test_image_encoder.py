"""Features of frames: a pass for each, but where it is slow and nothing moved."""

import numpy as np
import pytest
from numpy.typing import NDArray

from denseav.stream.inference import image_encoder
from denseav.stream.inference.hop_controller import HopController
from denseav.stream.inference.image_encoder import STALE_MAX_S, ImageEncoder
from denseav.stream.inference.pipeline import Pipeline
from denseav.stream.inference.sync_policy import Sync
from denseav.stream.types import Frame
from tests.support.fake_session import FakeSession, fake_manifest

RNG = np.random.default_rng(0)
SCENE = RNG.integers(40, 200, (48, 72, 3)).astype(np.uint8)  # three pixels for each of the model's


def noisy() -> NDArray[np.uint8]:
    """The scene as a webcam's sensor sees it again."""
    return np.clip(SCENE + RNG.normal(0, 3, SCENE.shape), 0, 255).astype(np.uint8)


def moved() -> NDArray[np.uint8]:
    """The scene with something grey in it that is as large as half a patch."""
    image = noisy()
    image[12:24, 12:24] = 220
    return image


def passes(
    images: list[NDArray[np.uint8]],
    *,
    reuse: bool = True,
    apart_s: float = 0.1,
) -> tuple[int, int]:
    """Encode frames; return how many were, and how many had another's features."""
    session = FakeSession()
    encoder = ImageEncoder(session, fake_manifest().image, reuse=reuse)
    for index, image in enumerate(images):
        encoder.encode(Frame(image, index, index * apart_s))
    return session.images, encoder.reused


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every pass count as slow."""
    monkeypatch.setattr(image_encoder, "QUICK_PASS_S", -1.0)


@pytest.mark.usefixtures("slow")
def test_noise_alone_is_not_encoded_again() -> None:
    assert passes([noisy() for _ in range(5)]) == (1, 4)


@pytest.mark.usefixtures("slow")
def test_what_moves_is_encoded_at_once() -> None:
    assert passes([noisy(), moved(), noisy(), noisy()]) == (3, 1)


@pytest.mark.usefixtures("slow")
def test_no_features_are_older_than_a_second() -> None:
    frames = round(3 * STALE_MAX_S / 0.25)
    assert passes([noisy() for _ in range(frames)], apart_s=0.25) == (3, frames - 3)


@pytest.mark.usefixtures("slow")
def test_a_slow_drift_of_the_light_does_not_add_up() -> None:
    images = [(SCENE + level).astype(np.uint8) for level in range(0, 30, 2)]
    encoded, _ = passes(images, apart_s=0.01)
    assert encoded == 4  # each is compared with the one that was encoded, not with the last


def test_a_quick_pass_is_run_for_every_frame() -> None:
    assert passes([noisy() for _ in range(5)]) == (5, 0)


@pytest.mark.usefixtures("slow")
def test_the_very_same_picture_is_no_reuse_and_always_free() -> None:
    assert passes([SCENE] * 5, apart_s=10.0) == (1, 0)
    assert passes([noisy() for _ in range(5)], reuse=False) == (5, 0)


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize(
    ("sync", "live", "encoded"),
    [(Sync(), True, 1), (Sync(exact=True), True, 4), (Sync(), False, 4)],
    ids=["live", "exact", "offline"],
)
def test_exact_frames_and_files_are_encoded_one_by_one(
    sync: Sync, live: bool, encoded: int
) -> None:
    session = FakeSession()
    controller = HopController() if live else None
    pipeline = Pipeline(session, fake_manifest(), sync=sync, hop_controller=controller)
    for index in range(4):
        pipeline.heatmap(Frame(noisy(), index, index / 30))
    assert session.images == encoded
