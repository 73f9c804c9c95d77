"""The voice of the world: espeak-ng, which turns a text into samples and the times of its words.

The same text and manner give the same samples, whatever was said before: the library lives in a
process of its own that starts afresh for every text. Threads may share it; a fork gets its own.

Errors
------
DataError    espeak-ng is not installed, does not know the voice, or failed; this is Windows
"""

import atexit
import ctypes.util
import functools
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from denseav.train.errors import DataError

ENDED = "espeak-ng does not run: apt install --reinstall espeak-ng, then start again"
WORKER = Path(__file__).with_name("espeak_worker.py")


@dataclass(frozen=True, kw_only=True, slots=True)
class Manner:
    """How a text is spoken: espeak-ng's voice, words a minute, and its 0 to 100 of two more."""

    voice: str
    speed_wpm: int
    pitch: int
    range: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """What espeak-ng said.

    Attributes
    ----------
    wave_S : NDArray[np.int16]
        The samples [S].
    rate_hz : int
        Their rate.
    words : tuple of (int, int)
        Of every word its place in the text, from 0, and its first sample. Two words that run
        together, as "of a", are one.
    """

    wave_S: NDArray[np.int16]
    rate_hz: int
    words: tuple[tuple[int, int], ...]


def utter(text: str, manner: Manner) -> Utterance:
    """Return `text` as espeak-ng speaks it.

    Raises
    ------
    DataError
        If espeak-ng is not installed, does not know the voice, or failed.
    """
    return _espeak(os.getpid()).utter(text, manner)


class _Espeak:
    """The process that holds the library."""

    def __init__(self, library: str) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(WORKER), library],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._requests = cast(BinaryIO, self._process.stdin)
        self._answers = cast(BinaryIO, self._process.stdout)
        atexit.register(self._close)
        self._rate_hz = self._read()
        if self._rate_hz <= 0:
            raise DataError("espeak-ng finds no voices: apt install espeak-ng-data")

    def utter(self, text: str, manner: Manner) -> Utterance:
        request = [text, manner.voice, manner.speed_wpm, manner.pitch, manner.range]
        with self._lock:
            answer = self._ask(json.dumps(request).encode() + b"\n")
            if answer == "voice":
                raise DataError(f"espeak-ng has no voice {manner.voice}: install release 1.50+")
            if answer == "crash":
                raise DataError(f"espeak-ng failed at {text!r} in the voice {manner.voice}")
            events, count = answer
            wave_S = np.frombuffer(self._answers.read(count), dtype=np.int16)
        words = tuple((place - 1, at) for place, at in events if f" {text}"[place - 1] == " ")
        return Utterance(wave_S=wave_S, rate_hz=self._rate_hz, words=words)

    def _ask(self, request: bytes) -> Any:
        try:
            self._requests.write(request)
            self._requests.flush()
        except BrokenPipeError as error:
            raise DataError(ENDED) from error
        return self._read()

    def _read(self) -> Any:
        line = self._answers.readline()
        if not line:
            raise DataError(ENDED)
        return json.loads(line)

    def _close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._requests.close()
        self._answers.close()


@functools.cache
def _espeak(process_id: int) -> _Espeak:
    """Return the process that belongs to this one: pipes must not be shared with a fork."""
    del process_id
    if sys.platform == "win32":
        raise DataError("the world speaks on Linux and macOS alone: its voices need fork")
    library = ctypes.util.find_library("espeak-ng")
    if library is None:
        raise DataError("espeak-ng is not installed: apt install espeak-ng")
    return _Espeak(library)
