"""TensorRT's libraries by the names of their modules: loaded, and their last error kept.

`tensorrt_rtx` builds on any x86-64 machine and compiles for the card at first load;
`tensorrt` (10 or 11) builds on the very card that runs the engine. Their interfaces are the same,
so whoever is given the module need not know which it is. Neither torch nor CUDA here.
"""

import importlib
from types import ModuleType
from typing import Any

from denseav.export.runtime.bundle import BundleError

RTX = "tensorrt_rtx"
TENSORRT = "tensorrt"
NAMES = {RTX: "TensorRT-RTX", TENSORRT: "TensorRT"}

_REMEDY = {
    RTX: "install it, in a clone of denseav, with: pip install '.[trt-runtime]'",
    TENSORRT: "install NVIDIA's TensorRT 10 or 11 for this Python",
}


def load_library(name: str) -> ModuleType:
    """Return the module `tensorrt_rtx` or `tensorrt`.

    Raises
    ------
    BundleError
        When it is neither of the two, is not installed, or its libraries cannot be loaded.
    """
    if name not in NAMES:
        raise BundleError(f"{name!r} is no TensorRT library that denseav knows; upgrade denseav")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise BundleError(f"{error.name} is not installed; {_REMEDY[name]}") from None
    except (ImportError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise BundleError(
            f"{NAMES[name]}'s libraries cannot be loaded ({reason}); {_REMEDY[name]}"
        ) from None


def error_log(trt: ModuleType) -> Any:
    """Return a logger for TensorRT; its `error` is the last, which says why nothing was returned.

    It has to outlive what was made with it.
    """

    class ErrorLog(trt.ILogger):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.error = "TensorRT gave no reason"

        def log(self, severity: Any, msg: str) -> None:
            """Take one message; only errors matter."""
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.error = msg.splitlines()[0] if msg else self.error

    return ErrorLog()
