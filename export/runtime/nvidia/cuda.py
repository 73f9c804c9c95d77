"""The little of the CUDA runtime that a session needs: memory, streams, and waiting.

Memory is freed and streams end with the objects that stand for them. Waiting sleeps: a thread
that spins takes the core that capture and drawing need. Neither torch nor TensorRT here.
"""

import ctypes
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from cuda.bindings import runtime as cudart
from numpy.typing import DTypeLike, NDArray

from denseav.export.runtime.bundle import BundleError

_thread = threading.local()


class DeviceMemory:
    """So many bytes on the GPU, at the address `pointer`."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.pointer: int = checked(cudart.cudaMalloc(nbytes))

    def __del__(self) -> None:
        if hasattr(self, "pointer"):
            cudart.cudaFree(self.pointer)


class StagedArray:
    """An array of fixed shape on both sides: `array` in page-locked memory, `pointer` on the GPU.

    Copies between the two take place in a stream's order (`Stream.upload`, `Stream.download`).
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self.nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        self._device = DeviceMemory(self.nbytes)
        self.pointer = self._device.pointer
        self.host_pointer: int = checked(
            cudart.cudaHostAlloc(self.nbytes, cudart.cudaHostAllocDefault)
        )
        memory = (ctypes.c_byte * self.nbytes).from_address(self.host_pointer)
        self.array: NDArray[Any] = np.ctypeslib.as_array(memory).view(dtype).reshape(shape)

    def __del__(self) -> None:
        if hasattr(self, "host_pointer"):
            cudart.cudaFreeHost(self.host_pointer)


class Stream:
    """Work on the GPU, done in the order in which it was given."""

    def __init__(self) -> None:
        flags = cudart.cudaEventBlockingSync | cudart.cudaEventDisableTiming
        self._done = checked(cudart.cudaEventCreateWithFlags(flags))
        self._stream = checked(cudart.cudaStreamCreateWithFlags(cudart.cudaStreamNonBlocking))

    @property
    def handle(self) -> int:
        """The stream's address, as TensorRT takes it."""
        return int(self._stream)

    def upload(self, staged: StagedArray) -> None:
        """Copy the page-locked side to the GPU; it may not be written before `finish`."""
        kind = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(staged.pointer, staged.host_pointer, staged.nbytes, kind)

    def download(self, staged: StagedArray, pointer: int | None = None) -> None:
        """Copy the GPU's side to the page-locked one; it may not be read before `finish`.

        With `pointer`, what lies there on the GPU is copied instead.
        """
        kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(staged.host_pointer, pointer or staged.pointer, staged.nbytes, kind)

    def clear(self, memory: DeviceMemory) -> None:
        """Fill memory with zeros."""
        checked(cudart.cudaMemsetAsync(memory.pointer, 0, memory.nbytes, self._stream))

    def copy(self, origin: DeviceMemory, to: DeviceMemory) -> None:
        """Copy memory on the GPU to other memory there, of the same size."""
        kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._copy(to.pointer, origin.pointer, origin.nbytes, kind)

    def record(self, give: Callable[[], None]) -> "Recording":
        """Record what `give` gives to this stream; nothing of it is done.

        Other threads may use the GPU meanwhile. `give` may neither wait nor allocate.

        Raises
        ------
        BundleError
            When something that was given cannot be recorded.
        """
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        checked(cudart.cudaStreamBeginCapture(self._stream, mode))
        try:
            give()
        finally:
            ended = cudart.cudaStreamEndCapture(self._stream)
        return Recording(checked(ended))

    def replay(self, recording: "Recording") -> None:
        """Give all that was recorded at one stroke, with what its memory holds by then."""
        checked(cudart.cudaGraphLaunch(recording.handle, self._stream))

    def finish(self) -> None:
        """Wait until all that was given so far is done."""
        checked(cudart.cudaEventRecord(self._done, self._stream))
        checked(cudart.cudaEventSynchronize(self._done))

    def _copy(self, to: int, origin: int, nbytes: int, kind: Any) -> None:
        checked(cudart.cudaMemcpyAsync(to, origin, nbytes, kind, self._stream))

    def __del__(self) -> None:
        if hasattr(self, "_stream"):
            cudart.cudaStreamDestroy(self._stream)
            cudart.cudaEventDestroy(self._done)


class Recording:
    """Work with its addresses, ready to be given again: a CUDA graph."""

    def __init__(self, graph: Any) -> None:
        made = cudart.cudaGraphInstantiate(graph, 0)
        cudart.cudaGraphDestroy(graph)
        self.handle = checked(made)

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            cudart.cudaGraphExecDestroy(self.handle)


def unhindered_by_recordings() -> None:
    """Let the calling thread allocate while another one records.

    ONNX Runtime records so that all other threads are forbidden to, unless they ask for this.
    """
    if not hasattr(_thread, "mode"):
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeRelaxed
        _thread.mode = checked(cudart.cudaThreadExchangeStreamCaptureMode(mode))


def gpu_facts() -> tuple[str, str]:
    """Return the first GPU's name and compute capability, as in `("NVIDIA H200", "9.0")`."""
    properties = checked(cudart.cudaGetDeviceProperties(0))
    name = properties.name.decode(errors="replace").rstrip("\0")
    return name, f"{properties.major}.{properties.minor}"


def checked(result: tuple[Any, ...]) -> Any:
    """Return what a call of the CUDA runtime gave.

    Raises
    ------
    BundleError
        When the call failed, with CUDA's own words.
    """
    error, *values = result
    if error != cudart.cudaError_t.cudaSuccess:
        words = cudart.cudaGetErrorString(error)[1].decode(errors="replace")
        old = error == cudart.cudaError_t.cudaErrorInsufficientDriver
        remedy = "update the NVIDIA driver" if old else "free it"
        raise BundleError(f"the GPU cannot be used ({words}); {remedy}, or use --device cpu")
    return values[0] if values else None
