"""Reads what people have, pictures, sound and video of any format, a piece at a time.

Files enter, JPEG files and waves leave. Of audio's channels the mean is taken, or the first, and it
is resampled to 16 kHz as the live runtime does it; evaluation takes it as recorded
(`read_recorded`). At most ten seconds of a video are held at once.

Axes: S samples, C channels.

Errors
------
UnreadableError      a file cannot be read, or has no sound or no picture
"""

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from PIL import Image, ImageOps

from denseav.export.outside_files import ffmpeg_name, require_file
from denseav.models.audio_encoder import SAMPLE_RATE_HZ

FRAME_SIDE = 256
"""Stored pictures are scaled down to this short side, in pixels: a crop of 224 with room."""

LEAST_SAMPLES = 6_568
"""Clips with less sound, a twenty-fifth of what the network takes, are not used."""
LONGEST_S = 60
"""What is kept of a recording that is no video, in seconds, and the longest hole in any."""
HOLE_S = 0.05
"""Sound that comes later than this after the last, in seconds, leaves silence between."""

Image.init()
PICTURE_FORMATS = sorted(
    {"AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"}.intersection(Image.OPEN)
)
"""What pictures may be: Pillow starts Ghostscript over PostScript, whatever its name ends with."""

_JPEG_QUALITY = 90
_FAULTS = (av.error.FFmpegError, OSError, ValueError)
_PICTURE_FAULTS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow's readers raise of damaged files."""

Samples = NDArray[np.float32]
Channels = Literal["mean", "first"]
"""What is taken of a recording's channels: the mean, as live; or the first, as released."""


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
    return jpeg(ImageOps.exif_transpose(open_picture(path)))


def open_picture(path: Path) -> Image.Image:
    """Return the picture of a file, decoded, as it is stored.

    Raises
    ------
    UnreadableError
        When it is missing, or no picture of the formats that there are.
    """
    try:
        require_file(path)
        with Image.open(path, formats=PICTURE_FORMATS) as picture:
            picture.load()
            return picture
    except FileNotFoundError:
        raise UnreadableError(f"{path} is missing") from None
    except _PICTURE_FAULTS as error:
        raise UnreadableError(f"{path} cannot be read as a picture ({_reason(error)})") from None


def read_sound(path: Path, channels: Channels = "mean") -> Samples:
    """Return the sound of a file, its first minute at most, mono at 16 kHz.

    Raises
    ------
    UnreadableError
        When it is missing, cannot be decoded, or has no sound.
    """
    with _opened(path) as container:
        return _first_minute(_sound_parts(container, path, channels), SAMPLE_RATE_HZ, path)


def read_recorded(path: Path, channels: Channels = "mean") -> tuple[Samples, int]:
    """Return the sound of a file, its first minute at most, mono, and its own rate in hertz.

    Raises
    ------
    UnreadableError
        When it is missing, cannot be decoded, or has no sound.
    """
    with _opened(path) as container:
        rate_hz, parts = _recorded_parts(container, path, channels)
        return _first_minute(parts, rate_hz, path), rate_hz


def _first_minute(parts: Iterator[Samples], rate_hz: int, path: Path) -> Samples:
    minute_S = next(_pieces(parts, LONGEST_S * rate_hz), None)
    if minute_S is None:
        raise UnreadableError(f"{path} has no sound")
    return minute_S


