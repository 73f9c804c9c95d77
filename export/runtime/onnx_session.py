"""A bundle on ONNX Runtime, on a CPU or an NVIDIA GPU; features stay on the device."""

import ctypes
import os
import sys
from pathlib import Path
from typing import Any, Literal

# ONNX Runtime reports to its makers what it runs, unless it is told not to before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from denseav.export.runtime.bundle import GRAPHS, Bundle, BundleError
from denseav.export.runtime.session import Features, Interrupted, normalized

OnnxDevice = Literal["cpu", "cuda"]

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_CUDA_REMEDY = (
    "install the CUDA libraries, in a clone of denseav, with: pip install '.[cuda]'; "
    "or use --device cpu"
)


class OnnxSession:
    """The three graphs of a bundle, loaded; see `denseav.export.runtime.session.Session`.

    Parameters
    ----------
    bundle : a checked bundle.
    device : `cpu` or `cuda`; never anything else than what was asked for.
    threads : how many threads one graph may use on a CPU.

    Raises
    ------
    BundleError
        When ONNX Runtime cannot open a graph, or CUDA was asked for and cannot be had.
    """

    def __init__(self, bundle: Bundle, device: OnnxDevice = "cpu", threads: int = 1) -> None:
        if device == "cuda":
            _require_cuda()
        self.backend = f"onnxruntime-{device}"
        self.precision = bundle.manifest.precision
        self._takes_normalized = bundle.manifest.audio.takes_normalized
        self._device = device
        self._run_options = ort.RunOptions()
        self._graphs = {name: _open(bundle.graph(name), device, threads) for name in GRAPHS}

    def encode_image(self, image_HW3: NDArray[np.uint8]) -> Features:
        """Encode one RGB picture that already has the manifest's size."""
        return self._run("image", {"image": self._put(image_HW3)}, self._device)

    def encode_audio(self, wave_S: NDArray[np.float32], least_deviation: float = 0.0) -> Features:
        """Encode one window of 16 kHz sound, exactly the manifest's `window_samples`."""
        if self._takes_normalized:
            wave_S = normalized(wave_S, least_deviation)
        return self._run("audio", {"wave": self._put(wave_S)}, self._device)

    def heatmap(self, image: Features, audio: Features, token: int) -> NDArray[np.float32]:
        """Return the similarity slice `[K, H, W]` of the picture and audio token `token`."""
        inputs = {
            "image_features": image,
            "audio_features": audio,
            "token": self._put(np.array([token], dtype=np.int64)),
        }
        heat: NDArray[np.float32] = self._run("heatmap", inputs, "cpu").numpy()
        return heat

    def dense(self, image: Features) -> NDArray[np.float32]:
        """Return a copy of a picture's features, `[K, C, H, W]`, for people to look at."""
        return np.array(image.numpy(), np.float32)

    def interrupt(self) -> None:
        """Make the pass in progress and all later ones raise `Interrupted`, from any thread."""
        self._run_options.terminate = True

    def _put(self, array: NDArray[Any]) -> Any:
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._device, 0)

    def _run(self, graph: str, inputs: dict[str, Any], output_device: OnnxDevice) -> Any:
        session = self._graphs[graph]
        binding = session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_output(session.get_outputs()[0].name, output_device)
        try:
            session.run_with_iobinding(binding, self._run_options)
        except Exception:
            if self._run_options.terminate:
                raise Interrupted from None
            raise
        return binding.get_outputs()[0]


def cuda_is_here() -> bool:
    """Say whether the machine has an NVIDIA driver and at least one GPU it can use."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return False
    count = ctypes.c_int(0)
    initialised = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return initialised and count.value > 0


def _require_cuda() -> None:
    if not cuda_is_here():
        raise BundleError("no NVIDIA GPU or driver was found; use --device cpu")
    if _PROVIDERS["cuda"] not in ort.get_available_providers():
        raise BundleError(f"this ONNX Runtime has no CUDA; {_CUDA_REMEDY}")
    ort.preload_dlls(directory="")


def _open(path: Path, device: OnnxDevice, threads: int) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = min(threads, os.cpu_count() or 1)
    options.inter_op_num_threads = 1
    # A thread that spins while it waits takes the core that capture and drawing need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(str(path), options, providers=[_PROVIDERS[device]])
    except Exception as error:  # noqa: BLE001
        # ONNX Runtime raises its own C++ exception types, which share no base but Exception.
        reason = str(error).splitlines()[0]
        raise BundleError(f"{path} cannot be opened ({reason}); export it again") from None
    if session.get_providers()[0] != _PROVIDERS[device]:
        raise BundleError(f"ONNX Runtime could not start CUDA; {_CUDA_REMEDY}")
    return session
