"""An MP4 recording: canvases `[H, W, 3]` and `AudioBlock`s with their times in, a file out.

Pictures keep their capture times (the frame rate varies), sound is put where its times say, and
both count from the first picture. While it is written the file is `NAME.part.mp4`, in fragments of
a second, so that it plays up to the last of them whatever ends the program; complete, it is made
an ordinary MP4 and gets its name. Encoding runs on the caller's thread.

Axes: S samples, C channels.
"""

import errno
import io
import os
import struct
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import soxr
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from numpy.typing import NDArray

from denseav.stream.display.drawing import Canvas
from denseav.stream.errors import OutputError, in_words
from denseav.stream.types import AudioBlock

SOUND_RATE_HZ = 48_000
FRAGMENT_S = 1.0  # what a kill or a power cut costs, at most, beside what the encoders hold
_BOX = struct.Struct(">I4s")  # what every part of an MP4 begins with: its length and kind
_TICK = Fraction(1, 90_000)  # of a second: the times of pictures are rounded to it
_DRIFT_S = 0.02  # how far sound that goes on may be from its time before it is put right
_LATE_S = 5.0  # sound this much behind the pictures is taken to be missing
_EARLY_BLOCKS = 2_000  # kept until the first picture: 20 s of 10 ms blocks


class Recorder:
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
        if path.suffix.lower() != ".mp4":
            raise OutputError(
                f"cannot record to {path}: name it NAME.mp4, NAME.gif, NAME.webp or NAME.mcap"
            )
        self._path = path
        self._size = (width, height)
        self._start_s: float | None = None
        self._last_tick = -1
        self._early: deque[AudioBlock] = deque(maxlen=_EARLY_BLOCKS)
        self._track = _Track()
        self._file = _part_file(path)
        self._open = True
        try:
            self._container = _container(self._file)
            self._video = _video_stream(self._container, width, height)
            self._sound = _sound_stream(self._container) if sound else None
            self._container.start_encoding()  # what cannot be written says so now
        except (OSError, av.FFmpegError) as error:
            self._discard()
            raise _cannot_record(path, error) from None

    def frame(self, canvas: Canvas, capture_s: float) -> None:
        """Write a picture. One of another size is fitted into the recording's, between bars."""
        if self._start_s is None:
            self._start_s = capture_s
        time_s = capture_s - self._start_s
        self._last_tick = max(self._last_tick + 1, round(time_s / _TICK))
        if canvas.shape[1::-1] != self._size:
            canvas = _fitted(canvas, *self._size)
        planes = cv2.cvtColor(canvas, cv2.COLOR_BGR2YUV_I420).astype(np.uint8, copy=False)
        with self._or_keep():
            picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            picture.pts, picture.time_base = self._last_tick, _TICK
            self._container.mux(self._video.encode(picture))
        while self._early:
            self.audio(self._early.popleft())
        self._encode(self._track.fill(time_s - _LATE_S))

    def audio(self, block: AudioBlock) -> None:
        """Write some sound. What comes before the first picture waits for it, at most 20 s."""
        if self._start_s is None:
            self._early.append(block)
        elif self._sound is not None:
            self._encode(self._track.add(block, block.capture_s - self._start_s))

    def close(self) -> Path | None:
        """Complete the file and return its path; None when there was no picture to record."""
        if not self._open:
            return None
        if self._start_s is None:
            self._discard()
            return None
        self._encode(self._track.fill(float(self._last_tick * _TICK)))
        self._encode(self._track.finish())
        with self._or_keep():
            self._container.mux(self._video.encode())
            if self._sound is not None:
                self._container.mux(self._sound.encode())
            self._container.close()
            self._file.close()
            self._open = False
            _rename(self._file.path, self._path)
        return self._path

    def _encode(self, samples_SC: NDArray[np.float32]) -> None:
        if self._sound is None or not len(samples_SC):
            return
        planar_CS = np.ascontiguousarray(samples_SC.T)
        with self._or_keep():
            frame = av.AudioFrame.from_ndarray(planar_CS, format="fltp", layout="stereo")
            frame.sample_rate, frame.time_base = SOUND_RATE_HZ, Fraction(1, SOUND_RATE_HZ)
            frame.pts = self._track.end - len(samples_SC)
            self._container.mux(self._sound.encode(frame))

    @contextmanager
    def _or_keep(self) -> Iterator[None]:
        """Let go of a file that takes no more, without another byte, so that it stays whole."""
        try:
            yield
        except (OSError, av.FFmpegError, MemoryError) as error:
            if not self._keep_what_plays():
                self._discard()
                raise _cannot_record(self._path, error) from None
            raise OutputError(
                f"cannot write the recording {self._path} ({_reason(error)}); what was recorded "
                f"until then is kept in {self._file.path}"
            ) from None

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
        self._file = path.open("xb", buffering=0)  # "x" follows no link and overwrites nothing
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


