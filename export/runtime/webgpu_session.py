"""A bundle by WebGPU, on Apple's, AMD's, Intel's or NVIDIA's GPUs: ONNX Runtime's plug-in."""

import functools
import os
from typing import Any

import onnxruntime as ort

from denseav.export.runtime.bundle import Bundle, BundleError
from denseav.export.runtime.onnx_session import OnnxSession
from denseav.export.runtime.session import AudioWay, Threads

SOFTWARE_ALLOWED = "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER"
_NAME = "denseav-webgpu"


def open_webgpu(
    bundle: Bundle,
    threads: int | Threads = 1,
    audio: AudioWay = "window",
    *,
    software: bool = True,
) -> OnnxSession:
    """Load a bundle on the first GPU that WebGPU finds.

    Parameters
    ----------
    software : whether an adapter that is software, and was allowed by the environment, will do.

    Raises
    ------
    BundleError
        When the plug-in is missing, there is no GPU, or a graph cannot be opened.
    """
    device = _first_device(software)

    def prepare(options: Any) -> None:
        options.add_provider_for_devices([device], {})

    return OnnxSession(
        bundle=bundle, device="webgpu", threads=threads, audio=audio, prepare=prepare
    )


@functools.cache
def _register() -> str:
    """Make the plug-in known to ONNX Runtime, once; return its provider's name."""
    try:
        import onnxruntime_ep_webgpu as plugin
    except ModuleNotFoundError:
        raise BundleError(
            "onnxruntime-ep-webgpu is not installed; install it, in a clone of denseav, with: "
            "pip install '.[webgpu]'"
        ) from None
    ort.set_default_logger_severity(4)
    try:
        ort.register_execution_provider_library(_NAME, plugin.get_library_path())
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's own types share no other base
        reason = str(error).splitlines()[0]
        raise BundleError(f"WebGPU cannot be loaded ({reason}); use --device cpu") from None
    return str(plugin.get_ep_name())


def _first_device(software: bool) -> Any:
    name = _register()
    devices = [device for device in ort.get_ep_devices() if device.ep_name == name]
    hardware = [device for device in devices if device.device.type != ort.OrtHardwareDeviceType.CPU]
    if hardware:
        return hardware[0]
    if devices and software:
        return devices[0]
    if devices or os.environ.get(SOFTWARE_ALLOWED):
        raise BundleError("WebGPU's only adapter is software; use --device cpu")
    raise BundleError(
        "WebGPU found no GPU; use --device cpu, or try a software adapter with "
        f"{SOFTWARE_ALLOWED}=1 in the environment"
    )
