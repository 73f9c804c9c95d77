"""Other people's programs: what `import denseav` gives them, built on the run that the command is.

Pictures are uint8 [H, W, 3], blue-green-red, as OpenCV has them; times are seconds of
`time.monotonic()`, or of the file where it is run offline; places are pixels of the frame.
"""

from denseav.export.runtime.bundle import BundleError
from denseav.stream.errors import (
    FrameStaleError,
    OutputError,
    SourceError,
    StreamError,
    UsageError,
)
from denseav.stream.feed.client import Head
from denseav.stream.python.explanation import explain
from denseav.stream.python.heat_frame import HeatFrame
from denseav.stream.python.live_stream import LiveStream, live
from denseav.stream.python.loaded_bundle import LoadedBundle, load_bundle

__all__ = [
    "BundleError",
    "FrameStaleError",
    "Head",
    "HeatFrame",
    "LiveStream",
    "LoadedBundle",
    "OutputError",
    "SourceError",
    "StreamError",
    "UsageError",
    "explain",
    "live",
    "load_bundle",
]
