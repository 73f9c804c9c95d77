"""ONNX Runtime on CUDA: its bindings, places and waits with CUDA faked, and the real one on a GPU.

Behind the fake, ONNX Runtime's CPU computes, in the fake stream's order: what is bound to a wrong
address, or read before it is complete, is wrong.
"""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from denseav.export import cli
from denseav.export.builder import probe_inputs
from denseav.export.runtime.bundle import (
    TOKEN_HOP_SAMPLES,
    TOKEN_SPAN_SAMPLES,
    Bundle,
    BundleError,
    demo_folder,
    open_bundle,
)
from denseav.export.runtime.devices import cuda_is_here
from denseav.export.runtime.onnx_session import OnnxSession, open_graph
from denseav.export.runtime.open_session import open_proven
from denseav.export.runtime.session import Level, Session
from tests.support.export.fake_gpu import Stream, fake_gpu

without_gpu = pytest.mark.skipif(not cuda_is_here(), reason="no NVIDIA GPU")


class StreamedGraph:
    """A graph on the CPU whose runs wait in the stream that it was given."""

    opened: list[dict[str, str]] = []  # noqa: RUF012

    def __init__(self, path: Path, providers: list[tuple[str, dict[str, str]]]) -> None:
        ((self.provider, settings),) = providers
        self.opened.append(settings)
        self.settings = settings
        self.graph = open_graph(path)
        self.stream = Stream.all[int(settings["user_compute_stream"])]
        self.get_inputs, self.get_outputs = self.graph.get_inputs, self.graph.get_outputs
        self.io_binding = self.graph.io_binding

    def get_providers(self) -> list[str]:
        return [self.provider]

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        self.stream.give(lambda: self.graph.run_with_iobinding(binding, options))


