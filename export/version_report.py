"""What a bug report needs to say of the program and the machine, as lines of text.

Nothing of it is loaded before it is asked for; no torch is, for its version is read from its files.
"""

import argparse
import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from denseav.export.runtime.devices import cuda_is_here
from denseav.export.terminal_text import safe_text

_LIBRARIES = ("av", "numpy", "opencv-python", "openvino", "tensorrt-rtx-cu13", "torch")


class VersionAction(argparse.Action):
    """`--version`: print the report, and end."""

    def __init__(self, option_strings: list[str], **_: Any) -> None:
        super().__init__(
            option_strings,
            argparse.SUPPRESS,
            nargs=0,
            default=argparse.SUPPRESS,
            help="what a bug report needs: versions and devices",
        )

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print and end."""
        print(version_report())  # noqa: T201
        parser.exit()


def version_report() -> str:
    """Return some lines: the package, Python, ONNX Runtime, the other libraries, the devices."""
    return safe_text("\n".join(_lines()), lines=True)


def _lines() -> Iterator[str]:
    import onnxruntime

    yield f"denseav {version('denseav')}"
    yield f"Python {platform.python_version()} on {platform.platform()}"
    providers = ", ".join(onnxruntime.get_available_providers())
    yield f"ONNX Runtime {onnxruntime.__version__}: {providers}"
    yield ", ".join(_installed())
    yield f"{os.cpu_count()} CPUs of {platform.machine()}; " + (
        "an NVIDIA GPU" if cuda_is_here() else "no NVIDIA GPU or no driver"
    )


def _installed() -> Iterator[str]:
    for library in _LIBRARIES:
        try:
            yield f"{library} {version(library)}"
        except PackageNotFoundError:
            yield f"no {library}"