def cut_video(
    path: Path, piece_s: float, frames_each: int, channels: Channels = "mean"
) -> Iterator[tuple[list[bytes], Samples]]:
    """Yield a video in pieces, each its pictures, evenly spaced, and its sound.

    The last piece is as long as the sound; one without a picture or any sound is not given.

    Parameters
    ----------
    path : a video with sound.
    piece_s : length of a piece, in seconds.
    frames_each : pictures of a whole piece.
    channels : what is taken of the sound's channels.

    Raises
    ------
    UnreadableError
        When it is missing, cannot be decoded, or has no sound or no picture.
    """
    with _opened(path) as sound_of, _opened(path) as pictures_of:
        step_s = piece_s / frames_each
        parts = _sound_parts(sound_of, path, channels)
        pieces = _pieces(parts, round(piece_s * SAMPLE_RATE_HZ))
        pictures = _pictures(pictures_of, path)
        for index, wave_S in enumerate(pieces):
            count = max(1, min(frames_each, round(len(wave_S) / SAMPLE_RATE_HZ / step_s)))
            times = [index * piece_s + (place + 0.5) * step_s for place in range(count)]
            frames = [file for time_s in times if (file := _picture_at(pictures, time_s))]
            if frames:
                yield frames, wave_S


def _opened(path: Path) -> Any:
    try:
        require_file(path)
        return av.open(ffmpeg_name(path))
    except FileNotFoundError:
        raise UnreadableError(f"{path} is missing") from None
    except _FAULTS as error:
        raise UnreadableError(f"{path} cannot be opened ({_reason(error)})") from None


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


def _pictures(container: Any, path: Path) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yield each picture with its time, in seconds after the start of the file."""
    if not container.streams.video:
        raise UnreadableError(f"{path} has no picture")
    start_s = _start_s(container)
    container.streams.video[0].codec_context.thread_count = 1  # every core has its own file
    with _decoding(path, "pictures"):
        for frame in container.decode(video=0):
            if frame.time is not None:
                yield frame.time - start_s, frame


def _picture_at(pictures: Iterator[tuple[float, av.VideoFrame]], time_s: float) -> bytes | None:
    """Return the first picture, as a JPEG file, that is not earlier; None after the last."""
    for shown_s, frame in pictures:
        if shown_s >= time_s:
            quarter_turns = round(frame.rotation / 90) % 4
            return jpeg(Image.fromarray(np.rot90(frame.to_ndarray(format="rgb24"), quarter_turns)))
    return None


def _sound_parts(container: Any, path: Path, channels: Channels) -> Iterator[Samples]:
    """Yield the sound from the file's start on, at 16 kHz."""
    rate_hz, parts = _recorded_parts(container, path, channels)
    with _decoding(path, "sound"):
        to_16_khz = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")
        for block_S in parts:
            yield to_16_khz.resample_chunk(block_S)
        yield to_16_khz.resample_chunk(np.zeros(0, np.float32), last=True)


def _recorded_parts(
    container: Any, path: Path, channels: Channels
) -> tuple[int, Iterator[Samples]]:
    if not container.streams.audio:
        raise UnreadableError(f"{path} has no sound")
    rate_hz = int(container.streams.audio[0].rate)
    return rate_hz, _without_holes(container, path, rate_hz, channels)


def _without_holes(
    container: Any, path: Path, rate_hz: int, channels: Channels
) -> Iterator[Samples]:
    """Yield the sound as recorded from the file's start on; holes in its time are silent."""
    taken, start_s = 0, _start_s(container)
    with _decoding(path, "sound"):
        to_float = av.AudioResampler(format="fltp", rate=rate_hz)
        for packed in container.decode(audio=0):
            for frame in to_float.resample(packed):
                block_CS = frame.to_ndarray()
                block_S = block_CS[0] if channels == "first" else block_CS.mean(0, np.float32)
                hole = (
                    0 if packed.time is None else round((packed.time - start_s) * rate_hz) - taken
                )
                if hole > rate_hz * LONGEST_S:
                    raise UnreadableError(f"the sound of {path} has a hole of over a minute")
                if hole > rate_hz * HOLE_S:
                    block_S = np.concatenate([np.zeros(hole, np.float32), block_S])
                taken += len(block_S)
                yield block_S


def _start_s(container: Any) -> float:
    return (container.start_time or 0) / av.time_base


@contextmanager
def _decoding(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except _FAULTS as error:
        raise UnreadableError(
            f"the {what} of {path} cannot be decoded ({_reason(error)})"
        ) from None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
