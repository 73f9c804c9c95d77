"""Three engines on an NVIDIA GPU as a session; features stay there. No torch, no library here.

An `Engine` runs one graph with its inputs and outputs at given addresses; whose it is does not
matter. The picture's passes and the sound's have a stream each, and each encoder is complete when
it returns, so that its time is its own. Inputs go up from page-locked memory.

A pass is recorded as a CUDA graph, one for each set of addresses that it has, and given again at
one stroke: an encoder has one for each place its features lie in, a stream's step two.
`DENSEAV_CUDA_GRAPHS=0` in the environment turns that off.
"""

import math
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from denseav.export.runtime.bundle import (
    AUDIO_STEP,
    TOKEN_SPAN_SAMPLES,
    Bundle,
    BundleError,
    Manifest,
)
from denseav.export.runtime.nvidia.cuda import (
    DeviceMemory,
    Recording,
    StagedArray,
    Stream,
    unhindered_by_recordings,
)
from denseav.export.runtime.session import (
    AudioStream,
    AudioWay,
    Features,
    Interrupted,
    Level,
    normalized,
)

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

    Audio is encoded by one thread, `encode_image` and `heatmap` are called by one thread, which
    may be another.

    Parameters
    ----------
    open_engine : opens the graph of that name, to run on that stream.
    audio : how audio is encoded: only that graph is opened.

    Raises
    ------
    BundleError
        When the GPU cannot be used, or an engine cannot be opened.
    """

    def __init__(
        self, bundle: Bundle, backend: str, open_engine: OpenEngine, audio: AudioWay = "window"
    ) -> None:
        unhindered_by_recordings()
        self.backend = backend
        self.precision = bundle.manifest.precision
        self._interrupted = threading.Event()
        self._takes_normalized = bundle.manifest.audio.takes_normalized
        self._stream = Stream()
        self._image = _Encoder(open_engine, "image", "image", self._stream)
        if audio == "window":
            self._audio: _Encoder | _Stepper = _Encoder(open_engine, "audio", "wave", Stream())
        else:
            self._audio = _Stepper(open_engine, bundle.manifest, Stream())
        self._heatmap = open_engine("heatmap", self._stream)
        self._token = StagedArray(*self._heatmap.layout("token"))
        self._heat = StagedArray(*self._heatmap.layout("heat"))

    def encode_image(self, image_HW3: NDArray[np.uint8]) -> Features:
        """Encode one RGB picture that already has the manifest's size."""
        self._begin_pass()
        return self._image.encode(image_HW3)

    def encode_audio(self, wave_S: NDArray[np.float32], least_deviation: float = 0.0) -> Features:
        """Encode one window of 16 kHz sound, exactly the manifest's `window_samples`."""
        self._begin_pass()
        if not isinstance(self._audio, _Encoder):
            raise BundleError("this session was opened to stream audio")
        if self._takes_normalized:
            wave_S = normalized(wave_S, least_deviation)
        return self._audio.encode(wave_S)

    def audio_stream(self) -> AudioStream:
        """Return a new stream, in the state before any audio."""
        if not isinstance(self._audio, _Stepper):
            raise BundleError("this session was opened for whole windows of audio")
        return GpuAudioStream(self._audio, self._begin_pass)

    def heatmap(self, image: Features, audio: Features, token: int) -> NDArray[np.float32]:
        """Return the similarity slice `[K, H, W]` of the picture and audio token `token`."""
        self._begin_pass()
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

    def warm_up(self, bundle: Bundle) -> None:
        """Run each engine once on nothing, so that what fails or is slow at first is past."""
        size, window = bundle.manifest.image, bundle.manifest.audio.window_samples
        image = self.encode_image(np.zeros((size.height, size.width, 3), np.uint8))
        if isinstance(self._audio, _Encoder):
            audio = self.encode_audio(np.zeros(window, np.float32))
        else:
            audio = self.audio_stream().step(
                np.zeros(TOKEN_SPAN_SAMPLES, np.float32), Level(0.0, 1.0)
            )
        self.heatmap(image, audio, 0)

    def _begin_pass(self) -> None:
        if self._interrupted.is_set():
            raise Interrupted
        unhindered_by_recordings()


class GpuAudioStream:
    """An audio stream on a GPU; see `denseav.export.runtime.session.AudioStream`."""

    def __init__(self, stepper: "_Stepper", begin_pass: Callable[[], None]) -> None:
        self._stepper = stepper
        self._begin_pass = begin_pass
        self._memory = stepper.free.pop() if stepper.free else stepper.allocate()
        self._side = 0
        self.reset()

    def step(self, samples_S: NDArray[np.float32], level: Level) -> Features:
        """Take the next token and return features of which the newest tokens are new."""
        self._begin_pass()
        features = self._stepper.step(self._memory, self._side, level.normalized(samples_S))
        self._side = 1 - self._side
        return features

    def reset(self) -> None:
        """Forget everything: the next step is the first."""
        self._stepper.clear(self._memory, self._side)

    def __del__(self) -> None:
        if hasattr(self, "_memory"):
            self._stepper.free.append(self._memory)


