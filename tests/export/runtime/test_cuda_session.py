"""ONNX Runtime on CUDA: its bindings, places and waits with CUDA faked, and the real one on a GPU.

Behind the fake, ONNX Runtime's CPU computes, in the fake stream's order: what is bound to a wrong
address, or read before it is complete, is wrong.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from denseav.export import cli
from denseav.export.builder import probe_inputs
from denseav.export.runtime.bundle import Bundle, BundleError, demo_folder, open_bundle
from denseav.export.runtime.devices import cuda_is_here
from denseav.export.runtime.onnx_session import OnnxSession, open_graph
from denseav.export.runtime.open_session import open_proven
from denseav.export.runtime.session import Session
from tests.support.export.fake_gpu import Stream, fake_gpu

without_gpu = pytest.mark.skipif(not cuda_is_here(), reason="no NVIDIA GPU")


class StreamedGraph:
    """A graph on the CPU whose runs wait in the stream that it was given."""

    opened: list[dict[str, str]] = []  # noqa: RUF012

    def __init__(self, path: Path, providers: list[tuple[str, dict[str, str]]]) -> None:
        ((self.provider, settings),) = providers
        self.opened.append(settings)
        self.graph = open_graph(path)
        self.stream = Stream.all[int(settings["user_compute_stream"])]
        self.get_inputs, self.get_outputs = self.graph.get_inputs, self.graph.get_outputs
        self.io_binding = self.graph.io_binding

    def get_providers(self) -> list[str]:
        return [self.provider]

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        self.stream.give(lambda: self.graph.run_with_iobinding(binding, options))


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    with fake_gpu():
        from denseav.export.runtime import cuda_session

        monkeypatch.setattr(cuda_session, "_require_cuda", lambda: None)
        monkeypatch.setattr(cuda_session, "open_graph", StreamedGraph)
        monkeypatch.setattr(cuda_session, "_MEMORY", "cpu")
        StreamedGraph.opened.clear()
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


@pytest.mark.gpu
@without_gpu
def test_cuda_streams_audio() -> None:
    bundle = open_bundle(demo_folder())
    if bundle.manifest.audio_step is None:
        with pytest.raises(BundleError, match="cannot stream"):
            open_proven(bundle, "cuda", audio="streaming")
        return
    _, proof = open_proven(bundle, "cuda", audio="streaming")
    assert proof is not None


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
    from denseav.export.runtime.cuda import gpu_facts

    if gpu_facts()[1] not in RTX_CAPABILITIES:
        with pytest.raises(BundleError, match="compute capability"):
            open_proven(engines, "trt")
        return
    session, proof = open_proven(engines, "trt")
    assert proof is not None
    assert session.backend == "tensorrt-rtx"
    assert (engines.folder / "image.engine.compiled").is_file()
