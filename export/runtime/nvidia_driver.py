"""Whether an NVIDIA driver and a GPU are there: asked of the driver alone, no library needed."""

import ctypes
import sys


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
