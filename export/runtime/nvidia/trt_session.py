"""A bundle's engines on the TensorRT library that they were built with. No torch here.

The facts beside the engines are compared first, then TensorRT-RTX itself says whether an engine
fits the card and the driver, and only then one is opened. What it compiles for the card is kept
beside the engine, so that only the first start has to.
"""

import logging
import os
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from denseav.export.runtime.bundle import Bundle, BundleError
from denseav.export.runtime.engine_facts import (
    Machine,
    MismatchError,
    check_engines,
    engine_library,
    engine_path,
    rebuild_command,
)
from denseav.export.runtime.nvidia.cuda import Stream, gpu_facts
from denseav.export.runtime.nvidia.gpu_session import GpuSession, Layout
from denseav.export.runtime.nvidia.trt_library import NAMES, RTX, error_log, load_library
from denseav.export.runtime.session import AudioWay

_INVALID = {
    "VERSION_MISMATCH": "another version of TensorRT-RTX built it",
    "UNSUPPORTED_CC": "it was not built for this GPU",
    "OLD_CUDA_DRIVER": "the NVIDIA driver is older than the library; update the driver",
    "OLD_CUDA_RUNTIME": "the CUDA runtime is older than the library; update the driver",
    "INSUFFICIENT_GPU_MEMORY": "the GPU has too little memory; use --device cpu",
    "MALFORMED_ENGINE": "it is damaged",
    "CUDA_ERROR": "the GPU cannot be used",
}

log = logging.getLogger(__name__)


class TrtSession(GpuSession):
    """The three engines of a bundle, loaded; see `denseav.export.runtime.session.Session`.

    Raises
    ------
    MismatchError
        When an engine was built for something else than this machine and bundle; none is opened.
    BundleError
        When the library or the GPU cannot be used, or an engine cannot be opened.
    """

    def __init__(self, bundle: Bundle, audio: AudioWay = "window") -> None:
        library = engine_library(bundle, audio)
        trt = load_library(library)
        gpu, capability = gpu_facts()
        machine = Machine(
            library=library, version=trt.__version__, gpu=gpu, compute_capability=capability
        )
        check_engines(bundle, machine, audio)
        self._engines: list[TrtEngine] = []

        def open_engine(graph: str, stream: Stream) -> TrtEngine:
            self._engines.append(TrtEngine(trt, bundle, graph, stream))
            return self._engines[-1]

        super().__init__(bundle, NAMES[library].lower(), open_engine, audio)
        self.warm_up(bundle)  # compiles what is not yet
        reasons = [engine.keep_compiled() for engine in self._engines]
        if any(reasons):
            log.warning("every start compiles anew: %s", next(filter(None, reasons)))


class TrtEngine:
    """One engine with the context that runs it; see `nvidia.gpu_session.Engine`."""

    recordable = True

    def __init__(self, trt: ModuleType, bundle: Bundle, graph: str, stream: Stream) -> None:
        self._trt, self._stream = trt, stream
        self._path = engine_path(bundle.folder, graph)
        self._remedy = f"rebuild it with: {rebuild_command(bundle.folder)}"
        self._log = error_log(trt)
        self._runtime = trt.Runtime(self._log)
        data = self._path.read_bytes()
        self._check_valid(data)
        self._engine = self._given(self._runtime.deserialize_cuda_engine(data))
        self._cache: Any = None
        self._loaded = b""
        self._context = self._given(self._make_context())

    def layout(self, tensor: str) -> Layout:
        """Return the shape and type of an input or output."""
        dtype = self._trt.nptype(self._engine.get_tensor_dtype(tensor))
        shape = self._engine.get_tensor_shape(tensor)
        return tuple(shape[axis] for axis in range(len(shape))), dtype

    def enqueue(self, addresses: dict[str, int]) -> None:
        """Give one pass to the engine's stream, each input and output being at its address."""
        bound = [self._context.set_tensor_address(name, at) for name, at in addresses.items()]
        if not (all(bound) and self._context.execute_async_v3(self._stream.handle)):
            raise self._failure("run")

    def keep_compiled(self) -> str | None:
        """Write what was compiled beside the engine, if it is new; return why that failed."""
        if self._cache is None:
            return None
        compiled = bytes(self._cache.serialize())
        if compiled == self._loaded:
            return None
        fresh = self._cache_path.with_suffix(f".{os.getpid()}")
        try:
            fresh.write_bytes(compiled)
            fresh.replace(self._cache_path)
        except OSError as error:
            with suppress(OSError):
                fresh.unlink()
            return f"{self._cache_path} cannot be written ({error.strerror})"
        return None

    @property
    def _cache_path(self) -> Path:
        return self._path.with_name(f"{self._path.name}.compiled")

    def _make_context(self) -> Any:
        if self._trt.__name__ != RTX:
            return self._engine.create_execution_context()
        config = self._engine.create_runtime_config()
        self._cache = config.create_runtime_cache()
        with suppress(FileNotFoundError):
            stored = self._cache_path.read_bytes()
            if self._cache.deserialize(stored):  # False where another card or driver wrote it
                self._loaded = stored
        config.set_runtime_cache(self._cache)
        return self._engine.create_execution_context(config)

    def _check_valid(self, data: bytes) -> None:
        if self._trt.__name__ != RTX:
            return
        validity, found = self._runtime.get_engine_validity(data)
        if validity == self._trt.EngineValidity.INVALID:
            kinds = self._trt.EngineInvalidityDiagnostics.__members__
            words = [_INVALID[name] for name, kind in kinds.items() if found & int(kind)]
            reason = ", ".join(words) or self._log.error
            raise MismatchError(f"{self._path.name} does not fit: {reason}; {self._remedy}")

    def _given(self, value: Any) -> Any:
        if value is None:
            raise self._failure("open")
        return value

    def _failure(self, what: str) -> BundleError:
        return BundleError(
            f"TensorRT cannot {what} {self._path} ({self._log.error}); {self._remedy}"
        )
