"""A bundle's ONNX graphs on ONNX Runtime with CUDA; features stay on the GPU. No torch here.

Every place that features lie in has one binding for good: ONNX Runtime records a CUDA graph of an
encoder's pass for each, which needs addresses that never change. It works in the session's own
streams, so that the copies and the waiting are ours.
"""

from typing import Any

import numpy as np
import onnxruntime as ort

from denseav.export.runtime.bundle import Bundle, BundleError
from denseav.export.runtime.cuda import Stream
from denseav.export.runtime.devices import cuda_is_here
from denseav.export.runtime.gpu_session import GpuSession, Layout, cuda_graphs_asked
from denseav.export.runtime.onnx_session import OnnxSession, open_graph

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
}


class CudaSession(GpuSession):
    """The three graphs of a bundle, loaded; see `denseav.export.runtime.session.Session`.

    Raises
    ------
    BundleError
        When CUDA cannot be had, or ONNX Runtime cannot open a graph.
    """

    def __init__(self, bundle: Bundle) -> None:
        _require_cuda()

        def open_engine(graph: str, stream: Stream) -> CudaEngine:
            return CudaEngine(bundle, graph, stream, records=graph != "heatmap")

        super().__init__(bundle, "onnxruntime-cuda", open_engine)


def open_streaming(bundle: Bundle, threads: int = 1) -> OnnxSession:
    """Load a bundle to stream audio; its passes are bound anew each time, and not recorded.

    Raises
    ------
    BundleError
        When CUDA cannot be had, or ONNX Runtime cannot open a graph.
    """
    _require_cuda()

    def prepare(options: Any) -> None:
        options.add_provider(PROVIDER, {"use_tf32": "0"})

    return OnnxSession(
        bundle=bundle, device="cuda", threads=threads, audio="streaming", prepare=prepare
    )


class CudaEngine:
    """One graph; see `denseav.export.runtime.gpu_session.Engine`.

    `records` says whether ONNX Runtime may record its passes: one graph for each binding.
    """

    recordable = False  # ONNX Runtime records by itself

    def __init__(self, bundle: Bundle, graph: str, stream: Stream, records: bool) -> None:
        self._records = records and cuda_graphs_asked()
        self._session = self._open(bundle, graph, stream)
        tensors = (*self._session.get_inputs(), *self._session.get_outputs())
        self._layouts = {each.name: (tuple(each.shape), _TYPES[each.type]) for each in tensors}
        self._output = self._session.get_outputs()[0].name
        self._bound: dict[tuple[int, ...], tuple[Any, Any]] = {}

    def layout(self, tensor: str) -> Layout:
        """Return the shape and type of an input or output."""
        return self._layouts[tensor]

    def enqueue(self, addresses: dict[str, int]) -> None:
        """Give one pass to the engine's stream, each input and output being at its address."""
        key = tuple(addresses.values())
        if key not in self._bound:
            self._bound[key] = self._bind(addresses), self._run_options(len(self._bound) + 1)
        self._session.run_with_iobinding(*self._bound[key])

    def _bind(self, addresses: dict[str, int]) -> Any:
        binding = self._session.io_binding()
        for name, pointer in addresses.items():
            shape, dtype = self._layouts[name]
            bind = binding.bind_output if name == self._output else binding.bind_input
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
