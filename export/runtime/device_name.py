"""The names of devices, as a command line has them. No library here, so that it answers at once."""

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