def check_recording(path: Path) -> None:
    """Find out before a run whether a recording of any kind can be begun there.

    Raises
    ------
    OutputError
        When the file exists, or cannot be written.
    """
    if os.path.lexists(path):
        raise OutputError(f"{path} exists already; choose another name or delete it")
    try:
        path.open("xb").close()
        path.unlink()
    except OSError as error:
        raise _cannot_record(path, error) from None


def _part_file(path: Path) -> _PartFile:
    """Make the file that a recording is written to until it is complete."""
    part = path.with_name(f"{path.stem}.part.mp4")
    if os.path.lexists(path):
        raise OutputError(f"{path} exists already; choose another name or delete it")
    try:
        return _PartFile(part)
    except FileExistsError:
        raise OutputError(
            f"{part} exists already: another run records there, or one was cut off, and what it "
            "recorded plays; choose another name, or move that file away"
        ) from None
    except OSError as error:
        raise _cannot_record(path, error) from None


def _rename(part: Path, path: Path) -> None:
    """Give a file its name, and never take it from another that has it meanwhile."""
    try:
        path.hardlink_to(part)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        part.rename(path)
    else:
        part.unlink()


def _cut_torn(path: Path) -> int:
    """Cut off what follows a file's last complete fragment; return how many there are."""
    end, count = 0, 0
    with path.open("r+b") as file:
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


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or in_words(error)


def _cannot_record(path: Path, error: Exception) -> OutputError:
    place = "choose a folder that exists, can be written and has space left"
    remedy = "free some memory" if isinstance(error, MemoryError) else place
    return OutputError(f"cannot write the recording {path} ({_reason(error)}); {remedy}")


def _fitted(canvas: Canvas, width: int, height: int) -> Canvas:
    """Return the canvas as large as it fits into another size, in the middle, and black around."""
    scale = min(width / canvas.shape[1], height / canvas.shape[0])
    wide, high = round(scale * canvas.shape[1]), round(scale * canvas.shape[0])
    left, top = (width - wide) // 2, (height - high) // 2
    fitted = np.zeros((height, width, 3), np.uint8)
    fitted[top : top + high, left : left + wide] = cv2.resize(
        canvas, (wide, high), interpolation=cv2.INTER_AREA
    )
    return fitted


