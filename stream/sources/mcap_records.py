"""The records of an MCAP file of ours: its bytes in, records out, up to where a cut ended it.

A file that is whole but for its end is what a kill or a power cut leaves, and is read; any other
damage is told. Nothing here knows what the messages say.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mcap.exceptions import McapError, RecordLengthLimitExceeded
from mcap.records import Chunk, McapRecord
from mcap.stream_reader import StreamReader, breakup_chunk

from denseav.stream.errors import SourceError

MCAP_MAGIC = b"\x89MCAP0\r\n"
RECORD_BYTES_MAX = 32 << 20  # a chunk of half a second of the largest pictures


def mcap_records(file: BinaryIO, path: Path) -> Iterator[McapRecord]:
    """Yield what is in a file that was opened at its start, up to where it was cut.

    Raises
    ------
    SourceError
        When it is damaged in a way that no cut explains.
    """
    bounded: Any = _Bounded(file)
    reader = StreamReader(bounded, emit_chunks=True, record_size_limit=RECORD_BYTES_MAX)
    records = iter(reader.records)
    while True:
        try:
            record = next(records)
            inside = _inside(record) if isinstance(record, Chunk) else [record]
        except StopIteration:
            return
        except (McapError, ValueError, LookupError, struct.error) as error:
            cut = not isinstance(error, _DamageError | RecordLengthLimitExceeded)
            if cut and not file.read(1) and not is_finished(file):
                return
            raise SourceError(
                f"{path} is damaged ({error!s:.99}); copy or record it again"
            ) from None
        yield from inside


class _DamageError(ValueError):
    """What no power cut does."""


class _Bounded:
    """A file of which no more is read at once than a record may have, whatever is in a record."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        if not 0 <= size <= RECORD_BYTES_MAX:
            raise _DamageError(f"a length of {size:,} bytes")
        return self._file.read(size)


def _inside(chunk: Chunk) -> list[McapRecord]:
    if chunk.compression:
        raise _DamageError("it is compressed, as ours never are")
    try:
        return breakup_chunk(chunk, validate_crc=True)
    except (McapError, ValueError, LookupError, struct.error) as error:
        raise _DamageError(f"a chunk is not whole: {error}") from None


def is_finished(file: BinaryIO) -> bool:
    """Return whether a file ends as MCAP does, which begins so, too."""
    if file.seek(0, os.SEEK_END) <= len(MCAP_MAGIC):
        return False
    file.seek(-len(MCAP_MAGIC), os.SEEK_END)
    return file.read() == MCAP_MAGIC
