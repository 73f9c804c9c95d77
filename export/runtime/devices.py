"""Devices: their names as a command line has them, and whether an NVIDIA GPU is here.

Strings in, strings and a yes or no out. No library is loaded for it, so that it answers at once.
"""

import ctypes
import sys
from typing import Literal

DEVICES = "auto, cpu, cuda, trt, webgpu, openvino, openvino:DEVICE or openvino:DEVICE:PRECISION"
OnMismatch = Literal["error", "rebuild", "onnx"]

_PRECISIONS = ("fp32", "fp16", "bf16")


def check_device_name(device: str) -> str:
    """Return `device` when it names a device, be it here or not; raise `ValueError` otherwise."""
    kind, *further = device.split(":")
    known = not further and kind in ("auto", "cpu", "cuda", "trt", "webgpu", "openvino")
    chosen = kind == "openvino" and 1 <= len(further) <= 2 and all(further)
    if not known and not (chosen and (len(further) == 1 or further[1] in _PRECISIONS)):
        raise ValueError(f"{device!r} is none of {DEVICES}")
    return device


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
