"""A small process that holds espeak-ng and forks for every text, so that no text hears another.

espeak-ng carries state from one text to the next (flutter, phase), which changes its samples; a
fork of the freshly initialised library always starts alike. It needs only the standard library.

Started with the name of the library, it says the sample rate (0 or less: no voices) and then
answers requests: a JSON line [text, voice, speed, pitch, range] in, a JSON line [words, bytes] and
the int16 samples out, words being pairs of a position in the text, from 1, and a sample. An answer
that is not a list is what went wrong: "voice" or "crash".
"""

import ctypes
import json
import os
import signal
import sys
from typing import Any

SYNCHRONOUS, DONT_EXIT = 2, 0x8000
SPEED, PITCH, RANGE = 1, 3, 4
CHARACTERS, UTF8 = 1, 1
LIST_END, WORD = 0, 1


class Event(ctypes.Structure):
    """espeak-ng's `espeak_EVENT`."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    ]


CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event)
)


def main() -> None:
    """Answer requests until the input ends."""
    if sys.platform == "win32":
        raise OSError("there is no fork")
    # Stopping is the parent's: terminals and schedulers signal a whole group of processes at once.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    library = ctypes.CDLL(sys.argv[1])
    rate_hz = library.espeak_Initialize(SYNCHRONOUS, 200, None, DONT_EXIT)
    library.espeak_ListVoices(None)  # reads a hundred files once, not in every fork
    _write(json.dumps(rate_hz))
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _answer(library, *json.loads(line))
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            _write(json.dumps("crash"))


def _answer(
    library: ctypes.CDLL, text: str, voice: str, speed: int, pitch: int, spread: int
) -> None:
    """Speak one text and write the answer."""
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        _write(json.dumps("voice"))
        return
    for parameter, value in ((SPEED, speed), (PITCH, pitch), (RANGE, spread)):
        library.espeak_SetParameter(parameter, value, 0)
    chunks: list[bytes] = []
    words: list[tuple[int, int]] = []

    def collect(samples: Any, count: int, events: Any) -> int:
        if count > 0:
            chunks.append(ctypes.string_at(samples, 2 * count))
        index = 0
        while events[index].type != LIST_END:
            if events[index].type == WORD:
                words.append((events[index].text_position, events[index].sample))
            index += 1
        return 0

    callback = CALLBACK(collect)
    library.espeak_SetSynthCallback(callback)
    data = text.encode()
    library.espeak_Synth(data, len(data) + 1, 0, CHARACTERS, 0, UTF8, None, None)
    wave = b"".join(chunks)
    _write(json.dumps([words, len(wave)]), wave)


def _write(line: str, wave: bytes = b"") -> None:
    sys.stdout.buffer.write(line.encode() + b"\n" + wave)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
