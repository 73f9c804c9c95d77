"""The audio step of a real bundle, in its session, against PyTorch's and against its window."""

import dataclasses
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from denseav.export.builder import probe_inputs
from denseav.export.builder.build import make_plan
from denseav.export.builder.graphs import Graphs, make_graphs
from denseav.export.runtime.bundle import Bundle, BundleError, window_samples
from denseav.export.runtime.onnx_session import OnnxAudioStream, OnnxSession
from denseav.export.runtime.open_session import open_session
from denseav.export.runtime.openvino_session import OpenVinoSession
from denseav.export.runtime.session import AudioStream, Features, Interrupted, Level, Session
from denseav.models.streaming_mask import StreamConfig
from tests.support.export.tiny_exports import FRAME_SIZE, STREAM, TOKENS, exported
from tests.support.tiny_model import CONFIG, tiny

STEPS = 40


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return exported(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def reference() -> Graphs:
    model = tiny()
    model.prepare_export(*FRAME_SIZE)
    return make_graphs(model, STREAM, TOKENS)


@pytest.fixture(params=["cpu", "openvino"])
def session(bundle: Bundle, request: pytest.FixtureRequest) -> Session:
    return open_session(bundle, request.param, audio="streaming")


@pytest.fixture
def stream(session: Session) -> AudioStream:
    return session.audio_stream()


WAVE_S = probe_inputs.sounds(1, window_samples(STEPS), seed=3)[0]
LEVEL = Level.of(WAVE_S)


def token(index: int, wave_S: NDArray[np.float32] = WAVE_S) -> NDArray[np.float32]:
    return wave_S[2880 * index : 2880 * index + 2960]


def values(features: Features) -> NDArray[np.float32]:
    return np.array(features if isinstance(features, np.ndarray) else features.numpy())


def close(a: NDArray[np.float32], b: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max())


def test_steps_are_pytorchs_however_long_the_stream(stream: AudioStream, reference: Graphs) -> None:
    expected = reference.audio_stream()
    for index in range(STEPS):
        close(values(stream.step(token(index), LEVEL)), values(expected.step(token(index), LEVEL)))


def test_older_tokens_stay_what_they_were_and_shift(stream: AudioStream) -> None:
    seen = [values(stream.step(token(index), LEVEL)) for index in range(8)]
    for before, after in pairwise(seen):
        assert np.array_equal(before[:, :, 1 : TOKENS - STREAM.revisit], after[:, :, :2])
        assert not np.array_equal(before[:, :, -1], after[:, :, -2])  # it was computed again
    assert not seen[0][:, :, :-1].any()  # nothing before the first token
    assert seen[0][:, :, -1].any()


def test_features_that_were_given_out_are_not_written_again(stream: AudioStream) -> None:
    first = stream.step(token(0), LEVEL)
    copy = values(first).copy()
    for index in range(1, 6):
        stream.step(token(index), LEVEL)
    assert np.array_equal(values(first), copy)


def test_a_reset_stream_is_a_new_one(session: Session, stream: AudioStream) -> None:
    for index in range(5):
        stream.step(token(index), LEVEL)
    stream.reset()
    again = session.audio_stream()
    for index in range(10, 14):
        assert np.array_equal(
            values(stream.step(token(index), LEVEL)), values(again.step(token(index), LEVEL))
        )


def test_streams_of_one_session_do_not_mix(session: Session, stream: AudioStream) -> None:
    one, other = session.audio_stream(), session.audio_stream()
    for index in range(4):
        expected = values(stream.step(token(index), LEVEL))
        assert np.array_equal(values(one.step(token(index), LEVEL)), expected)
        other.step(token(index + 20), LEVEL)


def test_states_written_in_place_are_those_of_two_buffers_to_the_last_bit(bundle: Bundle) -> None:
    session = OnnxSession(bundle, audio="streaming")
    step = bundle.manifest.audio_step
    assert step is not None
    assert step.in_place == ("keys_0", "keys_1", "values_0", "values_1")
    twice = dataclasses.replace(bundle.manifest, audio_step=dataclasses.replace(step, in_place=()))
    in_place, copied = (
        OnnxAudioStream(session._graphs["audio_step"], manifest, "cpu", session._run_options)
        for manifest in (bundle.manifest, twice)
    )
    for index in range(3 * STREAM.tokens):  # the ring goes round
        features = values(in_place.step(token(index), LEVEL))
        assert np.array_equal(features, values(copied.step(token(index), LEVEL)))
    in_place.reset()
    copied.reset()
    again = values(in_place.step(token(0), LEVEL))
    assert np.array_equal(again, values(copied.step(token(0), LEVEL)))


def test_a_step_that_broke_off_half_way_can_be_repeated_in_place(bundle: Bundle) -> None:
    session = OnnxSession(bundle, audio="streaming")
    broken, stream = session.audio_stream(), session.audio_stream()
    for index in range(6):
        broken.step(token(index), LEVEL)
        stream.step(token(index), LEVEL)
    sides = broken._next, broken._last, broken._features
    broken.step(token(19), LEVEL)  # what it wrote in place stays, the rest it gave is not taken
    broken._next, broken._last, broken._features = sides
    for index in range(6, 16):
        features = values(broken.step(token(index), LEVEL))
        assert np.array_equal(features, values(stream.step(token(index), LEVEL)))


def test_an_interrupted_step_changes_nothing(session: Session, stream: AudioStream) -> None:
    broken = session.audio_stream()
    for index in range(3):
        broken.step(token(index), LEVEL)
        stream.step(token(index), LEVEL)
    session.interrupt()
    with pytest.raises(Interrupted):
        broken.step(token(3), LEVEL)
    if isinstance(session, OnnxSession):
        session._run_options.terminate = False
    elif isinstance(session, OpenVinoSession):
        session._interrupted.clear()
    assert np.array_equal(
        values(broken.step(token(3), LEVEL)), values(stream.step(token(3), LEVEL))
    )


def test_numbers_that_are_none_count_as_silence_and_are_forgotten(stream: AudioStream) -> None:
    broken_S, silent_S = WAVE_S.copy(), WAVE_S.copy()
    broken_S[9_000:9_500] = np.nan
    broken_S[9_500:9_600] = np.inf
    silent_S[9_000:9_600] = 0
    level = Level.of(broken_S)
    assert level == Level.of(silent_S)
    heard = [values(stream.step(token(i, broken_S), level)) for i in range(10)]
    stream.reset()
    for i in range(10):
        expected = values(stream.step(token(i, silent_S), level))
        assert np.isfinite(heard[i]).all()
        if i not in (2, 3):  # a mean that is not 0 makes the two kinds of silence differ a little
            close(heard[i], expected)


def test_a_stream_that_computes_all_anew_is_the_windowed_pass(tmp_path: Path) -> None:
    whole = exported(tmp_path, stream=StreamConfig(context_tokens=1, revisit=TOKENS - 1))
    wave_S = WAVE_S[: window_samples(TOKENS)]
    window = open_session(whole, "cpu").encode_audio(wave_S)
    stream = open_session(whole, "cpu", audio="streaming").audio_stream()
    for index in range(TOKENS):
        features = stream.step(token(index), Level.of(wave_S))
    close(values(features), values(window))


def test_a_bundle_without_the_graph_names_the_remedy(bundle: Bundle) -> None:
    older = dataclasses.replace(
        bundle, manifest=dataclasses.replace(bundle.manifest, audio_step=None)
    )
    open_session(older, "cpu")
    with pytest.raises(BundleError, match=r"export the model again, or use --audio window"):
        open_session(older, "cpu", audio="streaming")
    for device in ("cpu", "openvino"):
        with pytest.raises(BundleError, match="opened for whole windows"):
            open_session(bundle, device).audio_stream()


def test_states_of_another_bundle_are_refused(bundle: Bundle) -> None:
    step = bundle.manifest.audio_step
    assert step is not None
    longer = dataclasses.replace(step.states["tokens"], shape=(9, 20))
    step = dataclasses.replace(step, states={**step.states, "tokens": longer})
    other = dataclasses.replace(
        bundle, manifest=dataclasses.replace(bundle.manifest, audio_step=step)
    )
    with pytest.raises(BundleError, match="other states than the manifest says"):
        open_session(other, "cpu", audio="streaming").audio_stream()
    with pytest.raises(BundleError, match="other states than the manifest says"):
        OpenVinoSession(other, audio="streaming").audio_stream()


def test_the_plan_follows_what_is_asked() -> None:
    plan = make_plan(CONFIG, "x", "fp32", None, 2.0, 4.0, 3)
    assert (plan.stream.context_tokens, plan.stream.revisit) == (22, 3)
    with pytest.raises(BundleError, match="--revisit 11: a window holds 11 tokens"):
        make_plan(CONFIG, "x", "fp32", None, 2.0, 4.0, 11)
