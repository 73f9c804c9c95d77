"""A recording to watch while it grows: canvases `[H, W, 3]` and `AudioBlock`s in, HLS out.

Beside `NAME.m3u8` lie `NAME-00000.ts`, `NAME-00001.ts` and so on, two seconds each; a segment is
in the playlist once it is whole, so that all of it plays whatever ends the program. Encoding runs
on the caller's thread.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import av

from denseav.export.outside_files import ffmpeg_name
from denseav.export.process_limits import patiently
from denseav.stream.errors import OutputError
from denseav.stream.recording.film_encoder import FilmEncoder
from denseav.stream.recording.film_recorder import FilmRecorder
from denseav.stream.recording.places import cannot_record, reason, refuse_taken

SEGMENT, SEGMENT_S = ".ts", 2.0
_NAME = re.compile(r"[A-Za-z0-9._-]+")


class PlaylistRecorder(FilmRecorder):
    """One recording. Call everything from one thread.

    Parameters
    ----------
    path : the playlist to make, `NAME.m3u8`; neither it nor a segment's name may be taken. NAME
        is letters a to z, digits, `.`, `_` and `-`: players take names of segments for addresses.
    width, height : of the pictures, both even.

    Raises
    ------
    OutputError
        Here and from every method, when it cannot be written. The recorder is done; the segments
        that were whole until then stay, and play.
    """

    def __init__(self, path: Path, width: int, height: int) -> None:
        self._path = path
        self._open = True
        if not _NAME.fullmatch(path.stem):
            raise OutputError(
                f"cannot record to {path}: players take a playlist's names for addresses; use "
                "letters a to z, digits, . _ and - alone"
            )
        refuse_taken(path, path.with_name(f"{path.stem}-00000{SEGMENT}"))
        self._files = _Files(path.absolute())
        with self._or_keep():
            self._files.claim()
            self._container = _container(path.absolute(), self._files)
            self._film = FilmEncoder(self._container, width, height, key_s=SEGMENT_S)

    @contextmanager
    def _or_keep(self) -> Iterator[None]:
        """Let go of a playlist that takes no more; what it names is whole."""
        try:
            yield
            if self._files.failure is not None:  # FFmpeg's muxer takes no notice
                raise self._files.failure
        except (OSError, av.FFmpegError, MemoryError) as error:
            plays = self._leave()
            why = self._files.failure or error
            if not plays:
                raise cannot_record(self._path, why) from None
            raise OutputError(
                f"cannot write the recording {self._path} ({reason(why)}); what was recorded "
                "until then is kept there"
            ) from None

    def _complete(self) -> None:
        self._open = False

    def _discard(self) -> None:
        self._leave()

    def _leave(self) -> bool:
        """Let it be as it is; return whether anything of it plays, else nothing of it stays."""
        self._open = False
        self._files.seal()
        with suppress(OSError, av.FFmpegError, MemoryError, AttributeError):
            self._container.close()
        return self._files.keep_what_is_named()


class _Files:
    """The files of a playlist, new ones all; after a failure, or sealed, none takes anything more.

    Attributes
    ----------
    failure : the first.
    """

    def __init__(self, playlist: Path) -> None:
        self.failure: OSError | None = None
        self._playlist = playlist
        self._written: list[Path] = []
        self._text = ""  # of the playlist
        self._sealed = False

    def claim(self) -> None:
        """Make the playlist, so that nobody else has its name."""
        patiently(lambda: self._playlist.open("xb")).close()
        self._written.append(self._playlist)

    def seal(self) -> None:
        """Take nothing more: what is written from now on is gone."""
        self._sealed = True

    def open(self, url: str, _flags: int, _options: object) -> io.RawIOBase | io.BytesIO:
        """Open what FFmpeg wants to write: a segment once, the playlist again and again."""
        path = Path(url.removeprefix(ffmpeg_name("")))
        if self._sealed:
            return io.BytesIO()
        if path.suffix != SEGMENT:
            return _Text(self, path)
        try:
            file = patiently(lambda: path.open("xb", 0))
        except OSError as error:
            self._note(error)
            raise
        self._written.append(path)
        return _Segment(self, file)

    def keep_what_is_named(self) -> bool:
        """Remove what the playlist does not name; return whether it names anything."""
        kept = [path for path in self._written[1:] if path.name in self._text]
        for path in self._written[1 if kept else 0 :]:
            if path not in kept:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
        return bool(kept)

    def write(self, file: Any, data: Any) -> None:
        """Write all of it, or note why not, and raise."""
        view = memoryview(data)
        try:
            while len(view) and not self._sealed:
                view = view[file.write(view) :]
        except OSError as error:
            self._note(error)
            raise

    def replace_playlist(self, path: Path, text: bytes) -> None:
        """Have the playlist say something else: the old text or the new one, whatever happens.

        FFmpeg writes a file beside it, and gives that its name whether all was written or not.
        """
        part = self._playlist.with_name(f"{self._playlist.name}.part")
        if self._sealed:
            return
        try:
            patiently(lambda: part.write_bytes(text))
            part.replace(path)
            self._text = text.decode()
        except OSError as error:
            part.unlink(missing_ok=True)
            self._note(error)
            raise

    def _note(self, error: OSError) -> None:
        self.failure = self.failure or error
        self._sealed = True


class _Text(io.BytesIO):
    """The playlist's text, which counts once it is closed."""

    def __init__(self, files: _Files, path: Path) -> None:
        super().__init__()
        self._files, self._path = files, path

    def close(self) -> None:
        """Write it whole, or raise. May be called twice."""
        text = b"" if self.closed else self.getvalue()
        super().close()
        if text:
            self._files.replace_playlist(self._path, text)


class _Segment(io.RawIOBase):
    """A segment, as FFmpeg writes it."""

    def __init__(self, files: _Files, file: io.FileIO) -> None:
        self._files, self._file = files, file

    def write(self, data: Any) -> int:
        """Write all of it, or raise."""
        self._files.write(self._file, data)
        return len(memoryview(data))

    def writable(self) -> bool:
        """Return that it can be written."""
        return True

    def close(self) -> None:
        """Let go of it. May be called twice."""
        self._file.close()
        super().close()


def _container(path: Path, files: _Files) -> av.container.OutputContainer:
    pattern = path.with_name(f"{path.stem}-%05d{SEGMENT}")
    options = {
        "hls_time": str(SEGMENT_S),
        "hls_playlist_type": "event",  # it grows, and may be watched from its beginning
        "hls_segment_filename": ffmpeg_name(pattern),
        "hls_flags": "independent_segments",
    }
    return av.open(ffmpeg_name(path), "w", format="hls", options=options, io_open=files.open)
