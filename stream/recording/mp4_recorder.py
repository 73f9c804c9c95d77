"""An MP4 recording: canvases `[H, W, 3]` and `AudioBlock`s with their times in, a file out.

While it is written the file is `NAME.part.mp4`, in fragments of a second, so that it plays up to
the last of them whatever ends the program; complete, it is made an ordinary MP4 and gets its name.
Encoding runs on the caller's thread.
"""

import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import av

from denseav.export.process_limits import patiently
from denseav.stream.errors import OutputError
from denseav.stream.recording.film_encoder import FilmEncoder
from denseav.stream.recording.film_recorder import FilmRecorder
from denseav.stream.recording.places import (
    cannot_record,
    reason,
    refuse_taken,
    require_kind,
    take_name,
)

FRAGMENT_S = 1.0  # what a kill or a power cut costs, at most
_BOX = struct.Struct(">I4s")  # what every part of an MP4 begins with: its length and kind


class Recorder(FilmRecorder):
    """One recording. Call everything from one thread.

    Parameters
    ----------
    path : the file to make, `NAME.mp4`; neither it nor `NAME.part.mp4` may exist yet.
    width, height : of the pictures, both even.
    sound : whether the file has a sound track (48 kHz stereo; what is missing is silence).

    Raises
    ------
    OutputError
        Here and from every method, when the file cannot be written. The recorder is done; what
        was written until then stays under the name `NAME.part.mp4`, if any of it plays.
    """

    def __init__(self, path: Path, width: int, height: int, sound: bool = True) -> None:
        require_kind(path, ".mp4")
        self._path = path
        self._file = _part_file(path)
        self._open = True
        try:
            self._container = _container(self._file)
            self._film = FilmEncoder(self._container, width, height, sound=sound)
        except (OSError, av.FFmpegError) as error:
            self._discard()
            raise cannot_record(path, error) from None

    @contextmanager
    def _or_keep(self) -> Iterator[None]:
        """Let go of a file that takes no more, without another byte, so that it stays whole."""
        try:
            yield
        except (OSError, av.FFmpegError, MemoryError) as error:
            if not self._keep_what_plays():
                self._discard()
                raise cannot_record(self._path, error) from None
            raise OutputError(
                f"cannot write the recording {self._path} ({reason(error)}); what was recorded "
                f"until then is kept in {self._file.path}"
            ) from None

    def _complete(self) -> None:
        self._file.close()
        self._open = False
        take_name(self._file.path, self._path)

    def _keep_what_plays(self) -> bool:
        if self._open:
            self._open = False
            self._file.seal()
            with suppress(OSError, av.FFmpegError, MemoryError):
                self._container.close()
            self._file.close()
            return _cut_torn(self._file.path) > 0
        return True  # it is complete, and only has another name

    def _discard(self) -> None:
        self._open = False
        self._file.close()
        with suppress(OSError):
            self._file.path.unlink(missing_ok=True)


class _PartFile(io.RawIOBase):
    """A file that nobody else has, and that takes nothing more once it is sealed or has failed.

    FFmpeg ends an MP4 by changing its beginning: what cannot be ended must not be begun to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # "x" follows no link and overwrites nothing.
        self._file = patiently(lambda: path.open("xb", buffering=0))
        self._sealed = False

    def write(self, data: Any) -> int:
        """Write all of it, or raise and be sealed."""
        view = memoryview(data)
        try:
            while len(view) and not self._sealed:
                view = view[self._file.write(view) :]
        except OSError:
            self._sealed = True
            raise
        return len(memoryview(data))

    def seal(self) -> None:
        """Take nothing more: what is written from now on is gone."""
        self._sealed = True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to where is read or written next."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return where is read or written next."""
        return self._file.tell()

    def seekable(self) -> bool:
        """Return that it can be moved within."""
        return True

    def writable(self) -> bool:
        """Return that it can be written."""
        return True

    def close(self) -> None:
        """Let go of it. May be called twice."""
        self._file.close()
        super().close()


def _part_file(path: Path) -> _PartFile:
    """Make the file that a recording is written to until it is complete."""
    part = path.with_name(f"{path.stem}.part.mp4")
    refuse_taken(path)
    try:
        return _PartFile(part)
    except FileExistsError:
        raise OutputError(
            f"{part} exists already: another run records there, or one was cut off, and what it "
            "recorded plays; choose another name, or move that file away"
        ) from None
    except OSError as error:
        raise cannot_record(path, error) from None


def _cut_torn(path: Path) -> int:
    """Cut off what follows a file's last complete fragment; return how many there are."""
    end, count = 0, 0
    with patiently(lambda: path.open("r+b")) as file:
        size = file.seek(0, os.SEEK_END)
        at = 0
        while at + _BOX.size <= size:
            file.seek(at)
            length, kind = _BOX.unpack(file.read(_BOX.size))
            at += length
            if kind == b"mdat" and length and at <= size:
                end, count = at, count + 1
            elif length < _BOX.size:  # a box beyond 4 GiB, or none
                break
        file.truncate(end)
    return count


def _container(file: _PartFile) -> av.container.OutputContainer:
    options = {
        "movflags": "hybrid_fragmented+delay_moov",  # the sound's lead-in is known only then
        "frag_duration": str(round(1e6 * FRAGMENT_S)),
        "flush_packets": "1",
    }
    return av.open(file, "w", format="mp4", options=options)
