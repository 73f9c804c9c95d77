"""The pipeline against the plain way of doing it, on the bundle that ships."""

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import soxr
from numpy.typing import NDArray

from denseav.export.builder import probe_inputs
from denseav.export.runtime.bundle import (
    SAMPLE_RATE_HZ,
    TOKEN_HOP_SAMPLES,
    TOKEN_SPAN_SAMPLES,
    Bundle,
    demo_folder,
    open_bundle,
)
from denseav.export.runtime.open_session import open_session
from denseav.export.runtime.session import Session
from denseav.stream.audio.level_normalizer import LevelNormalizer
from denseav.stream.inference.audio_pass import loudness_dbfs
from denseav.stream.inference.hop_controller import HopController
from denseav.stream.inference.pipeline import Pipeline
from denseav.stream.types import AudioBlock, Frame
from tests.support.fake_session import FakeSession, fake_manifest

RATE_HZ = 44_100
SOUND_SC = probe_inputs.sounds(2, 3 * RATE_HZ, seed=5).T
PICTURE = cv2.resize(probe_inputs.frames(1, 48, 64, seed=5)[0], (320, 240))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle(demo_folder())


@pytest.fixture(scope="module")
def session(bundle: Bundle) -> Session:
    return open_session(bundle, "cpu")


def blocks(samples: int, start_s: float = 100.0) -> Iterator[AudioBlock]:
    for first in range(0, len(SOUND_SC), samples):
        piece = SOUND_SC[first : first + samples]
        yield AudioBlock(piece, RATE_HZ, first, start_s + first / RATE_HZ)


def offline_heat(
    bundle: Bundle, session: Session, level: LevelNormalizer, end: int
) -> NDArray[np.float32]:
    """The oracle: resample the whole sound at once, cut the window out, run the three graphs.

    It is normalised as a live window is: `level` is given every window before it.
    """
    wave_S = soxr.resample(SOUND_SC.mean(axis=1, dtype=np.float32), RATE_HZ, SAMPLE_RATE_HZ)
    window = bundle.manifest.audio.window_samples
    wave_S = np.concatenate((np.zeros(window, dtype=np.float32), wave_S))[end : end + window]
    size = bundle.manifest.image
    rgb = cv2.resize(PICTURE, (size.width, size.height), interpolation=cv2.INTER_AREA)[..., ::-1]
    image = session.encode_image(np.ascontiguousarray(rgb))
    audio = session.encode_audio(wave_S, level.least_deviation(wave_S, end))
    return session.heatmap(image, audio, bundle.manifest.audio.tokens - 1)


@pytest.mark.parametrize("samples", [441, 4096, 50_000])
def test_streaming_equals_offline(bundle: Bundle, session: Session, samples: int) -> None:
    pipeline = Pipeline(session, bundle.manifest, hop_controller=HopController())
    level = LevelNormalizer(bundle.manifest.audio.energy_floor_dbfs)
    ends = []
    for block in blocks(samples):
        pipeline.push(block)
        if not pipeline.encode_audio():
            continue
        heatmap = pipeline.heatmap(Frame(PICTURE, 0, block.end_s))
        end = round((heatmap.audio_end_s - 100.0) * SAMPLE_RATE_HZ)
        expected = offline_heat(bundle, session, level, end)
        assert np.abs(heatmap.heat_KHW - expected).max() <= 1e-4 * np.abs(expected).max()
        ends.append(end)
    assert len(ends) >= 2
    assert all((end - TOKEN_SPAN_SAMPLES) % TOKEN_HOP_SAMPLES == 0 for end in ends)


def test_every_hop_is_heard_when_blocks_are_short() -> None:
    session = FakeSession()
    pipeline = Pipeline(session, fake_manifest())
    for block in blocks(441):
        pipeline.push(block)
        pipeline.encode_audio()
    hops = (3 * SAMPLE_RATE_HZ - TOKEN_SPAN_SAMPLES) // TOKEN_HOP_SAMPLES + 1
    assert len(session.windows) in (hops - 1, hops)  # the resampler holds back some milliseconds
    assert pipeline.hops_skipped == 0


def test_hops_that_come_together_are_skipped_and_counted() -> None:
    session = FakeSession()
    pipeline = Pipeline(session, fake_manifest())
    ends_s = []
    for block in blocks(44_100):
        pipeline.push(block)
        pipeline.encode_audio()
        ends_s.append(pipeline.heatmap(Frame(PICTURE, 0, block.end_s)).audio_end_s)
    hops = round((ends_s[-1] - ends_s[0]) * SAMPLE_RATE_HZ / TOKEN_HOP_SAMPLES)
    assert len(session.windows) == 3
    assert len(session.windows) - 1 + pipeline.hops_skipped == hops
    assert pipeline.hops_skipped > 3


def test_before_any_sound_no_head_is_valid() -> None:
    heatmap = Pipeline(FakeSession(), fake_manifest()).heatmap(Frame(PICTURE, 7, 3.5))
    assert heatmap.valid_K == (False, False)
    assert heatmap.heat_KHW.shape == (2, 2, 3)
    assert not heatmap.heat_KHW.any()
    assert heatmap.frame.index == 7


@pytest.mark.parametrize(("level", "valid"), [(0.0, False), (0.0003, False), (0.1, True)])
def test_no_head_is_valid_below_the_energy_floor(level: float, valid: bool) -> None:
    pipeline = Pipeline(FakeSession(), fake_manifest(energy_floor_dbfs=-60))
    wave_SC = np.full((16_000, 1), level, dtype=np.float32)
    pipeline.push(AudioBlock(wave_SC, 16_000, 0, 0.0))
    assert pipeline.encode_audio()
    heatmap = pipeline.heatmap(Frame(PICTURE, 0, 1.0))
    assert heatmap.valid_K == (valid, valid)
    assert heatmap.rms_dbfs == pytest.approx(20 * np.log10(level) if level else -120, abs=0.01)


def test_a_heatmap_says_which_sound_it_used() -> None:
    pipeline = Pipeline(FakeSession(), fake_manifest())
    pipeline.push(AudioBlock(np.ones((16_000, 1), dtype=np.float32), 16_000, 0, 50.0))
    pipeline.encode_audio()
    heatmap = pipeline.heatmap(Frame(PICTURE, 0, 51.0))
    assert heatmap.audio_end_s - heatmap.audio_start_s == pytest.approx(0.185)
    assert 0 <= 51.0 - heatmap.audio_end_s < 0.181


@pytest.mark.parametrize("size", [(16, 16), (240, 320), (720, 1280), (4320, 7680)])
def test_frames_of_any_size_give_the_same_grid(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 255, dtype=np.uint8)
    pipeline = Pipeline(FakeSession(), fake_manifest())
    pipeline.push(AudioBlock(np.ones((16_000, 1), dtype=np.float32), 16_000, 0, 0.0))
    pipeline.encode_audio()
    heat_KHW = pipeline.heatmap(Frame(image, 0, 1.0)).heat_KHW
    assert heat_KHW.shape == (2, 2, 3)
    assert heat_KHW[0] == pytest.approx(np.ones((2, 3)))


def test_loudness_of_a_full_scale_square_is_zero_and_of_silence_the_least() -> None:
    assert loudness_dbfs(np.array([1, -1, 1, -1], dtype=np.float32)) == pytest.approx(0)
    assert loudness_dbfs(np.zeros(4, dtype=np.float32)) == -120
