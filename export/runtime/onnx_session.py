"""A bundle on ONNX Runtime: on a CPU, or another of its devices; features stay on the device."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# ONNX Runtime reports to its makers what it runs, unless it is told not to before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from denseav.export.runtime.bundle import AUDIO_STEP, Bundle, BundleError, Manifest
from denseav.export.runtime.session import (
    AudioWay,
    Features,
    Interrupted,
    Level,
    Threads,
    graphs_used,
    normalized,
    threads_of,
)

CPU = "CPUExecutionProvider"

Prepare = Callable[[Any], None]


class OnnxSession:
    """Three graphs of a bundle, loaded; see `denseav.export.runtime.session.Session`.

    Parameters
    ----------
    bundle : a checked bundle.
    device : where features stay: `cpu` or `webgpu`.
    threads : how many threads one graph may use on a CPU; `Threads` for each pass its own.
    audio : how audio is encoded: only that graph is loaded.
    prepare : is given ONNX Runtime's options of each graph before it is opened.

    Raises
    ------
    BundleError
        When ONNX Runtime cannot open a graph.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str = "cpu",
        threads: int | Threads = 1,
        audio: AudioWay = "window",
        prepare: Prepare | None = None,
    ) -> None:
        self.backend = f"onnxruntime-{device}"
        self.precision = bundle.manifest.precision
        self._takes_normalized = bundle.manifest.audio.takes_normalized
        self._device = device
        self._run_options = ort.RunOptions()
        self._manifest = bundle.manifest
        self._graphs = {
            name: open_graph(bundle.graph(name), threads_of(name, threads), prepare=prepare)
            for name in graphs_used(audio)
        }

    def encode_image(self, image_HW3: NDArray[np.uint8]) -> Features:
        """Encode one RGB picture that already has the manifest's size."""
        return self._run("image", {"image": _on_cpu(image_HW3)}, self._device)

    def encode_audio(self, wave_S: NDArray[np.float32], least_deviation: float = 0.0) -> Features:
        """Encode one window of 16 kHz sound, exactly the manifest's `window_samples`."""
        if self._takes_normalized:
            wave_S = normalized(wave_S, least_deviation)
        return self._run("audio", {"wave": _on_cpu(wave_S)}, self._device)

    def audio_stream(self) -> "OnnxAudioStream":
        """Return a new stream, in the state before any audio."""
        if AUDIO_STEP not in self._graphs:
            raise BundleError("this session was opened for whole windows of audio")
        return OnnxAudioStream(
            self._graphs[AUDIO_STEP], self._manifest, self._device, self._run_options
        )

    def heatmap(self, image: Features, audio: Features, token: int) -> NDArray[np.float32]:
        """Return the similarity slice `[K, H, W]` of the picture and audio token `token`."""
        inputs = {
            "image_features": image,
            "audio_features": audio,
            "token": _on_cpu(np.array([token], dtype=np.int64)),
        }
        heat: NDArray[np.float32] = self._run("heatmap", inputs, "cpu").numpy()
        return heat

    def dense(self, image: Features) -> NDArray[np.float32]:
        """Return a copy of a picture's features, `[K, C, H, W]`, for people to look at."""
        return np.array(image.numpy(), np.float32)

    def interrupt(self) -> None:
        """Make the pass in progress and all later ones raise `Interrupted`, from any thread."""
        self._run_options.terminate = True

    def _run(self, graph: str, inputs: dict[str, Any], output_device: str) -> Any:
        session = self._graphs[graph]
        binding = session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_output(session.get_outputs()[0].name, output_device)
        return _run(session, binding, self._run_options)


class OnnxAudioStream:
    """The audio step graph and its state; see `denseav.export.runtime.session.AudioStream`.

    The state lies on the device twice: a step reads the one and writes the other, and then they
    change places. What the manifest allows to be written in place lies there once, on a CPU: ONNX
    Runtime then changes a few rows of it and copies none. Features are given out, so each step has
    new memory for them.
    """

    def __init__(self, graph: Any, manifest: Manifest, device: str, run_options: Any) -> None:
        assert manifest.audio_step is not None
        manifest.audio_step.require_shapes({i.name: tuple(i.shape) for i in graph.get_inputs()})
        self._graph = graph
        self._device = device
        self._run_options = run_options
        self._states = manifest.audio_step.states
        self._in_place = manifest.audio_step.in_place if device == "cpu" else ()
        features, *states = (output.name for output in graph.get_outputs())
        self._features_name = features
        self._next_names = dict(zip(self._states, states, strict=True))
        self._features: Features = None
        self._next: Any = None  # bindings of all states, so that a step binds little
        self._last: Any = None
        self.reset()

    def step(self, samples_S: NDArray[np.float32], level: Level) -> Features:
        """Take the next token and return features of which the newest tokens are new."""
        binding = self._next
        binding.bind_ortvalue_input("wave", _on_cpu(level.normalized(samples_S)))
        binding.bind_ortvalue_input("past_features", self._features)
        binding.bind_output(self._features_name, self._device)
        self._features = _run(self._graph, binding, self._run_options)
        self._next, self._last = self._last, binding
        return self._features

    def reset(self) -> None:
        """Forget everything: the next step is the first."""
        features = next(i for i in self._graph.get_inputs() if i.name == "past_features")
        dtype = np.float16 if features.type == "tensor(float16)" else np.float32
        self._features = _put(np.zeros(features.shape, dtype), self._device)
        one, other = self._zeros(), self._zeros()
        other |= {name: one[name] for name in self._in_place}
        self._next, self._last = self._bound(one, other), self._bound(other, one)

    def _zeros(self) -> dict[str, Any]:
        return {
            name: _put(np.zeros(state.shape, np.dtype(state.dtype)), self._device)
            for name, state in self._states.items()
        }

    def _bound(self, reads: dict[str, Any], writes: dict[str, Any]) -> Any:
        binding = self._graph.io_binding()
        binding.bind_output(self._features_name, self._device)  # the first to be bound comes first
        for name in self._states:
            binding.bind_ortvalue_input(name, reads[name])
            binding.bind_ortvalue_output(self._next_names[name], writes[name])
        return binding


def _run(session: Any, binding: Any, run_options: Any) -> Any:
    """Run a pass and return its first output, complete."""
    try:
        session.run_with_iobinding(binding, run_options)
    except Exception:
        if run_options.terminate:
            raise Interrupted from None
        raise
    output = binding.get_outputs()[0]
    if output.device_name() != "cpu":
        output.numpy()  # the only way to wait for it, so that each pass's time is its own
    return output


def open_graph(
    path: Path,
    threads: int = 1,
    providers: Sequence[Any] = (CPU,),
    prepare: Prepare | None = None,
) -> Any:
    """Return ONNX Runtime's session of one graph.

    Parameters
    ----------
    providers : what computes, where `prepare` names no other.

    Raises
    ------
    BundleError
        When the graph cannot be opened.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = min(threads, os.cpu_count() or 1)
    options.inter_op_num_threads = 1
    # A thread that spins while it waits takes the core that capture and drawing need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    named = {"providers": [*providers]}
    if prepare is not None:
        prepare(options)
        named = {}
    try:
        return ort.InferenceSession(str(path), options, **named)
    except Exception as error:  # noqa: BLE001
        # ONNX Runtime raises its own C++ exception types, which share no base but Exception.
        reason = str(error).splitlines()[0]
        raise BundleError(f"{path} cannot be opened ({reason}); export it again") from None


def _put(array: NDArray[Any], device: str) -> Any:
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), device, 0)


def _on_cpu(array: NDArray[Any]) -> Any:
    return _put(array, "cpu")