class _Track:
    """Blocks of sound by their times in, one stereo track without gaps out.

    A block that goes on where the last one ended is joined to it sample by sample, however its
    time jitters; one after a gap, or too far from its time, is put where its time says: silence
    fills the way there, and what is already past is cut off.

    `end` is how many samples at 48 kHz have left.
    """

    def __init__(self) -> None:
        self.end = 0
        self._resampler: soxr.ResampleStream | None = None
        self._rate_hz = 0
        self._next_sample = 0
        self._next_s = 0.0

    def add(self, block: AudioBlock, time_s: float) -> NDArray[np.float32]:
        """Return the samples `[S, 2]` that follow; `time_s` counts from the track's start."""
        goes_on = (
            self._resampler is not None
            and (block.rate_hz, block.first_sample) == (self._rate_hz, self._next_sample)
            and abs(time_s - self._next_s) <= _DRIFT_S
        )
        parts_SC, samples_SC = [], _stereo(block.samples_SC)
        if not goes_on:
            parts_SC.append(self.finish())
            parts_SC.append(self._silence_until(time_s))
            past_s = self.end / SOUND_RATE_HZ - time_s
            samples_SC = samples_SC[max(0, round(past_s * block.rate_hz)) :]
            self._rate_hz = block.rate_hz
            self._resampler = soxr.ResampleStream(block.rate_hz, SOUND_RATE_HZ, 2, dtype="float32")
            self._next_s = max(time_s, self.end / SOUND_RATE_HZ)
        self._next_sample = block.first_sample + len(block.samples_SC)
        self._next_s += len(samples_SC) / block.rate_hz
        parts_SC.append(self._resampled(samples_SC, last=False))
        return np.concatenate(parts_SC)

    def fill(self, time_s: float) -> NDArray[np.float32]:
        """Return what brings the track up to `time_s`: nothing where it is already."""
        if self.end >= round(time_s * SOUND_RATE_HZ):
            return np.zeros((0, 2), np.float32)
        return np.concatenate([self.finish(), self._silence_until(time_s)])

    def finish(self) -> NDArray[np.float32]:
        """Return what the resampler still holds; the next block begins anew."""
        held_SC = self._resampled(np.zeros((0, 2), np.float32), last=True)
        self._resampler = None
        return held_SC

    def _silence_until(self, time_s: float) -> NDArray[np.float32]:
        missing = max(0, round(time_s * SOUND_RATE_HZ) - self.end)
        self.end += missing
        return np.zeros((missing, 2), np.float32)

    def _resampled(self, samples_SC: NDArray[np.float32], last: bool) -> NDArray[np.float32]:
        if self._resampler is None:
            return samples_SC
        out_SC: NDArray[np.float32] = self._resampler.resample_chunk(samples_SC, last=last)
        self.end += len(out_SC)
        return out_SC


def _stereo(samples_SC: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return two channels: two stay, one is doubled, more are mixed into both."""
    if samples_SC.shape[1] == 2:
        return np.ascontiguousarray(samples_SC, np.float32)
    return np.repeat(samples_SC.mean(axis=1, keepdims=True, dtype=np.float32), 2, axis=1)


def _container(file: _PartFile) -> av.container.OutputContainer:
    options = {
        "movflags": "hybrid_fragmented+delay_moov",  # the sound's lead-in is known only then
        "frag_duration": str(round(1e6 * FRAGMENT_S)),
        "flush_packets": "1",
    }
    return av.open(file, "w", format="mp4", options=options)


def _video_stream(container: av.container.OutputContainer, width: int, height: int) -> VideoStream:
    options = {"preset": "veryfast", "crf": "21", "bf": "0", "g": "60"}
    options |= {"color_range": "tv", "colorspace": "smpte170m"}  # what OpenCV's conversion makes
    stream = container.add_stream("libx264", rate=30, options=options)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.time_base = _TICK
    stream.codec_context.thread_count = 1  # the other cores are the model's
    return stream


def _sound_stream(container: av.container.OutputContainer) -> AudioStream:
    options = {"aac_coder": "fast"}  # half the time, and at this bit rate no one hears it
    stream = container.add_stream("aac", rate=SOUND_RATE_HZ, layout="stereo", options=options)
    stream.bit_rate = 128_000
    return stream


def snapshot(canvas: Canvas, folder: Path) -> Path:
    """Write a canvas as PNG under an unused name in `folder`, and return the path.

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    _, png = cv2.imencode(".png", canvas)
    path = unused_path(folder, ".png")
    try:
        with path.open("xb") as file:
            file.write(png.tobytes())
    except OSError as error:
        raise OutputError(
            f"cannot write {path} ({error.strerror}); start denseav-live in another folder"
        ) from None
    return path


def unused_path(folder: Path, suffix: str) -> Path:
    """Return where there is no file yet: in `folder`, named by the time, numbered if need be."""
    stem = f"denseav-{datetime.now():%Y%m%d-%H%M%S}"
    path, count = folder / f"{stem}{suffix}", 1
    while path.exists():
        count += 1
        path = folder / f"{stem}-{count}{suffix}"
    return path
