"""TensorRT and CUDA at their seams, on a CPU: as lazy as a GPU may be, and with real memory.

Nothing that is given to a stream happens before somebody waits for it, so whoever overwrites or
reads memory too early gets wrong numbers. Engines are the exported programs themselves.
"""

import ctypes
import enum
import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

import denseav.export.runtime.nvidia

VERSION = "11.1.0.106"
GPU, CAPABILITY = b"NVIDIA Fake 1", (9, 0)
OURS = ("cuda", "gpu_session", "trt_session", "cuda_session")


class CudaError(enum.Enum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorStreamCaptureInvalidated = 901


OK = (CudaError.cudaSuccess,)


class Stream:
    """Work in order, none of it done before it is waited for."""

    all: dict[int, "Stream"] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.pending: list[Callable[[], None]] = []
        self.done = 0
        self.recorded: list[Callable[[], None]] | None = None
        self.replayed = 0
        Stream.all[id(self)] = self

    def __int__(self) -> int:
        return id(self)

    def give(self, work: Callable[[], None]) -> None:
        (self.pending if self.recorded is None else self.recorded).append(work)

    def run(self, until: int) -> None:
        while self.done < until:
            self.pending.pop(0)()
            self.done += 1


class Cuda(ModuleType):
    """`cuda.bindings.runtime`: memory is the process's own, freed memory is poisoned."""

    cudaError_t = CudaError
    cudaMemcpyKind = SimpleNamespace(
        cudaMemcpyHostToDevice="up",
        cudaMemcpyDeviceToHost="down",
        cudaMemcpyDeviceToDevice="across",
    )
    cudaEventBlockingSync, cudaEventDisableTiming = 1, 2
    cudaStreamNonBlocking, cudaHostAllocDefault = 1, 0
    cudaStreamCaptureMode = SimpleNamespace(
        cudaStreamCaptureModeThreadLocal="mine", cudaStreamCaptureModeRelaxed="relaxed"
    )

    def __init__(self) -> None:
        super().__init__("cuda.bindings.runtime")
        self.memory: dict[int, ctypes.Array[ctypes.c_char]] = {}
        self.sides: dict[int, str] = {}
        self.full, self.old, self.records = False, False, True
        self.graphs = 0
        self.waits: list[Stream] = []
        self.relaxed: set[str] = set()  # names of threads

    def _allocate(self, nbytes: int, side: str) -> tuple[CudaError, int | None]:
        if self.full:
            return CudaError.cudaErrorMemoryAllocation, None
        memory = ctypes.create_string_buffer(b"\xff" * nbytes, nbytes)
        at = ctypes.addressof(memory)
        self.memory[at], self.sides[at] = memory, side
        return CudaError.cudaSuccess, at

    def cudaMalloc(self, nbytes):  # noqa: N802
        return self._allocate(nbytes, "device")

    def cudaHostAlloc(self, nbytes, flags):  # noqa: N802
        return self._allocate(nbytes, "host")

    def cudaFree(self, at):  # noqa: N802
        memory = self.memory.pop(at)
        ctypes.memset(at, 0xFF, len(memory))
        return OK

    cudaFreeHost = cudaFree

    def cudaMemcpyAsync(self, to, origin, nbytes, kind, stream):  # noqa: N802
        ways = {"up": ("host", "device"), "down": ("device", "host"), "across": ("device",) * 2}
        assert (self.sides[origin], self.sides[to]) == ways[kind]
        assert nbytes <= min(len(self.memory[to]), len(self.memory[origin]))
        stream.give(lambda: ctypes.memmove(to, origin, nbytes) and None)
        return OK

    def cudaMemsetAsync(self, at, value, nbytes, stream):  # noqa: N802
        assert nbytes <= len(self.memory[at])
        stream.give(lambda: ctypes.memset(at, value, nbytes) and None)
        return OK

    def cudaThreadExchangeStreamCaptureMode(self, mode):  # noqa: N802
        assert mode == "relaxed"
        self.relaxed.add(threading.current_thread().name)
        return CudaError.cudaSuccess, "mine"

    def cudaStreamBeginCapture(self, stream, mode):  # noqa: N802
        assert mode == "mine"
        assert stream.recorded is None
        stream.recorded = []
        return OK

    def cudaStreamEndCapture(self, stream):  # noqa: N802
        recorded, stream.recorded = stream.recorded, None
        if not self.records:
            return CudaError.cudaErrorStreamCaptureInvalidated, None
        return CudaError.cudaSuccess, recorded

    def cudaGraphInstantiate(self, graph, flags):  # noqa: N802
        assert flags == 0
        self.graphs += 1
        return CudaError.cudaSuccess, tuple(graph)

    def cudaGraphDestroy(self, graph):  # noqa: N802
        graph.clear()
        return OK

    def cudaGraphExecDestroy(self, graph):  # noqa: N802
        self.graphs -= 1
        return OK

    def cudaGraphLaunch(self, graph, stream):  # noqa: N802
        stream.replayed += 1
        for work in graph:
            stream.give(work)
        return OK

    def cudaStreamCreateWithFlags(self, flags):  # noqa: N802
        return CudaError.cudaSuccess, Stream()

    def cudaStreamDestroy(self, stream):  # noqa: N802
        del Stream.all[int(stream)]
        return OK

    def cudaEventCreateWithFlags(self, flags):  # noqa: N802
        assert flags == self.cudaEventBlockingSync | self.cudaEventDisableTiming
        return CudaError.cudaSuccess, SimpleNamespace()

    def cudaEventDestroy(self, event):  # noqa: N802
        return OK

    def cudaEventRecord(self, event, stream):  # noqa: N802
        assert stream.recorded is None
        event.stream, event.until = stream, stream.done + len(stream.pending)
        return OK

    def cudaEventSynchronize(self, event):  # noqa: N802
        self.waits.append(event.stream)
        event.stream.run(event.until)
        return OK

    def cudaGetDeviceProperties(self, device):  # noqa: N802
        if self.old:
            return CudaError.cudaErrorInsufficientDriver, None
        major, minor = CAPABILITY
        return CudaError.cudaSuccess, SimpleNamespace(name=GPU, major=major, minor=minor)

    def cudaGetErrorString(self, error):  # noqa: N802
        return CudaError.cudaSuccess, error.name.encode()


class Engine:
    """An exported program with the names of its inputs and outputs."""

    def __init__(self, program, inputs, outputs) -> None:
        self.run, self.inputs = program.module(), inputs
        self.outputs = (outputs,) if isinstance(outputs, str) else outputs
        values = [n.meta["val"] for n in program.graph.nodes if n.op == "placeholder"]
        values = values[-len(inputs) :]
        results = next(n for n in program.graph.nodes if n.op == "output").args[0]
        values += [node.meta["val"] for node in results]
        named = zip((*inputs, *self.outputs), values, strict=True)
        self.tensors = {name: (tuple(v.shape), v.dtype) for name, v in named}

    def get_tensor_shape(self, name):
        return self.tensors[name][0]

    def get_tensor_dtype(self, name):
        return self.tensors[name][1]

    def create_execution_context(self):
        return Context(self)


class Context:
    """Binds addresses, and gives the program's run to a stream."""

    broken = False

    def __init__(self, engine) -> None:
        self.engine, self.addresses = engine, {}

    def set_tensor_address(self, name, at):
        self.addresses[name] = at
        return name in self.engine.tensors

    def execute_async_v3(self, stream):
        addresses = dict(self.addresses)
        Stream.all[stream].give(lambda: self._run(addresses))
        return not Context.broken

    @torch.no_grad()
    def _run(self, addresses) -> None:
        views = {name: self._view(name, at) for name, at in addresses.items()}
        inputs = [torch.from_numpy(views[name].copy()) for name in self.engine.inputs]
        results = self.engine.run(*inputs)
        results = (results,) if isinstance(results, torch.Tensor) else results
        for name, result in zip(self.engine.outputs, results, strict=True):
            views[name][...] = result.numpy()

    def _view(self, name, at):
        shape, dtype = self.engine.tensors[name]
        plain = np.dtype(nptype(dtype))
        memory = (ctypes.c_byte * int(np.prod(shape) * plain.itemsize)).from_address(at)
        return np.ctypeslib.as_array(memory).view(plain).reshape(shape)


def nptype(dtype):
    return torch.empty(0, dtype=dtype).numpy().dtype.type


class Gpu:
    """All that was installed, to look at and to break."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.cuda = Cuda()
        self.engines: dict[bytes, Engine] = {}
        self.opened = 0
        self._numbers = itertools.count()
        bindings, trt, builder = (ModuleType(n) for n in ("cuda.bindings", "tensorrt", "builder"))
        bindings.runtime = self.cuda
        severity = SimpleNamespace(ERROR="error", INTERNAL_ERROR="internal", WARNING="warning")
        trt.ILogger = type("ILogger", (), {"Severity": severity})
        trt.__version__, trt.nptype = VERSION, nptype
        trt.Runtime = lambda log: SimpleNamespace(
            deserialize_cuda_engine=lambda data: self._open(data, log)
        )
        builder.dynamo = SimpleNamespace(
            convert_exported_program_to_serialized_trt_engine=self._build
        )
        modules = {"cuda.bindings": bindings, "cuda.bindings.runtime": self.cuda}
        for name, module in (modules | {"tensorrt": trt, "torch_tensorrt": builder}).items():
            patch.setitem(sys.modules, name, module)
        for module in ("runtime.open_session", "builder.trt_engine"):
            patch.setattr(f"denseav.export.{module}.cuda_is_here", lambda: True)

    def _build(
        self, program, *, arg_inputs, arg_input_binding_names, output_binding_names, **settings
    ):
        assert all(tensor.is_contiguous() for tensor in arg_inputs)
        data = b"engine %d" % next(self._numbers)
        self.engines[data] = Engine(program, arg_input_binding_names, output_binding_names)
        return data

    def _open(self, data, log):
        self.opened += 1
        if data not in self.engines:
            log.log("warning", "this is not the reason")
            log.log("error", "magic tag does not match\nat line 7")
        return self.engines.get(data)


def forget_ours() -> None:
    """Let the modules that import TensorRT and CUDA be imported anew."""
    for name in OURS:
        sys.modules.pop(f"denseav.export.runtime.nvidia.{name}", None)
        vars(denseav.export.runtime.nvidia).pop(name, None)


@contextmanager
def fake_gpu() -> Iterator[Gpu]:
    """Give a machine that has TensorRT, torch-tensorrt and a GPU, all of them fakes."""
    forget_ours()
    with pytest.MonkeyPatch.context() as patch:
        yield Gpu(patch)
    forget_ours()
