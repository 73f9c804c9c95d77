"""The voice of the world: espeak-ng, called as a library in this process.

It turns a text and a manner into samples and the times of the words, as espeak-ng counts them.

Errors
------
DataError    espeak-ng is not installed, or does not know the voice
"""

import ctypes
import ctypes.util
import functools
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from denseav.train.errors import DataError

_LOCK = threading.Lock()
_SYNCHRONOUS, _DONT_EXIT = 2, 0x8000
_SPEED, _PITCH, _RANGE = 1, 3, 4
_CHARACTERS, _UTF8 = 1, 1
_LIST_END, _WORD = 0, 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Manner:
    """How a text is spoken: espeak-ng's voice, words a minute, and its 0 to 100 of two more."""

    voice: str
    speed_wpm: int
    pitch: int
    range: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """What espeak-ng said: samples [S] (int16), their rate, each word's first character, sample."""

    wave_S: NDArray[np.int16]
    rate_hz: int
    words: tuple[tuple[int, int], ...]


class _Event(ctypes.Structure):
    """espeak-ng's `espeak_EVENT`."""

    _fields_ = [  # noqa: RUF012 - the form ctypes asks for
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(slots=True)
class _Espeak:
    """The one initialised library of the process, and what its callback has collected."""

    library: ctypes.CDLL
    rate_hz: int
    chunks: list[NDArray[np.int16]] = field(default_factory=list)
    words: list[tuple[int, int]] = field(default_factory=list)
    callback: Any = None

    def collect(self, samples: Any, count: int, events: Any) -> int:
        """Keep what espeak-ng hands over; 0 asks it to go on."""
        if count > 0:
            self.chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type != _LIST_END:
            if events[index].type == _WORD:
                self.words.append((events[index].text_position - 1, events[index].sample))
            index += 1
        return 0


def utter(text: str, manner: Manner) -> Utterance:
    """Return `text` as espeak-ng speaks it.

    Raises
    ------
    DataError
        If espeak-ng is not installed, or does not know the voice.
    """
    with _LOCK:
        espeak = _load()
        espeak.chunks.clear()
        espeak.words.clear()
        if espeak.library.espeak_SetVoiceByName(manner.voice.encode()) != 0:
            raise DataError(f"espeak-ng has no voice {manner.voice}: apt install espeak-ng-data")
        for parameter, value in (
            (_SPEED, manner.speed_wpm),
            (_PITCH, manner.pitch),
            (_RANGE, manner.range),
        ):
            espeak.library.espeak_SetParameter(parameter, value, 0)
        data = text.encode()
        espeak.library.espeak_Synth(data, len(data) + 1, 0, _CHARACTERS, 0, _UTF8, None, None)
        wave_S = np.concatenate(espeak.chunks)
        words = tuple((place, at) for place, at in espeak.words if f" {text}"[place] == " ")
        return Utterance(wave_S=wave_S, rate_hz=espeak.rate_hz, words=words)


@functools.cache
def _load() -> _Espeak:
    name = ctypes.util.find_library("espeak-ng")
    if name is None:
        raise DataError("espeak-ng is not installed: apt install espeak-ng")
    library = ctypes.CDLL(name)
    rate_hz = library.espeak_Initialize(_SYNCHRONOUS, 200, None, _DONT_EXIT)
    if rate_hz <= 0:
        raise DataError("espeak-ng finds no voices: apt install espeak-ng-data")
    espeak = _Espeak(library=library, rate_hz=rate_hz)
    espeak.callback = _Callback(espeak.collect)
    library.espeak_SetSynthCallback(espeak.callback)
    return espeak
