"""What recordings of a film have in common: canvases `[H, W, 3]` and `AudioBlock`s in, files out.

It encodes on the caller's thread and completes the recording, or lets go of it; how its files are
kept whole is the kinds' own.
"""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path

from av.container import OutputContainer

from denseav.stream.display.drawing import Canvas
from denseav.stream.recording.film_encoder import FilmEncoder
from denseav.stream.types import AudioBlock


class FilmRecorder(ABC):
    """One recording. Call everything from one thread.

    Raises
    ------
    OutputError
        From every method, when it cannot be written. The recorder is done.
    """

    _path: Path
    _open: bool
    _container: OutputContainer
    _film: FilmEncoder

    def frame(self, canvas: Canvas, capture_s: float) -> None:
        """Write a picture. One of another size is fitted into the recording's, between bars."""
        with self._or_keep():
            self._film.frame(canvas, capture_s)

    def audio(self, block: AudioBlock) -> None:
        """Write some sound. What comes before the first picture waits for it, at most 20 s."""
        with self._or_keep():
            self._film.audio(block)

    def close(self) -> Path | None:
        """Complete it and return its path; None when there was no picture to record."""
        if not self._open:
            return None
        if self._film.is_empty:
            self._discard()
            return None
        with self._or_keep():
            self._film.finish()
            self._container.close()
            self._complete()
        return self._path

    @abstractmethod
    def _or_keep(self) -> AbstractContextManager[None]:
        """Let go of files that take no more, so that what plays of them stays."""

    @abstractmethod
    def _complete(self) -> None:
        """Do what remains when all has been encoded; the recorder is done."""

    @abstractmethod
    def _discard(self) -> None:
        """Leave nothing, for there was no picture; the recorder is done."""
