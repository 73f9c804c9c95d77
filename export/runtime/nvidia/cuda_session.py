"""A bundle's ONNX graphs on ONNX Runtime with CUDA; features stay on the GPU. No torch here.

Every set of addresses has one binding for good: ONNX Runtime records a CUDA graph of an encoder's
pass for each, which needs addresses that never change, and for each thread that runs it. It works
in the session's own streams, so that the copies and the waiting are ours.
"""

import logging
from typing import Any

import numpy as np
import onnxruntime as ort

from denseav.export.runtime.bundle import Bundle, BundleError
from denseav.export.runtime.devices import cuda_is_here
from denseav.export.runtime.nvidia.cuda import Stream
from denseav.export.runtime.nvidia.gpu_session import GpuSession, Layout, cuda_graphs_asked
from denseav.export.runtime.onnx_session import open_graph
from denseav.export.runtime.session import AudioWay

PROVIDER = "CUDAExecutionProvider"
_MEMORY = "cuda"
_REMEDY = (
    "install the CUDA libraries, in a clone of denseav, with: pip install '.[cuda]'; "
    "or use --device cpu"
)
_TYPES = {
    "tensor(uint8)": np.uint8,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}

log = logging.getLogger(__name__)


class CudaSession(GpuSession):
    """Three graphs of a bundle, loaded; see `denseav.export.runtime.session.Session`.

    `records` says whether ONNX Runtime is to record the encoders' passes.

    Raises
    ------
    BundleError
        When ONNX Runtime cannot open a graph, or run it.
    """

    def __init__(self, bundle: Bundle, audio: AudioWay = "window", *, records: bool) -> None:
        def open_engine(graph: str, stream: Stream) -> CudaEngine:
            return CudaEngine(bundle, graph, stream, records=records and graph != "heatmap")

        super().__init__(bundle, "onnxruntime-cuda", open_engine, audio)
        self.warm_up(bundle)


def open_cuda(bundle: Bundle, audio: AudioWay = "window") -> CudaSession:
    """Load a bundle, its passes recorded as CUDA graphs where ONNX Runtime can do that.

    Raises
    ------
    BundleError
        When CUDA cannot be had, or ONNX Runtime cannot open a graph, or run it.
    """
    _require_cuda()
    if cuda_graphs_asked():
        try:
            return CudaSession(bundle, audio, records=True)
        except BundleError as error:
            log.warning("on CUDA without recording passes: %s", error)
    return CudaSession(bundle, audio, records=False)


class CudaEngine:
    """One graph; see `nvidia.gpu_session.Engine`.

    `records` says whether ONNX Runtime may record its passes: one graph for each binding.
    """

    recordable = False  # ONNX Runtime records by itself

    def __init__(self, bundle: Bundle, graph: str, stream: Stream, records: bool) -> None:
        self._records = records
        self._session = self._open(bundle, graph, stream)
        tensors = (*self._session.get_inputs(), *self._session.get_outputs())
        self._layouts = {each.name: (tuple(each.shape), _TYPES[each.type]) for each in tensors}
        self._outputs = {each.name for each in self._session.get_outputs()}
        self._bound: dict[tuple[int, ...], tuple[Any, Any]] = {}

    def layout(self, tensor: str) -> Layout:
        """Return the shape and type of an input or output."""
        return self._layouts[tensor]

    def enqueue(self, addresses: dict[str, int]) -> None:
        """Give one pass to the engine's stream, each input and output being at its address."""
        key = tuple(addresses.values())
        if key not in self._bound:
            self._bound[key] = self._bind(addresses), self._run_options(len(self._bound) + 1)
        try:
            self._session.run_with_iobinding(*self._bound[key])
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's own types share no other base
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise BundleError(
                f"ONNX Runtime fails on CUDA ({reason}); update the driver, or use --device cpu"
            ) from None

    def _bind(self, addresses: dict[str, int]) -> Any:
        binding = self._session.io_binding()
        for name, pointer in addresses.items():
            shape, dtype = self._layouts[name]
            bind = binding.bind_output if name in self._outputs else binding.bind_input
            bind(name, _MEMORY, 0, dtype, list(shape), pointer)
        return binding

    def _run_options(self, number: int) -> Any:
        options = ort.RunOptions()
        if self._records:
            options.add_run_config_entry("gpu_graph_id", str(number))
        # Whoever reads the output waits for the stream, asleep; ONNX Runtime's own waiting spins.
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        return options

    def _open(self, bundle: Bundle, graph: str, stream: Stream) -> Any:
        settings = {
            "user_compute_stream": str(stream.handle),
            "use_tf32": "0",  # float32 has all its digits
            "enable_cuda_graph": "1" if self._records else "0",
        }
        session = open_graph(bundle.graph(graph), providers=[(PROVIDER, settings)])
        if session.get_providers()[0] != PROVIDER:
            raise BundleError(f"ONNX Runtime could not start CUDA; {_REMEDY}")
        return session


def _require_cuda() -> None:
    if not cuda_is_here():
        raise BundleError("no NVIDIA GPU or driver was found; use --device cpu")
    if PROVIDER not in ort.get_available_providers():
        raise BundleError(f"this ONNX Runtime has no CUDA; {_REMEDY}")
    ort.preload_dlls(directory="")
