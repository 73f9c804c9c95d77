"""Engines built and run through the real code, with TensorRT and CUDA faked at their seams.

The fake GPU does nothing before it is waited for, and its engines are the exported programs:
so the numbers are right only if every buffer, stream and wait is.
"""

import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from denseav.export import cli
from denseav.export.builder import probe_inputs
from denseav.export.runtime.bundle import (
    TOKEN_HOP_SAMPLES,
    TOKEN_SPAN_SAMPLES,
    Bundle,
    BundleError,
    open_bundle,
    window_samples,
)
from denseav.export.runtime.open_session import open_session
from denseav.export.runtime.session import Interrupted, Level, Session
from denseav.models import save
from tests.support.export.fake_gpu import Context, Gpu, Stream, fake_gpu
from tests.support.export.tiny_exports import ARGUMENTS, FRAME_SIZE
from tests.support.tiny_model import tiny

ENGINES = ("--trt", "fp16", "--trt-builder", "torch-tensorrt")


@pytest.fixture(scope="module")
def gpu() -> Iterator[Gpu]:
    with fake_gpu() as gpu:
        yield gpu


@pytest.fixture(scope="module")
def bundle(gpu: Gpu, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A tiny model in half precision, exported with engines by the command itself."""
    folder = tmp_path_factory.mktemp("trt")
    save(tiny(), folder / "checkpoint")
    source, out = str(folder / "checkpoint"), str(folder / "bundle")
    assert cli.main([source, "--out", out, *ARGUMENTS, *ENGINES]) == 0
    return open_bundle(folder / "bundle")


@pytest.fixture
def session(gpu: Gpu, bundle: Bundle) -> Session:
    return open_session(bundle, "trt")


@pytest.fixture(scope="module")
def plain(bundle: Bundle) -> Session:
    """The slow and obvious one: the same bundle's ONNX graphs on the CPU."""
    return open_session(bundle, "cpu")


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return probe_inputs.frames(3, *FRAME_SIZE, seed=5)


@pytest.fixture(scope="module")
def sounds(bundle: Bundle) -> np.ndarray:
    return probe_inputs.sounds(3, bundle.manifest.audio.window_samples, seed=5)


def close(heat: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.abs(heat - expected).max() <= 0.01 * np.abs(expected).max())


def heat_of(session: Session, picture: np.ndarray, sound: np.ndarray, token: int = 3) -> np.ndarray:
    return session.heatmap(session.encode_image(picture), session.encode_audio(sound), token)


def test_the_command_builds_engines_and_measures_them_as_they_run_live(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest.precision == "fp16"
    names = {
        f"{graph}.{ending}"
        for graph in bundle.graphs
        for ending in ("onnx", "engine", "engine.json")
    }
    assert set(manifest.files) == {*names, "probes.npz"}
    assert "audio_step" in bundle.graphs
    assert set(manifest.engine_parity) == set(manifest.parity) == {"speech", "sound"}
    assert all(f["rank_correlation"] >= 0.999 for f in manifest.engine_parity.values())


@pytest.mark.parametrize("token", [0, 3])
def test_engines_give_the_heatmaps_that_the_onnx_graphs_give(
    session: Session, plain: Session, pictures: np.ndarray, sounds: np.ndarray, token: int
) -> None:
    heat = heat_of(session, pictures[0], sounds[0], token)
    assert (heat.shape, heat.dtype) == ((2, 4, 6), np.float32)
    assert close(heat, heat_of(plain, pictures[0], sounds[0], token))
    assert not close(heat, heat_of(plain, pictures[0], sounds[0], 1))
    assert (session.backend, session.precision) == ("tensorrt", "fp16")


def test_features_that_are_held_are_never_overwritten(
    session: Session, plain: Session, pictures: np.ndarray, sounds: np.ndarray
) -> None:
    images = [session.encode_image(picture) for picture in pictures]
    audios = [session.encode_audio(sound) for sound in sounds]
    for i, image in enumerate(images):
        for k, audio in enumerate(audios):
            expected = heat_of(plain, pictures[i], sounds[k])
            assert close(session.heatmap(image, audio, 3), expected)


def test_a_heatmap_stays_as_it_was_given(
    session: Session, pictures: np.ndarray, sounds: np.ndarray
) -> None:
    first = heat_of(session, pictures[0], sounds[0])
    before = first.copy()
    heat_of(session, pictures[1], sounds[1])
    np.testing.assert_array_equal(first, before)


def test_features_can_be_looked_at_and_stay_what_they_were(
    session: Session, plain: Session, pictures: np.ndarray
) -> None:
    held = [session.encode_image(picture) for picture in pictures]
    looked_at = [session.dense(image) for image in held]
    for picture, features in zip(pictures, looked_at, strict=True):
        expected = plain.dense(plain.encode_image(picture))
        assert (features.shape, features.dtype) == (expected.shape, np.float32)
        assert close(features, expected)
    np.testing.assert_array_equal(session.dense(held[0]), looked_at[0])


@pytest.mark.parametrize("how", ["recorded", "off", "refused"])
def test_a_stream_on_the_gpu_gives_what_the_onnx_graph_streams(
    gpu: Gpu,
    bundle: Bundle,
    pictures: np.ndarray,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if how == "off":
        monkeypatch.setenv("DENSEAV_CUDA_GRAPHS", "0")
    monkeypatch.setattr(gpu.cuda, "records", how != "refused")
    session = open_session(bundle, "trt", audio="streaming")
    plain = open_session(bundle, "cpu", audio="streaming")
    streams = session.audio_stream(), plain.audio_stream()
    images = session.encode_image(pictures[0]), plain.encode_image(pictures[0])
    newest = bundle.manifest.audio.tokens - 1
    wave_S = probe_inputs.sounds(1, window_samples(9), seed=5)[0]
    level = Level.of(wave_S)
    memory, held = len(gpu.cuda.memory), []
    for turn, reset in enumerate([False] * 4 + [True] + [False] * 4):
        if reset:  # after an odd number of steps too: either side can be the first
            for stream in streams:
                stream.reset()
        token_S = wave_S[turn * TOKEN_HOP_SAMPLES :][:TOKEN_SPAN_SAMPLES]
        features = [stream.step(token_S, level) for stream in streams]
        heats = [
            one.heatmap(image, audio, newest)
            for one, image, audio in zip((session, plain), images, features, strict=True)
        ]
        assert close(*heats)
        held.append((features[0], heats[0]))
    for features, heat in held:  # what was given out stays, while the stream went on
        np.testing.assert_array_equal(session.heatmap(images[0], features, newest), heat)
    del features, held
    fresh = session.audio_stream()
    streams[0].reset()
    first = [stream.step(wave_S[:TOKEN_SPAN_SAMPLES], level) for stream in (fresh, streams[0])]
    a, b = (session.heatmap(images[0], audio, newest) for audio in first)
    np.testing.assert_array_equal(a, b)
    del streams, fresh, first
    gc.collect()
    grown = len(gpu.cuda.memory)
    for _ in range(5):
        session.audio_stream().step(wave_S[:TOKEN_SPAN_SAMPLES], level)
    assert len(gpu.cuda.memory) == grown > memory


def test_a_stream_is_refused_where_windows_were_asked_for_and_the_other_way_round(
    session: Session, bundle: Bundle, sounds: np.ndarray
) -> None:
    with pytest.raises(BundleError, match="for whole windows of audio"):
        session.audio_stream()
    with pytest.raises(BundleError, match="to stream audio"):
        open_session(bundle, "trt", audio="streaming").encode_audio(sounds[0])


def test_memory_is_used_again_and_does_not_grow(
    gpu: Gpu, session: Session, pictures: np.ndarray, sounds: np.ndarray
) -> None:
    heat_of(session, pictures[0], sounds[0])
    held = len(gpu.cuda.memory)
    for turn in range(10):
        heat_of(session, pictures[turn % 3], sounds[turn % 3])
    assert len(gpu.cuda.memory) == held


def replays() -> int:
    return sum(stream.replayed for stream in Stream.all.values())


@pytest.mark.parametrize("how", ["recorded", "off", "refused"])
def test_passes_are_recorded_once_for_each_place_and_give_what_plain_ones_give(
    gpu: Gpu,
    bundle: Bundle,
    plain: Session,
    pictures: np.ndarray,
    sounds: np.ndarray,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if how == "off":
        monkeypatch.setenv("DENSEAV_CUDA_GRAPHS", "0")
    monkeypatch.setattr(gpu.cuda, "records", how != "refused")
    gc.collect()
    graphs = gpu.cuda.graphs
    before = replays()
    session = open_session(bundle, "trt")
    for turn in range(6):
        picture, sound = pictures[turn % 3], sounds[turn % 3]
        expected = heat_of(plain, picture, sound)
        held = session.encode_image(picture)  # so that pictures need two places
        assert close(heat_of(session, picture, sound), expected)
        assert close(session.heatmap(held, session.encode_audio(sound), 3), expected)
    recorded = how == "recorded"
    assert gpu.cuda.graphs - graphs == (4 if recorded else 0)
    assert (replays() > before) == recorded
    del session, held
    gc.collect()
    assert gpu.cuda.graphs == graphs


def test_all_memory_and_streams_go_with_the_session(
    gpu: Gpu, bundle: Bundle, pictures: np.ndarray, sounds: np.ndarray
) -> None:
    gc.collect()
    memory, streams = len(gpu.cuda.memory), len(Stream.all)
    session = open_session(bundle, "trt")
    image, audio = session.encode_image(pictures[0]), session.encode_audio(sounds[0])
    assert len(Stream.all) == streams + 2
    session.heatmap(image, audio, 0)
    del session, image, audio
    gc.collect()
    assert (len(gpu.cuda.memory), len(Stream.all)) == (memory, streams)


def test_features_are_complete_when_given_out_so_that_each_stage_has_its_own_time(
    gpu: Gpu, session: Session, pictures: np.ndarray, sounds: np.ndarray
) -> None:
    audio = session.encode_audio(sounds[0])
    heard = gpu.cuda.waits[-1]
    assert heard.pending == []
    gpu.cuda.waits.clear()
    image = session.encode_image(pictures[0])
    (seen,) = gpu.cuda.waits
    assert seen is not heard
    assert seen.pending == []
    gpu.cuda.waits.clear()
    session.heatmap(image, audio, 0)
    assert gpu.cuda.waits == [seen]


def test_sound_and_pictures_run_in_threads_of_their_own(
    session: Session, plain: Session, pictures: np.ndarray, sounds: np.ndarray
) -> None:
    newest, stop = [(0, session.encode_audio(sounds[0]))], threading.Event()

    def hear() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            newest[0] = (turn % 3, session.encode_audio(sounds[turn % 3]))

    thread = threading.Thread(target=hear)
    thread.start()
    expected = [[heat_of(plain, picture, sound) for sound in sounds] for picture in pictures]
    try:
        for turn in range(30):
            which, audio = newest[0]
            heat = session.heatmap(session.encode_image(pictures[turn % 3]), audio, 3)
            assert close(heat, expected[turn % 3][which])
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("picture", [np.zeros((32, 49, 3), np.uint8), np.zeros((32, 48, 3))])
def test_an_array_of_another_shape_or_type_never_reaches_the_gpu(
    session: Session, picture: np.ndarray
) -> None:
    with pytest.raises((ValueError, TypeError)):
        session.encode_image(picture)


def test_an_engine_that_tensorrt_refuses_is_one_line_with_its_reason(
    gpu: Gpu, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "engines", {})
    with pytest.raises(BundleError, match=r"image\.engine \(magic tag does not match\); rebuild"):
        open_session(bundle, "trt")


def test_a_run_that_fails_is_an_error(
    gpu: Gpu, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Context, "broken", True)
    with pytest.raises(BundleError, match=r"TensorRT cannot run .*image\.engine"):
        open_session(bundle, "trt")


def test_an_interrupted_session_begins_no_pass(
    bundle: Bundle, pictures: np.ndarray, sounds: np.ndarray
) -> None:
    session = open_session(bundle, "trt")
    image, audio = session.encode_image(pictures[0]), session.encode_audio(sounds[0])
    session.interrupt()
    for begin in (
        lambda: session.encode_image(pictures[0]),
        lambda: session.encode_audio(sounds[0]),
        lambda: session.heatmap(image, audio, 0),
    ):
        with pytest.raises(Interrupted):
            begin()


def test_a_full_gpu_is_an_error_in_cudas_words(
    gpu: Gpu, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu.cuda, "full", True)
    with pytest.raises(BundleError, match=r"cudaErrorMemoryAllocation\); free it, or use"):
        open_session(bundle, "trt")


def test_a_driver_older_than_the_library_is_an_error_with_the_remedy(
    gpu: Gpu, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu.cuda, "old", True)
    with pytest.raises(BundleError, match=r"InsufficientDriver\); update the NVIDIA driver"):
        open_session(bundle, "trt")


def test_engines_over_tolerance_are_not_kept(
    gpu: Gpu, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    right = Context._run

    def wrong(self: Context, addresses: dict[str, int]) -> None:
        right(self, addresses)
        if self.engine.outputs == ("heat",):
            heat = self._view("heat", addresses["heat"])
            heat[...] = heat[:, ::-1]

    monkeypatch.setattr(Context, "_run", wrong)
    out = tmp_path / "bundle"
    source = bundle.manifest.source
    assert cli.main([source, "--out", str(out), *ARGUMENTS, *ENGINES]) == 4
    assert "tensorrt in fp16 does not compute this model" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
