"""DenseAV live: on each video frame, where the sound comes from and what the speech is about.

    import denseav

    with denseav.live(camera=0) as stream:
        for frame in stream:
            print(frame.heads["sound"].peak)

This file is `denseav` itself. What it names lies in `denseav.stream.python`, which is loaded when
the first of it is used; no torch comes with it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from denseav.stream.python import (
        BundleError,
        FrameStaleError,
        Head,
        HeatFrame,
        LiveStream,
        LoadedBundle,
        OutputError,
        SourceError,
        StreamError,
        UsageError,
        explain,
        live,
        load_bundle,
    )

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

# Its packages lie in folders of their own, as a namespace's do: what reads the tree by places
# (import-linter) would look for them beside this file else.
__spec__.has_location = False


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("denseav.stream.python"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
