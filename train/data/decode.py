"""Reads what people have, pictures, sound and video of any format, a piece at a time.

Files enter, JPEG files and waves leave. `denseav.stream.media` reads videos and sound, as it does
live; sound is resampled to 16 kHz as there, evaluation takes it as recorded (`read_recorded`). At
most ten seconds of a video are held at once.

Axes: S samples.

Errors
------
UnreadableError      a file cannot be read, or has no sound or no picture
"""

import io
import itertools
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from PIL import Image, ImageOps

from denseav.export.outside_files import require_file
from denseav.models.config import SAMPLE_RATE_HZ
from denseav.stream.media.errors import MediaError
from denseav.stream.media.reader import MediaReader, Picture
from denseav.stream.media.sound import Channel, Sound

FRAME_SIDE = 256
"""Stored pictures are scaled down to this short side, in pixels: a crop of 224 with room."""

LEAST_SAMPLES = 6_568
"""Clips with less sound, a twenty-fifth of what the network takes, are not used."""
LONGEST_S = 60
"""What is kept of a recording that is no video, in seconds."""

Image.init()
PICTURE_FORMATS = sorted(
    {"AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"}.intersection(Image.OPEN)
)
"""What pictures may be: Pillow starts Ghostscript over PostScript, whatever its name ends with."""

BATCH_PARTS = 32
_JPEG_QUALITY = 90
_PICTURE_FAULTS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow's readers raise of damaged files."""

Samples = NDArray[np.float32]


class UnreadableError(Exception):
    """A file that is skipped; the message is the reason."""


