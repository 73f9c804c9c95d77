"""A bundle's engines on TensorRT's own runtime; features stay on the GPU. No torch here.

The picture's way and the sound's way have a stream each. The heatmap runs in the picture's
stream, after the picture's features by that stream's order. A sound's features are given out
only when they are complete, so that no picture waits for a sound in the making.

An encoder's pass is recorded as a CUDA graph, one for each place its features lie in, and given
again at one stroke. `DENSEAV_CUDA_GRAPHS=0` in the environment turns that off.
"""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import tensorrt as trt
from numpy.typing import DTypeLike, NDArray

from denseav.export.runtime.bundle import Bundle, BundleError
from denseav.export.runtime.cuda import DeviceMemory, Recording, StagedArray, Stream, gpu_facts
from denseav.export.runtime.engine_facts import Machine, check_engines, engine_path, rebuild_command
from denseav.export.runtime.session import AudioStream, AudioWay, Features, Interrupted, normalized

GRAPHS_OFF = "0"

_Given = TypeVar("_Given")


class TrtSession:
    """The three engines of a bundle, loaded; see `denseav.export.runtime.session.Session`.

    `audio` is called by one thread, `image` and `heatmap` by one thread, which may be another.

    Raises
    ------
    MismatchError
        When an engine was built for something else than this machine and bundle; none is opened.
    BundleError
        When the GPU cannot be used, or TensorRT cannot open an engine.
    """

    backend = "tensorrt"

    def __init__(self, bundle: Bundle, audio: AudioWay = "window") -> None:
        if audio == "streaming":
            raise BundleError("audio does not stream on TensorRT; use --device cuda")
        check_engines(bundle, this_machine())
        self.precision = bundle.manifest.precision
        self._interrupted = threading.Event()
        self._takes_normalized = bundle.manifest.audio.takes_normalized
        self._image = _Encoder(_Engine(bundle, "image"), "image", "image_features")
        self._audio = _Encoder(_Engine(bundle, "audio"), "wave", "audio_features")
        self._heatmap = _Engine(bundle, "heatmap")
        self._token = self._heatmap.staged("token")
        self._heat = self._heatmap.staged("heat")

    def encode_image(self, image_HW3: NDArray[np.uint8]) -> Features:
        """Encode one RGB picture that already has the manifest's size; do not wait for it."""
        self._check_interrupted()
        return self._image.encode(image_HW3)

    def encode_audio(self, wave_S: NDArray[np.float32], least_deviation: float = 0.0) -> Features:
        """Encode one window of 16 kHz sound, exactly the manifest's `window_samples`."""
        self._check_interrupted()
        if self._takes_normalized:
            wave_S = normalized(wave_S, least_deviation)
        features = self._audio.encode(wave_S)
        self._audio.stream.finish()
        return features

    def audio_stream(self) -> AudioStream:
        """Return a new stream, in the state before any audio."""
        raise BundleError("this session was opened for whole windows of audio")

    def heatmap(self, image: Features, audio: Features, token: int) -> NDArray[np.float32]:
        """Return the similarity slice `[K, H, W]` of the picture and audio token `token`."""
        self._check_interrupted()
        stream = self._image.stream
        self._token.array[0] = token
        stream.upload(self._token)
        addresses = {
            "image_features": image.pointer,
            "audio_features": audio.pointer,
            "token": self._token.pointer,
            "heat": self._heat.pointer,
        }
        self._heatmap.enqueue(addresses, stream)
        stream.download(self._heat)
        stream.finish()
        heat_KHW: NDArray[np.float32] = self._heat.array.copy()
        return heat_KHW

    def dense(self, image: Features) -> NDArray[np.float32]:
        """Return a copy of a picture's features, `[K, C, H, W]`, for people to look at."""
        return self._image.fetch(image)

    def interrupt(self) -> None:
        """Make all later passes raise `Interrupted`, from any thread."""
        self._interrupted.set()

    def _check_interrupted(self) -> None:
        if self._interrupted.is_set():
            raise Interrupted


def this_machine() -> Machine:
    """Return what runs engines here."""
    gpu, compute_capability = gpu_facts()
    return Machine(tensorrt=trt.__version__, gpu=gpu, compute_capability=compute_capability)


