"""Three engines on an NVIDIA GPU as a session; features stay there. No torch, no library here.

An `Engine` runs one graph with its inputs and outputs at given addresses; whose it is does not
matter. The picture's passes and the sound's have a stream each, and each encoder is complete when
it returns, so that its time is its own. Inputs go up from page-locked memory.

An encoder's pass is recorded as a CUDA graph, one for each place its features lie in, and given
again at one stroke. `DENSEAV_CUDA_GRAPHS=0` in the environment turns that off.
"""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from denseav.export.runtime.bundle import Bundle, BundleError
from denseav.export.runtime.cuda import DeviceMemory, Recording, StagedArray, Stream
from denseav.export.runtime.session import AudioStream, Features, Interrupted, normalized

Layout = tuple[tuple[int, ...], DTypeLike]


def cuda_graphs_asked() -> bool:
    """Say whether passes are to be recorded as CUDA graphs."""
    return os.environ.get("DENSEAV_CUDA_GRAPHS") != "0"


class Engine(Protocol):
    """One graph on the GPU."""

    @property
    def recordable(self) -> bool:
        """Whether the passes may be recorded from outside; False where the engine does so."""

    def layout(self, tensor: str) -> Layout:
        """Return the shape and type of an input or output."""

    def enqueue(self, addresses: dict[str, int]) -> None:
        """Give one pass to the engine's stream, each input and output being at its address."""


OpenEngine = Callable[[str, Stream], Engine]


class GpuSession:
    """The three engines of a bundle; see `denseav.export.runtime.session.Session`.

    `encode_audio` is called by one thread, `encode_image` and `heatmap` by one thread, which may
    be another.

    Parameters
    ----------
    open_engine : opens the graph of that name, to run on that stream.

    Raises
    ------
    BundleError
        When the GPU cannot be used, or an engine cannot be opened.
    """

    def __init__(self, bundle: Bundle, backend: str, open_engine: OpenEngine) -> None:
        self.backend = backend
        self.precision = bundle.manifest.precision
        self._interrupted = threading.Event()
        self._takes_normalized = bundle.manifest.audio.takes_normalized
        self._stream = Stream()
        self._image = _Encoder(open_engine, "image", "image", self._stream)
        self._audio = _Encoder(open_engine, "audio", "wave", Stream())
        self._heatmap = open_engine("heatmap", self._stream)
        self._token = StagedArray(*self._heatmap.layout("token"))
        self._heat = StagedArray(*self._heatmap.layout("heat"))

    def encode_image(self, image_HW3: NDArray[np.uint8]) -> Features:
        """Encode one RGB picture that already has the manifest's size."""
        self._check_interrupted()
        return self._image.encode(image_HW3)

    def encode_audio(self, wave_S: NDArray[np.float32], least_deviation: float = 0.0) -> Features:
        """Encode one window of 16 kHz sound, exactly the manifest's `window_samples`."""
        self._check_interrupted()
        if self._takes_normalized:
            wave_S = normalized(wave_S, least_deviation)
        return self._audio.encode(wave_S)

    def audio_stream(self) -> AudioStream:
        """Refuse: such sessions are opened for whole windows of audio alone."""
        raise BundleError("this session was opened for whole windows of audio")

    def heatmap(self, image: Features, audio: Features, token: int) -> NDArray[np.float32]:
        """Return the similarity slice `[K, H, W]` of the picture and audio token `token`."""
        self._check_interrupted()
        self._token.array[0] = token
        self._stream.upload(self._token)
        self._heatmap.enqueue(
            {
                "image_features": image.pointer,
                "audio_features": audio.pointer,
                "token": self._token.pointer,
                "heat": self._heat.pointer,
            }
        )
        self._stream.download(self._heat)
        self._stream.finish()
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


class _Encoder:
    """An engine with one input and one output: arrays in, features on the GPU out."""

    def __init__(self, open_engine: OpenEngine, graph: str, source: str, stream: Stream) -> None:
        self._stream = stream
        self._engine = open_engine(graph, stream)
        self._source, self._output = source, f"{graph}_features"
        self._staged = StagedArray(*self._engine.layout(source))
        self._records = self._engine.recordable and cuda_graphs_asked()
        self._free: list[_Place] = []
        self._fetched: StagedArray | None = None

    def fetch(self, features: "_Features") -> NDArray[np.float32]:
        """Return a copy of features."""
        if self._fetched is None:
            self._fetched = StagedArray(*self._engine.layout(self._output))
        self._stream.download(self._fetched, features.pointer)
        self._stream.finish()
        return np.array(self._fetched.array, np.float32)

    def encode(self, array: NDArray[Any]) -> "_Features":
        """Return the features once they are complete."""
        np.copyto(self._staged.array, array, casting="no")
        shape, dtype = self._engine.layout(self._output)
        features = _Features(int(np.prod(shape)) * np.dtype(dtype).itemsize, self._free)
        place = features.place
        if place.recording is not None:
            self._stream.replay(place.recording)
        else:
            give = partial(self._give, features.pointer)
            give()
            if self._records:
                # An engine has to have run once with an address before it can be recorded.
                place.recording = self._recorded(give)
        self._stream.finish()
        return features

    def _give(self, pointer: int) -> None:
        self._stream.upload(self._staged)
        self._engine.enqueue({self._source: self._staged.pointer, self._output: pointer})

    def _recorded(self, give: Callable[[], None]) -> Recording | None:
        try:
            return self._stream.record(give)
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
