"""A recording of a run for other tools: `Heatmap`s, audio and status in, an MCAP file out.

Foxglove, Rerun and ROS tools open it, and `--source` plays it again (`sources.recorded_run`). Half
a second at a time is written, whole, so that this is all that a kill or a power cut costs. Encoding
runs on the caller's thread, which is one at a time.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import SEEK_CUR, SEEK_SET, FileIO
from pathlib import Path
from time import monotonic
from typing import BinaryIO, cast

import foxglove
from foxglove.mcap import MCAPWriteOptions

from denseav.export.process_limits import patiently
from denseav.export.runtime.bundle import Head
from denseav.stream.errors import OutputError
from denseav.stream.recording.foxglove_channels import ONE_CAMERA, FoxgloveChannels, Inputs, Status
from denseav.stream.types import AudioBlock, Heatmap

CHUNK_S, CHUNK_BYTES = 0.5, 8 << 20  # what is written at a time


class McapRecorder:
    """One recording.

    Parameters
    ----------
    path : the file to make; it must not exist yet.
    heads : the model's.
    status : gives the run's figures, as JSON takes them.
    inputs : whose frames and audio there are.

    Raises
    ------
    OutputError
        Here and from every method, when the file cannot be written. The recorder is done; what
        was written until then can be read.
    """

    def __init__(
        self, path: Path, heads: Sequence[Head], status: Status, inputs: Inputs = ONE_CAMERA
    ) -> None:
        self._path = path
        self._written_s = monotonic()
        self._journal = _Journal(path)
        context = foxglove.Context()
        options = MCAPWriteOptions(compression=None, chunk_size=None)
        # It asks for what a file can, of which reading is no part.
        file = cast(BinaryIO, self._journal)
        self._writer = foxglove.open_mcap(file, context=context, writer_options=options)
        self._channels = FoxgloveChannels(context, heads, status, inputs)

    def heatmap(self, heatmap: Heatmap) -> None:
        """Keep a frame, each head's map, and where they are hot."""
        self._channels.heatmap(heatmap)
        self.poll()

    def audio(self, block: AudioBlock) -> None:
        """Keep some audio. What comes before the first frame waits for it."""
        self._channels.audio(block)

    def poll(self) -> None:
        """Write what is due: call it some times a second."""
        self._channels.tell_status()
        now_s = monotonic()
        if now_s - self._written_s >= CHUNK_S or self._journal.pending >= CHUNK_BYTES:
            self._written_s = now_s
            self._or_give_up(self._writer.flush)

    def close(self) -> Path | None:
        """Write the index, close the file and return its path; None when there was no frame."""
        if self._journal.closed:
            return None
        self._or_give_up(self._writer.close)
        self._journal.flush()
        self._or_give_up(self._journal.close)
        if not self._channels.begun:
            self._path.unlink(missing_ok=True)
            return None
        return self._path

    def _or_give_up(self, act: Callable[[], object]) -> None:
        act()
        if self._journal.failure is not None:
            self._journal.close()
            raise OutputError(
                f"cannot go on recording {self._path} ({self._journal.failure.strerror}); "
                "what was written can be read; make space"
            )


class _Journal:
    """A file of which only whole flushes are on the disk; keeps what it failed with.

    The writer seeks back in what it has not flushed, to put lengths right.
    """

    def __init__(self, path: Path) -> None:
        self.failure: OSError | None = None
        self._pending = bytearray()
        self._base = self._at = 0
        try:
            self._file: FileIO = patiently(lambda: path.open("xb", buffering=0))
        except FileExistsError:
            raise OutputError(f"{path} exists already; choose another name or delete it") from None
        except OSError as error:
            raise OutputError(
                f"cannot record to {path} ({error.strerror}); choose a folder that can be written"
            ) from None

    @property
    def closed(self) -> bool:
        return self._file.closed

    @property
    def pending(self) -> int:
        return len(self._pending)

    def write(self, data: bytes) -> int:
        begin = self._at - self._base
        self._pending[begin : begin + len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        end = self._base + len(self._pending)
        self._at = offset + (0 if whence == SEEK_SET else self._at if whence == SEEK_CUR else end)
        if not self._base <= self._at <= end:
            raise ValueError("what was written stays")
        return self._at

    def flush(self) -> None:
        pending, self._pending = memoryview(self._pending), bytearray()
        whole, self._base = self._base, self._base + len(pending)
        if self.failure is not None:
            return
        try:
            while pending:
                pending = pending[self._file.write(pending) :]
        except OSError as error:
            self.failure = error
            with suppress(OSError):
                os.ftruncate(self._file.fileno(), whole)

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()