def jpeg(picture: Image.Image) -> bytes:
    """Return a picture as a JPEG file, scaled down to a short side of 256 pixels."""
    scale = FRAME_SIDE / min(picture.size)
    if scale < 1:
        width, height = (round(side * scale) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    file = io.BytesIO()
    picture.convert("RGB").save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()


def fit(
    picture: Image.Image,
    size: tuple[int, int],
    how: Image.Resampling = Image.Resampling.BILINEAR,
    *,
    stretch: bool = False,
) -> Image.Image:
    """Return a picture of a height and width: short side scaled, middle cut out; or stretched."""
    height, width = size
    if stretch:
        return picture.resize((width, height), how)
    scale_to, short = min(size), min(picture.size)
    wide, high = (scale_to * side // short for side in picture.size)
    left, top = round((wide - width) / 2), round((high - height) / 2)
    return picture.resize((wide, high), how).crop((left, top, left + width, top + height))


def flac(wave_S: Samples) -> bytes:
    """Return a wave at 16 kHz as a FLAC file of 16 bit; what is louder than full is clipped."""
    file = io.BytesIO()
    limited_S = np.clip(wave_S, -1, 1)
    soundfile.write(file, limited_S, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def read_picture(path: Path) -> bytes:
    """Return the picture of a file, upright, as `jpeg` gives it.

    Raises
    ------
    UnreadableError
        When it is missing or no picture.
    """
    return jpeg(open_picture(path))


def open_picture(path: Path) -> Image.Image:
    """Return the picture of a file, decoded and upright.

    Raises
    ------
    UnreadableError
        When it is missing, or no picture of the formats that there are.
    """
    try:
        require_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged notes in a file whose picture is whole
            with Image.open(path, formats=PICTURE_FORMATS) as picture:
                picture.load()
                return ImageOps.exif_transpose(picture)
    except FileNotFoundError:
        raise UnreadableError(f"{path} is missing") from None
    except _PICTURE_FAULTS as error:
        raise UnreadableError(f"{path} cannot be read as a picture ({_reason(error)})") from None


def media_reader(
    path: Path, channel: Channel | None = None, audio_track: str | None = None
) -> MediaReader:
    """Return what reads a file of pictures and sound on one core: every core has its own file."""
    return MediaReader(path, audio_track=audio_track, channel=channel, threads=1)


def read_sound(reader: MediaReader) -> Samples:
    """Return the sound of a file, its first minute at most, mono at 16 kHz.

    Raises
    ------
    UnreadableError
        When it is missing, cannot be decoded, or has no sound.
    """
    return _first_minute(_sound_at_16_khz(reader), SAMPLE_RATE_HZ, reader.path)


def read_recorded(reader: MediaReader) -> tuple[Samples, int]:
    """Return the sound of a file, its first minute at most, mono, and its own rate in hertz.

    Raises
    ------
    UnreadableError
        When it is missing, cannot be decoded, or has no sound.
    """
    rate_hz, parts = _recorded(reader)
    return _first_minute(parts, rate_hz, reader.path), rate_hz


def _first_minute(parts: Iterator[Samples], rate_hz: int, path: Path) -> Samples:
    minute_S = next(_pieces(parts, LONGEST_S * rate_hz), None)
    if minute_S is None:
        raise UnreadableError(f"{path} has no sound")
    return minute_S


def cut_video(
    reader: MediaReader, piece_s: float, frames_each: int
) -> Iterator[tuple[list[bytes], Samples]]:
    """Yield a video in pieces, each its pictures, evenly spaced, and its sound.

    A picture is the one that is on the screen then: it stays until the next, the last to the end
    of the sound. The last piece is as long as the sound; one without a picture or any sound is not
    given.

    Parameters
    ----------
    reader : of a video with sound.
    piece_s : length of a piece, in seconds.
    frames_each : pictures of a whole piece.

    Raises
    ------
    UnreadableError
        When it is missing, cannot be decoded, or has no sound or no picture.
    """
    step_s = piece_s / frames_each
    pieces = _pieces(_sound_at_16_khz(reader), round(piece_s * SAMPLE_RATE_HZ))
    screen = _Screen(reader)
    for index, wave_S in enumerate(pieces):
        count = max(1, min(frames_each, round(len(wave_S) / SAMPLE_RATE_HZ / step_s)))
        times = [index * piece_s + (place + 0.5) * step_s for place in range(count)]
        frames = [file for time_s in times if (file := screen.at(time_s))]
        if frames:
            yield frames, wave_S


class _Screen:
    """What a video shows, asked for times that only grow."""

    def __init__(self, reader: MediaReader) -> None:
        self._path = reader.path
        self._pictures = reader.pictures()
        self._shown: Picture | None = None
        self._file: bytes | None = None
        with _readable():
            self._next = next(self._pictures, None)

    def at(self, time_s: float) -> bytes | None:
        """Return the picture on the screen at a time, as a JPEG file; None before the first."""
        with _readable():
            while self._next is not None and self._next.time_s <= time_s:
                self._shown, self._file = self._next, None
                self._next = next(self._pictures, None)
            if self._file is None and self._shown is not None:
                self._file = jpeg(Image.fromarray(self._shown.shown("rgb24")))
        return self._file


def _pieces(parts: Iterable[Samples], samples: int) -> Iterator[Samples]:
    """Join blocks of sound and cut them anew; only the last piece may be shorter."""
    held: list[Samples] = []
    for part_S in parts:
        held.append(part_S)
        while sum(map(len, held)) >= samples:
            joined_S = np.concatenate(held)
            yield joined_S[:samples]
            held = [joined_S[samples:]]
    rest_S = np.concatenate(held) if held else np.zeros(0, np.float32)
    if len(rest_S):
        yield rest_S


def _sound_at_16_khz(reader: MediaReader) -> Iterator[Samples]:
    rate_hz, parts = _recorded(reader)
    resampler = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")
    for part_S in parts:
        yield resampler.resample_chunk(part_S)
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def _recorded(reader: MediaReader) -> tuple[int, Iterator[Samples]]:
    """Return the rate of the sound, and all of it from the file's start on."""
    sounds = reader.sound()
    with _readable():
        first = next(sounds, None)
    if first is None:
        raise UnreadableError(f"{reader.path} has no sound")
    return first.rate_hz, _joined(_without_holes(itertools.chain([first], sounds)))


def _joined(parts: Iterator[Samples]) -> Iterator[Samples]:
    """Yield the same in larger parts: each costs its own call of the resampler."""
    while batch := list(itertools.islice(parts, BATCH_PARTS)):
        yield np.concatenate(batch)


def _without_holes(sounds: Iterator[Sound]) -> Iterator[Samples]:
    """Yield sound as it is heard: what is missing in it is silent."""
    heard = 0
    with _readable():
        for sound in sounds:
            while (hole := sound.first_sample - heard) > 0:
                silent_S = np.zeros(min(hole, sound.rate_hz), np.float32)
                heard += len(silent_S)
                yield silent_S
            heard += len(sound.samples_S)
            yield sound.samples_S


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except MediaError as error:
        raise UnreadableError(str(error)) from None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
