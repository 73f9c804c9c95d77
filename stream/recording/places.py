"""Where recordings go: names that are free, failures in words, and pictures kept one by one.

Paths in, paths or errors for people out. It knows nothing of what is recorded.
"""

import errno
import os
from datetime import datetime
from pathlib import Path

import cv2

from denseav.export.command_line import in_words
from denseav.export.process_limits import patiently
from denseav.stream.display.drawing import Canvas
from denseav.stream.errors import OutputError


def check_recording(path: Path) -> None:
    """Find out before a run whether a recording of any kind can be begun there.

    Raises
    ------
    OutputError
        When the file exists, or cannot be written.
    """
    refuse_taken(path)
    try:
        patiently(lambda: path.open("xb")).close()
        path.unlink()
    except OSError as error:
        raise cannot_record(path, error) from None


def require_kind(path: Path, *suffixes: str) -> None:
    """Raise OutputError for a name that ends in none of these."""
    if path.suffix.lower() not in suffixes:
        *names, last = [f"NAME{suffix}" for suffix in suffixes]
        named = f"{', '.join(names)} or {last}" if names else last
        raise OutputError(f"cannot record to {path}: name it {named}")


def refuse_taken(*paths: Path) -> None:
    """Raise OutputError for the first path that is there already, as whatever it may be."""
    for path in filter(os.path.lexists, paths):
        raise OutputError(f"{path} exists already; choose another name or delete it")


def take_name(part: Path, path: Path) -> None:
    """Give a file its name, and never take it from another that has it meanwhile."""
    try:
        path.hardlink_to(part)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        part.rename(path)
    else:
        part.unlink()


def reason(error: Exception) -> str:
    """Return in a few words what went wrong."""
    return getattr(error, "strerror", None) or in_words(error)


def cannot_record(path: Path, error: Exception) -> OutputError:
    """Return the error for people, with what to do."""
    place = "choose a folder that exists, can be written and has space left"
    remedy = "free some memory" if isinstance(error, MemoryError) else place
    return OutputError(f"cannot write the recording {path} ({reason(error)}); {remedy}")


def snapshot(canvas: Canvas, folder: Path) -> Path:
    """Write a canvas as PNG under an unused name in `folder`, and return the path.

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    _, png = cv2.imencode(".png", canvas)
    path = unused_path(folder, ".png")
    try:
        with patiently(lambda: path.open("xb")) as file:
            file.write(png.tobytes())
    except OSError as error:
        raise OutputError(
            f"cannot write {path} ({error.strerror}); start denseav-live in another folder"
        ) from None
    return path


def unused_path(folder: Path, suffix: str) -> Path:
    """Return where there is no file yet: in `folder`, named by the time, numbered if need be."""
    stem = f"denseav-{datetime.now():%Y%m%d-%H%M%S}"
    path, count = folder / f"{stem}{suffix}", 1
    while path.exists():
        count += 1
        path = folder / f"{stem}-{count}{suffix}"
    return path