@contextmanager
def faked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give the module that opens CUDA sessions, on a GPU that is a fake."""
    with fake_gpu():
        from denseav.export.runtime.nvidia import cuda_session

        monkeypatch.setattr(cuda_session, "_require_cuda", lambda: None)
        monkeypatch.setattr(cuda_session, "open_graph", StreamedGraph)
        monkeypatch.setattr(cuda_session, "_MEMORY", "cpu")
        StreamedGraph.opened.clear()
        yield cuda_session


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    with faked(monkeypatch) as cuda_session:
        yield cuda_session.open_cuda(open_bundle(demo_folder()))


def test_bound_places_give_the_cpus_heatmaps_and_are_never_overwritten(session: Session) -> None:
    bundle = open_bundle(demo_folder())
    plain = OnnxSession(bundle)
    pictures = probe_inputs.frames(3, bundle.manifest.image.height, bundle.manifest.image.width)
    sounds = probe_inputs.sounds(2, bundle.manifest.audio.window_samples)
    images = [session.encode_image(picture) for picture in pictures]
    audios = [session.encode_audio(sound) for sound in sounds]
    for image, picture in zip(images, pictures, strict=True):
        for audio, sound in zip(audios, sounds, strict=True):
            right = plain.heatmap(plain.encode_image(picture), plain.encode_audio(sound), 4)
            np.testing.assert_allclose(session.heatmap(image, audio, 4), right, atol=1e-5)
    assert session.dense(images[0]).shape == (2, 64, 16, 21)


def test_encoders_are_recorded_one_graph_for_each_place(session: Session) -> None:
    recorded = [settings["enable_cuda_graph"] for settings in StreamedGraph.opened]
    assert sorted(recorded) == ["0", "1", "1"]
    picture = probe_inputs.frames(1, 128, 168)[0]
    held = session.encode_image(picture)
    for _ in range(4):
        session.encode_image(picture)
    numbers = [
        options.get_run_config_entry("gpu_graph_id")
        for _, options in session._image._engine._bound.values()
    ]
    assert numbers == ["1", "2"]  # one that is held, and one that is used again and again
    del held


@pytest.mark.gpu
@without_gpu
def test_cuda_proves_itself_with_and_without_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    for recorded in ("1", "0"):
        monkeypatch.setenv("DENSEAV_CUDA_GRAPHS", recorded)
        _, proof = open_proven(open_bundle(demo_folder()), "cuda")
        assert proof is not None
        assert proof.least_cosine > 0.99999


def test_a_stream_is_bound_twice_and_gives_the_cpus_heatmaps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = open_bundle(demo_folder())
    plain = OnnxSession(bundle, audio="streaming")
    picture = probe_inputs.frames(1, bundle.manifest.image.height, bundle.manifest.image.width)[0]
    wave_S = probe_inputs.sounds(1, bundle.manifest.audio.window_samples)[0]
    level, newest = Level.of(wave_S), bundle.manifest.audio.tokens - 1
    with faked(monkeypatch) as cuda_session:
        session = cuda_session.open_cuda(bundle, "streaming")
        streams = session.audio_stream(), plain.audio_stream()
        for token in range(5):
            samples_S = wave_S[token * TOKEN_HOP_SAMPLES :][:TOKEN_SPAN_SAMPLES]
            heat, right = (
                one.heatmap(one.encode_image(picture), stream.step(samples_S, level), newest)
                for one, stream in zip((session, plain), streams, strict=True)
            )
            np.testing.assert_allclose(heat, right, atol=1e-5)
        assert len(session._audio._engine._bound) == 2


def test_passes_that_cannot_be_recorded_are_run_as_they_are_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with faked(monkeypatch) as cuda_session:

        class Unrecordable(StreamedGraph):
            def run_with_iobinding(self, binding: Any, options: Any) -> None:
                if self.settings["enable_cuda_graph"] == "1":
                    raise RuntimeError("operation not permitted when stream is capturing")
                super().run_with_iobinding(binding, options)

        monkeypatch.setattr(cuda_session, "open_graph", Unrecordable)
        session = cuda_session.open_cuda(open_bundle(demo_folder()))
        assert session.encode_image(np.zeros((128, 168, 3), np.uint8)) is not None
    assert {settings["enable_cuda_graph"] for settings in StreamedGraph.opened[-3:]} == {"0"}
    assert "on CUDA without recording passes: ONNX Runtime fails on CUDA (operation" in caplog.text


@pytest.mark.gpu
@without_gpu
def test_cuda_streams_audio() -> None:
    _, proof = open_proven(open_bundle(demo_folder()), "cuda", audio="streaming")
    assert proof is not None


@pytest.mark.gpu
@without_gpu
def test_cuda_records_in_each_thread_while_the_other_allocates() -> None:
    bundle = open_bundle(demo_folder())
    session, _ = open_proven(bundle, "cuda")
    plain = OnnxSession(bundle)
    picture = probe_inputs.frames(1, bundle.manifest.image.height, bundle.manifest.image.width)[0]
    wave_S = probe_inputs.sounds(1, bundle.manifest.audio.window_samples)[0]
    with ThreadPoolExecutor(2) as threads:  # all are held, so that each needs a place of its own
        images = threads.submit(lambda: [session.encode_image(picture) for _ in range(20)])
        audios = threads.submit(lambda: [session.encode_audio(wave_S) for _ in range(20)])
    right = plain.heatmap(plain.encode_image(picture), plain.encode_audio(wave_S), 4)
    for image, audio in zip(images.result(), audios.result(), strict=True):
        np.testing.assert_allclose(session.heatmap(image, audio, 4), right, atol=1e-3)


@pytest.fixture
def engines(tmp_path: Path) -> Bundle:
    folder = tmp_path / "bundle"
    shutil.copytree(demo_folder(), folder)
    assert cli.main(["--rebuild-engines", str(folder)]) == 0
    return open_bundle(folder)


@pytest.mark.gpu
@without_gpu
def test_engines_prove_themselves_on_a_card_they_fit_and_are_refused_on_others(
    engines: Bundle,
) -> None:
    from denseav.export.builder.trt_engine import RTX_CAPABILITIES
    from denseav.export.runtime.nvidia.cuda import gpu_facts

    if gpu_facts()[1] not in RTX_CAPABILITIES:
        with pytest.raises(BundleError, match="compute capability"):
            open_proven(engines, "trt")
        return
    session, proof = open_proven(engines, "trt")
    assert proof is not None
    assert session.backend == "tensorrt-rtx"
    assert (engines.folder / "image.engine.compiled").is_file()
    _, proof = open_proven(engines, "trt", audio="streaming")
    assert proof is not None
