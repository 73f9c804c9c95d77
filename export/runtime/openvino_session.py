"""A bundle on OpenVINO: Intel's CPUs, integrated GPUs and NPUs, and any other CPU.

The precision is asked for and said, never OpenVINO's silent choice: `openvino:CPU:bf16` encodes
images in bfloat16, or is refused where the CPU has none.
"""

import sys
import threading
from functools import cache
from typing import Any
from weakref import WeakSet

import numpy as np
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

_TYPES = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}


class OpenVinoSession:
    """Three graphs of a bundle, loaded; see `denseav.export.runtime.session.Session`.

    `encode_audio`, or a stream, is called by one thread, `encode_image` and `heatmap` by one
    thread, which may be another.

    Parameters
    ----------
    device : as OpenVINO names it: `CPU`, `GPU`, `GPU.1`, `NPU`.
    precision : `fp32`, `fp16` or `bf16`; None for the bundle's own.
    threads : how many threads one graph may use on a CPU; `Threads` for each pass its own.
    audio : how audio is encoded: only that graph is loaded.

    Raises
    ------
    BundleError
        When OpenVINO, the device or the precision cannot be had, or a graph cannot be opened.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str = "CPU",
        precision: str | None = None,
        threads: int | Threads = 1,
        audio: AudioWay = "window",
    ) -> None:
        own = bundle.manifest.precision
        self.backend = f"openvino-{device.lower()}"
        self.precision = precision or own
        self._takes_normalized = bundle.manifest.audio.takes_normalized
        self._interrupted = threading.Event()
        core = load_core()
        _require(core, device, precision)
        # Eight-bit products are in the graph itself; what is around them is float32.
        hint = _TYPES[precision or own.replace("int8", "fp32")]
        self._manifest = bundle.manifest
        self._models = {
            graph: _open(
                core=core,
                bundle=bundle,
                graph=graph,
                device=device,
                settings=_settings(graph, device, hint, threads_of(graph, threads)),
            )
            for graph in graphs_used(audio)
        }
        self._requests = {
            graph: model.create_infer_request()
            for graph, model in self._models.items()
            if graph != AUDIO_STEP  # each stream has its own
        }
        self._streams: WeakSet[OpenVinoAudioStream] = WeakSet()

    def encode_image(self, image_HW3: NDArray[np.uint8]) -> Features:
        """Encode one RGB picture that already has the manifest's size."""
        return self._run("image", {"image": image_HW3})

    def encode_audio(self, wave_S: NDArray[np.float32], least_deviation: float = 0.0) -> Features:
        """Encode one window of 16 kHz sound, exactly the manifest's `window_samples`."""
        if self._takes_normalized:
            wave_S = normalized(wave_S, least_deviation)
        return self._run("audio", {"wave": wave_S})

    def audio_stream(self) -> "OpenVinoAudioStream":
        """Return a new stream, in the state before any audio."""
        if AUDIO_STEP not in self._models:
            raise BundleError("this session was opened for whole windows of audio")
        stream = OpenVinoAudioStream(self._models[AUDIO_STEP], self._manifest, self._interrupted)
        self._streams.add(stream)
        return stream

    def heatmap(self, image: Features, audio: Features, token: int) -> NDArray[np.float32]:
        """Return the similarity slice `[K, H, W]` of the picture and audio token `token`."""
        inputs = {
            "image_features": image,
            "audio_features": audio,
            "token": np.array([token], np.int64),
        }
        heat_KHW: NDArray[np.float32] = self._run("heatmap", inputs)
        return heat_KHW

    def dense(self, image: Features) -> NDArray[np.float32]:
        """Return a copy of a picture's features, `[K, C, H, W]`, for people to look at."""
        return np.array(image, np.float32)

    def interrupt(self) -> None:
        """Make the pass in progress and all later ones raise `Interrupted`, from any thread."""
        self._interrupted.set()
        for request in self._requests.values():
            request.cancel()
        for stream in list(self._streams):
            stream.cancel()

    def _run(self, graph: str, inputs: dict[str, NDArray[Any]]) -> Any:
        request = self._requests[graph]
        _infer(request, inputs, self._interrupted)
        return request.get_output_tensor().data.copy()


