"""What live windows are normalised by, and that a session keeps to it."""

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from denseav.export.builder import probe_inputs
from denseav.export.builder.graphs import make_graphs
from denseav.export.runtime.bundle import TOKEN_HOP_SAMPLES, Bundle, window_samples
from denseav.export.runtime.open_session import open_session
from denseav.export.runtime.session import Level, normalized
from denseav.models.audio_encoder import normalize_wave
from denseav.stream.audio.level_normalizer import LevelNormalizer
from denseav.stream.inference.pipeline import Pipeline
from denseav.stream.types import AudioBlock, Frame
from tests.support.export.tiny_exports import TOKENS, exported
from tests.support.fake_session import FakeSession, fake_manifest
from tests.support.tiny_model import tiny

FLOOR_DBFS = -60.0
SAMPLES = window_samples(TOKENS)
PICTURE = probe_inputs.frames(1, 32, 48, seed=3)[0]


def stream(seconds: float = 12.0) -> NDArray[np.float32]:
    """A voice of one second, and then the noise of a quiet room."""
    rng = np.random.default_rng(2)
    wave_S = 0.002 * rng.standard_normal(round(16_000 * seconds)).astype(np.float32)
    wave_S[:16_000] += probe_inputs.sounds(1, 16_000)[0]
    return wave_S


def oracle(wave_S: NDArray[np.float32], ends: list[int], samples: int) -> list[float]:
    """At each end, the loudest of all windows so far, each faded by its age, and the floor."""
    padded_S = np.concatenate((np.zeros(samples, np.float32), wave_S))
    loud_N = np.array([padded_S[end : end + samples].std(dtype=np.float64) for end in ends])
    age_NN = (np.array(ends)[:, None] - np.array(ends)) / 16_000
    faded_NN = np.where(age_NN >= 0, loud_N * 10 ** (-0.1 * age_NN), 0)
    return [*np.maximum(faded_NN.max(axis=1), 0.01)]


def test_the_newest_window_is_normalised_by_what_was_lately_loud() -> None:
    session, wave_S = FakeSession(), stream()
    pipeline = Pipeline(session, fake_manifest(FLOOR_DBFS))
    ends = []
    for first in range(0, len(wave_S), 1600):
        pipeline.push(AudioBlock(wave_S[first : first + 1600, None], 16_000, first, first / 16_000))
        if pipeline.encode_audio():
            heatmap = pipeline.heatmap(Frame(PICTURE, 0, 0.0))
            ends.append(round(heatmap.audio_end_s * 16_000))
    expected = oracle(wave_S, ends, len(session.windows[0]))
    assert session.deviations == pytest.approx(expected, rel=1e-4)
    # The voice fades by 2 dB a second, and the room's noise never becomes as loud as it.
    assert session.deviations[-1] == pytest.approx(0.01)
    assert np.std(session.windows[-1]) < 0.25 * session.deviations[-1]


def test_skipped_hops_fade_as_much_as_heard_ones() -> None:
    loud_S, quiet_S = stream()[:SAMPLES], np.zeros(SAMPLES, np.float32)
    often, seldom = LevelNormalizer(FLOOR_DBFS), LevelNormalizer(FLOOR_DBFS)
    for loudness in (often, seldom):
        loudness.least_deviation(loud_S, 0)
    for hop in range(1, 9):
        last = often.least_deviation(quiet_S, hop * TOKEN_HOP_SAMPLES)
    assert seldom.least_deviation(quiet_S, 8 * TOKEN_HOP_SAMPLES) == pytest.approx(last)
    assert last == pytest.approx(np.std(loud_S) * 10 ** (-2 * 8 * 0.18 / 20), rel=1e-5)


@pytest.mark.parametrize("tokens", [[5], [1], [1, 1, 4, 1, 1, 1]], ids=str)
def test_a_level_is_that_of_its_window_with_the_least_deviation(tokens: list[int]) -> None:
    """However many tokens windows move on by: what is known of the one before is never stale."""
    wave_S = stream()
    wave_S[30_000:30_100] = np.nan
    one, other = LevelNormalizer(FLOOR_DBFS), LevelNormalizer(FLOOR_DBFS)
    end = SAMPLES
    for hop in 10 * tokens:
        end += hop * TOKEN_HOP_SAMPLES
        if end > len(wave_S):
            break
        window_S = wave_S[end - SAMPLES : end]
        expected = Level.of(window_S, other.least_deviation(window_S, end))
        assert one.level(window_S, end) == pytest.approx(expected, rel=1e-9)


def test_without_a_least_deviation_a_window_is_normalised_as_in_training() -> None:
    wave_S = stream(1.0)
    for window_S in (wave_S, 0.0001 * wave_S, np.zeros(100, np.float32)):
        trained_S = normalize_wave(torch.from_numpy(window_S)[None])[0].numpy()
        assert normalized(window_S) == pytest.approx(trained_S, abs=1e-4)


def test_a_least_deviation_keeps_quiet_windows_quiet_and_loud_ones_as_they_are() -> None:
    wave_S = stream(1.0)
    deviation = float(wave_S.std(dtype=np.float64))
    assert np.array_equal(normalized(wave_S, deviation / 2), normalized(wave_S))
    assert normalized(wave_S, 4 * deviation).std() == pytest.approx(0.25, rel=1e-3)
    assert normalized(wave_S + 0.5, 4 * deviation).mean() == pytest.approx(0, abs=1e-4)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, shared_graphs: None) -> Bundle:
    return exported(tmp_path_factory.mktemp("bundle"))


def test_an_exported_model_hears_a_window_as_pytorch_does_at_any_deviation(bundle: Bundle) -> None:
    model = tiny()
    model.prepare_export(32, 48)
    session, wave_S = open_session(bundle, "cpu"), stream()[:SAMPLES]
    image = session.encode_image(PICTURE)
    reference_KCHW = torch.from_numpy(np.array(image.numpy()))
    heats = []
    for least in (0.0, 10 * float(wave_S.std())):
        with torch.no_grad():
            normed_S = torch.from_numpy(wave_S - wave_S.mean()) / max(float(wave_S.std()), least)
            audio_KCT = model.encode_audio(normed_S[None])[0]
        expected = torch.einsum("kc,kchw->khw", audio_KCT[:, :, 2], reference_KCHW).numpy()
        heat = session.heatmap(image, session.encode_audio(wave_S, least), 2)
        assert np.abs(heat - expected).max() <= 1e-3 * np.abs(expected).max()
        same = make_graphs(model).encode_audio(wave_S, least).numpy()
        assert np.abs(same - audio_KCT.numpy()).max() <= 1e-3 * np.abs(same).max()
        heats.append(heat)
    assert np.abs(heats[0] - heats[1]).max() > 0.01 * np.abs(heats[0]).max()


def test_a_graph_that_normalises_by_itself_is_given_the_sound_as_it_is(bundle: Bundle) -> None:
    assert bundle.manifest.audio.takes_normalized
    audio = dataclasses.replace(bundle.manifest.audio, takes_normalized=False)
    manifest = dataclasses.replace(bundle.manifest, audio=audio)
    old = Bundle(folder=bundle.folder, manifest=manifest)
    new, wave_S = open_session(bundle, "cpu"), stream()[:SAMPLES]
    expected = new.encode_audio(wave_S, 0.5).numpy()
    given = open_session(old, "cpu").encode_audio(normalized(wave_S, 0.5), 9.0).numpy()
    assert np.array_equal(given, expected)