class _Pass:
    """An upload and an engine's run, at addresses that stay; recorded once it has been given."""

    def __init__(
        self, stream: Stream, staged: StagedArray, engine: Engine, addresses: dict[str, int]
    ) -> None:
        self._stream, self._staged, self._engine = stream, staged, engine
        self._addresses = addresses
        self._recording: Recording | None = None
        self._to_record = engine.recordable and cuda_graphs_asked()

    def give(self) -> None:
        """Give the pass to the stream."""
        if self._recording is not None:
            self._stream.replay(self._recording)
            return
        self._give()
        if self._to_record:
            # An engine has to have run once with an address before it can be recorded.
            self._to_record = False
            with suppress(BundleError):  # not every engine can be: plainly is slower, and as right
                self._recording = self._stream.record(self._give)

    def _give(self) -> None:
        self._stream.upload(self._staged)
        self._engine.enqueue(self._addresses)


class _Encoder:
    """An engine with one input and one output: arrays in, features on the GPU out."""

    def __init__(self, open_engine: OpenEngine, graph: str, source: str, stream: Stream) -> None:
        self._stream = stream
        self._engine = open_engine(graph, stream)
        self._source, self._output = source, f"{graph}_features"
        self._staged = StagedArray(*self._engine.layout(source))
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
        features = _Features(_nbytes(self._engine, self._output), self._free)
        place = features.place
        if place.encoding is None:
            addresses = {self._source: self._staged.pointer, self._output: features.pointer}
            place.encoding = _Pass(self._stream, self._staged, self._engine, addresses)
        place.encoding.give()
        self._stream.finish()
        return features


@dataclass(frozen=True, eq=False)
class _StepMemory:
    """All that a stream remembers, twice: pass *i* reads side *i* and writes the other one."""

    sides: tuple[dict[str, DeviceMemory], ...]
    passes: tuple[_Pass, ...]


class _Stepper:
    """The audio step engine; `free` is memory that no stream has at present."""

    def __init__(self, open_engine: OpenEngine, manifest: Manifest, stream: Stream) -> None:
        assert manifest.audio_step is not None
        self._stream = stream
        self._engine = open_engine(AUDIO_STEP, stream)
        self._staged = StagedArray(*self._engine.layout("wave"))
        states = manifest.audio_step.states
        manifest.audio_step.require_shapes({name: self._engine.layout(name)[0] for name in states})
        self._next = {"past_features": "audio_features"} | {name: f"next_{name}" for name in states}
        self._places: list[_Place] = []
        self.free: list[_StepMemory] = []

    def allocate(self) -> _StepMemory:
        """Return memory for one stream."""
        names = self._next
        sides = [{name: DeviceMemory(_nbytes(self._engine, name)) for name in names} for _ in "01"]
        passes = [
            _Pass(self._stream, self._staged, self._engine, self._addresses(sides[i], sides[1 - i]))
            for i in (0, 1)
        ]
        return _StepMemory(tuple(sides), tuple(passes))

    def step(self, memory: _StepMemory, side: int, normed_S: NDArray[np.float32]) -> "_Features":
        """Take a token and return a copy of its features, once they are complete."""
        np.copyto(self._staged.array, normed_S, casting="no")
        memory.passes[side].give()
        kept = memory.sides[1 - side]["past_features"]
        features = _Features(kept.nbytes, self._places)
        self._stream.copy(kept, features.place.memory)
        self._stream.finish()
        return features

    def clear(self, memory: _StepMemory, side: int) -> None:
        """Let one side be as before any audio."""
        for state in memory.sides[side].values():
            self._stream.clear(state)
        self._stream.finish()

    def _addresses(
        self, before: dict[str, DeviceMemory], after: dict[str, DeviceMemory]
    ) -> dict[str, int]:
        read = {name: memory.pointer for name, memory in before.items()}
        written = {self._next[name]: memory.pointer for name, memory in after.items()}
        return {"wave": self._staged.pointer} | read | written


def _nbytes(engine: Engine, tensor: str) -> int:
    shape, dtype = engine.layout(tensor)
    return math.prod(shape) * np.dtype(dtype).itemsize


@dataclass
class _Place:
    """Where features lie on the GPU, and the encoder's pass that puts them there."""

    memory: DeviceMemory
    encoding: _Pass | None = None


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