class _Log(trt.ILogger):  # type: ignore[misc, unused-ignore]  # untyped where it is missing
    """Keeps TensorRT's last error, which says why it returned nothing."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.error = "TensorRT gave no reason"

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """Take one message; only errors matter."""
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self.error = msg.splitlines()[0] if msg else self.error


class _Engine:
    """One engine with the context that runs it."""

    def __init__(self, bundle: Bundle, graph: str) -> None:
        self._path = engine_path(bundle.folder, graph)
        self._remedy = f"rebuild it with: {rebuild_command(bundle.folder)}"
        self._log = _Log()
        self._runtime = trt.Runtime(self._log)
        self._engine = self._given(self._runtime.deserialize_cuda_engine(self._path.read_bytes()))
        self._context = self._given(self._engine.create_execution_context())

    def staged(self, tensor: str) -> StagedArray:
        """Return memory on both sides for one input or output."""
        return StagedArray(*self._layout(tensor))

    def nbytes(self, tensor: str) -> int:
        """Return the size of one input or output."""
        shape, dtype = self._layout(tensor)
        return int(np.prod(shape)) * np.dtype(dtype).itemsize

    def enqueue(self, addresses: dict[str, int], stream: Stream) -> None:
        """Give the engine's work to `stream`, each input and output being at its address."""
        bound = [self._context.set_tensor_address(name, at) for name, at in addresses.items()]
        if not (all(bound) and self._context.execute_async_v3(stream.handle)):
            raise self._failure("run")

    def _layout(self, tensor: str) -> tuple[tuple[int, ...], DTypeLike]:
        dtype: DTypeLike = trt.nptype(self._engine.get_tensor_dtype(tensor))
        shape = self._engine.get_tensor_shape(tensor)
        return tuple(shape[axis] for axis in range(len(shape))), dtype

    def _given(self, value: _Given | None) -> _Given:
        if value is None:
            raise self._failure("open")
        return value

    def _failure(self, what: str) -> BundleError:
        return BundleError(
            f"TensorRT cannot {what} {self._path} ({self._log.error}); {self._remedy}"
        )


class _Encoder:
    """An engine with one input and one output: arrays in, features on the GPU out."""

    def __init__(self, engine: _Engine, source: str, output: str) -> None:
        self.stream = Stream()
        self._engine = engine
        self._source, self._output = source, output
        self._staged = engine.staged(source)
        self._records = os.environ.get("DENSEAV_CUDA_GRAPHS") != GRAPHS_OFF
        self._free: list[_Place] = []
        self._fetched: StagedArray | None = None

    def fetch(self, features: "_Features") -> NDArray[np.float32]:
        """Wait for features and return a copy of them."""
        if self._fetched is None:
            self._fetched = self._engine.staged(self._output)
        self.stream.download(self._fetched, features.pointer)
        self.stream.finish()
        return np.array(self._fetched.array, np.float32)

    def encode(self, array: NDArray[Any]) -> "_Features":
        """Give the work to the stream and return where the features will be."""
        self.stream.finish()  # the pass before may still read what is about to be overwritten
        np.copyto(self._staged.array, array, casting="no")
        features = _Features(self._engine.nbytes(self._output), self._free)
        place = features.place
        if place.recording is not None:
            self.stream.replay(place.recording)
            return features
        give = partial(self._give, features.pointer)
        give()
        if self._records:
            # TensorRT has to have run once with an address before it can be recorded.
            place.recording = self._recorded(give)
        return features

    def _give(self, pointer: int) -> None:
        self.stream.upload(self._staged)
        addresses = {self._source: self._staged.pointer, self._output: pointer}
        self._engine.enqueue(addresses, self.stream)

    def _recorded(self, give: Callable[[], None]) -> Recording | None:
        try:
            return self.stream.record(give)
        except BundleError:  # not every engine can be: the way without is slower, and as right
            self._records = False
            return None


@dataclass
class _Place:
    """Where features lie on the GPU, and the pass that puts them there."""

    memory: DeviceMemory
    recording: Recording | None = None


class _Features:
    """Features on the GPU; their memory is used again once nobody holds them.

    A heatmap holds what it reads until it is complete, so memory in use is never overwritten.
    """

    def __init__(self, nbytes: int, free: list[_Place]) -> None:
        self.place = free.pop() if free else _Place(DeviceMemory(nbytes))
        self._free = free

    @property
    def pointer(self) -> int:
        """Their address on the GPU."""
        return self.place.memory.pointer

    def __del__(self) -> None:
        if hasattr(self, "_free"):
            self._free.append(self.place)