class OpenVinoAudioStream:
    """The audio step graph and its state; see `denseav.export.runtime.session.AudioStream`.

    Two requests that are bound once and for all: each reads the state, on the device, that the
    other has written, and they take turns.
    """

    def __init__(self, model: Any, manifest: Manifest, interrupted: threading.Event) -> None:
        assert manifest.audio_step is not None
        manifest.audio_step.require_shapes({i.any_name: tuple(i.shape) for i in model.inputs})
        self._interrupted = interrupted
        features, *states = (output.any_name for output in model.outputs)
        self._features_name = features
        self._carried = dict(
            zip(("past_features", *manifest.audio_step.states), (features, *states), strict=True)
        )
        self._next, self._last = model.create_infer_request(), model.create_infer_request()
        for reads, writes in ((self._next, self._last), (self._last, self._next)):
            for before, after in self._carried.items():
                reads.set_tensor(before, writes.get_tensor(after))
        self.reset()

    def step(self, samples_S: NDArray[np.float32], level: Level) -> Features:
        """Take the next token and return features of which the newest tokens are new."""
        request = self._next
        _infer(request, {"wave": level.normalized(samples_S)}, self._interrupted)
        self._next, self._last = self._last, request
        return request.get_tensor(self._features_name).data.copy()

    def reset(self) -> None:
        """Forget everything: the next step is the first."""
        for before in self._carried:
            self._next.get_tensor(before).data[:] = 0

    def cancel(self) -> None:
        """Give up the step in progress."""
        for request in (self._next, self._last):
            request.cancel()


def _infer(request: Any, inputs: dict[str, NDArray[Any]], interrupted: threading.Event) -> None:
    if interrupted.is_set():
        raise Interrupted
    try:
        request.infer(inputs)
    except RuntimeError as error:
        if interrupted.is_set():
            raise Interrupted from None
        raise RuntimeError(_reason(error)) from None


def _reason(error: RuntimeError) -> str:
    """Return the last line, which says what is wrong; those before say where in OpenVINO."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def load_core() -> Any:
    """Return OpenVINO's core.

    Raises
    ------
    BundleError
        When OpenVINO is missing or cannot be loaded.
    """
    # Imported, it would tell its maker so over the internet, unasked, from a process forked beside
    # running threads, which at times never ends. Without this module it uses a stub.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise BundleError(
            f"{error.name} is not installed; install it, in a clone of denseav, with: "
            "pip install '.[openvino]'"
        ) from None
    except (ImportError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise BundleError(f"OpenVINO cannot be loaded ({reason}); use --device cpu") from None
    return _core(openvino)


@cache
def _core(openvino: Any) -> Any:
    """Make the process's only core, as OpenVINO recommends: with each, its devices load anew."""
    return openvino.Core()


def _require(core: Any, device: str, precision: str | None) -> None:
    devices = core.available_devices
    if device not in devices:
        raise BundleError(
            f"OpenVINO has no device {device} here, only {', '.join(devices) or 'none'}; "
            f"use --device openvino:{devices[0] if devices else 'CPU'}, or --device cpu"
        )
    can = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    if precision is not None and precision.upper() not in can:
        raise BundleError(
            f"OpenVINO's {device} does not compute in {precision} here; "
            f"use --device openvino:{device}, or --device cpu"
        )


def _settings(graph: str, device: str, hint: str, threads: int) -> dict[str, str]:
    # bfloat16 is of the image graph alone, which sets the frame rate: the audio graph's loss is
    # beyond the tolerance. The similarity stays in float32, as it does in half precision.
    exact = graph == "heatmap" or (graph in ("audio", AUDIO_STEP) and hint == "bf16")
    settings = {
        "INFERENCE_PRECISION_HINT": "f32" if exact else hint,
        "PERFORMANCE_HINT": "LATENCY",
    }
    if device == "CPU":
        settings |= {"INFERENCE_NUM_THREADS": str(threads), "NUM_STREAMS": "1"}
    return settings


def _open(core: Any, bundle: Bundle, graph: str, device: str, settings: dict[str, str]) -> Any:
    path = bundle.graph(graph)
    try:
        return core.compile_model(path, device, settings)
    except RuntimeError as error:
        raise BundleError(
            f"OpenVINO cannot open {path} ({_reason(error)}); use --device cpu"
        ) from None
