"""A film's encoders: canvases `[H, W, 3]` and `AudioBlock`s with their times in, packets out.

They are H.264 and AAC, and go to a container of PyAV's. Pictures keep their capture times (the
frame rate varies), sound is put where its times say, and both count from the first picture. All
runs on the caller's thread; it knows nothing of what becomes of the packets.

Axes: S samples, C channels.
"""

from collections import deque
from fractions import Fraction

import av
import cv2
import numpy as np
import soxr
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.frame import PictureType
from av.video.stream import VideoStream
from numpy.typing import NDArray

from denseav.stream.display.drawing import Canvas
from denseav.stream.types import AudioBlock

SOUND_RATE_HZ = 48_000
_TICK = Fraction(1, 90_000)  # of a second: the times of pictures are rounded to it
_DRIFT_S = 0.02  # how far sound that goes on may be from its time before it is put right
_LATE_S = 5.0  # sound this much behind the pictures is taken to be missing
_EARLY_BLOCKS = 2_000  # kept until the first picture: 20 s of 10 ms blocks


class FilmEncoder:
    """One film. Call everything from one thread.

    Parameters
    ----------
    container : open for writing, without streams.
    width, height : of the pictures, both even.
    sound : whether it has a sound track (48 kHz stereo; what is missing is silence).
    key_s : a picture that depends on no other comes at least so often; infinity leaves it to
        the encoder.

    Raises
    ------
    OSError, av.FFmpegError, MemoryError
        Here and from every method, when the container takes no more.
    """

    def __init__(
        self,
        container: OutputContainer,
        width: int,
        height: int,
        *,
        sound: bool = True,
        key_s: float = float("inf"),
    ) -> None:
        self._container = container
        self._size = (width, height)
        self._start_s: float | None = None
        self._last_tick = -1
        self._key_ticks = key_s / _TICK
        self._key_due = 0.0
        self._early: deque[AudioBlock] = deque(maxlen=_EARLY_BLOCKS)
        self._track = _Track()
        self._held: av.Packet[VideoStream] | None = None
        self._video = _video_stream(container, width, height)
        self._sound = _sound_stream(container) if sound else None
        container.start_encoding()  # what cannot be written says so now

    @property
    def is_empty(self) -> bool:
        """Whether there has been no picture yet."""
        return self._start_s is None

    def frame(self, canvas: Canvas, capture_s: float) -> None:
        """Write a picture. One of another size is fitted into the film's, between bars."""
        if self._start_s is None:
            self._start_s = capture_s
        time_s = capture_s - self._start_s
        self._last_tick = max(self._last_tick + 1, round(time_s / _TICK))
        if canvas.shape[1::-1] != self._size:
            canvas = _fitted(canvas, *self._size)
        planes = cv2.cvtColor(canvas, cv2.COLOR_BGR2YUV_I420).astype(np.uint8, copy=False)
        picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        picture.pts, picture.time_base = self._last_tick, _TICK
        if self._last_tick >= self._key_due:
            picture.pict_type = PictureType.I
            self._key_due = self._last_tick + self._key_ticks
        self._mux_video(picture)
        while self._early:
            self.audio(self._early.popleft())
        self._encode(self._track.fill(time_s - _LATE_S))

    def audio(self, block: AudioBlock) -> None:
        """Write some sound. What comes before the first picture waits for it, at most 20 s."""
        if self._start_s is None:
            self._early.append(block)
        elif self._sound is not None:
            self._encode(self._track.add(block, block.capture_s - self._start_s))

    def finish(self) -> None:
        """Write what the encoders hold; sound then ends with the last picture, or after it."""
        self._encode(self._track.fill(float(self._last_tick * _TICK)))
        self._encode(self._track.finish())
        self._mux_video(None)
        if self._held is not None:
            self._container.mux(self._held)
        if self._sound is not None:
            self._container.mux(self._sound.encode())

    def _mux_video(self, picture: av.VideoFrame | None) -> None:
        """Write pictures that are followed by another: until then nobody knows how long they last.

        Their order is that of their times: the encoder makes none that depend on a later one.
        """
        for packet in self._video.encode(picture):
            last, self._held = self._held, packet
            if last is not None:
                last.duration = packet.duration = (packet.pts or 0) - (last.pts or 0)
                self._container.mux(last)

    def _encode(self, samples_SC: NDArray[np.float32]) -> None:
        if self._sound is None or not len(samples_SC):
            return
        planar_CS = np.ascontiguousarray(samples_SC.T)
        frame = av.AudioFrame.from_ndarray(planar_CS, format="fltp", layout="stereo")
        frame.sample_rate, frame.time_base = SOUND_RATE_HZ, Fraction(1, SOUND_RATE_HZ)
        frame.pts = self._track.end - len(samples_SC)
        self._container.mux(self._sound.encode(frame))


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


def _video_stream(container: OutputContainer, width: int, height: int) -> VideoStream:
    # Nothing is held back: a picture that the encoder still had would be lost to a kill.
    options = {"preset": "veryfast", "tune": "zerolatency", "crf": "23", "g": "60"}
    options |= {"color_range": "tv", "colorspace": "smpte170m"}  # what OpenCV's conversion makes
    stream = container.add_stream("libx264", rate=30, options=options)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.time_base = _TICK
    stream.codec_context.thread_count = 1  # the other cores are the model's
    return stream


def _sound_stream(container: OutputContainer) -> AudioStream:
    options = {"aac_coder": "fast"}  # half the time, and at this bit rate no one hears it
    stream = container.add_stream("aac", rate=SOUND_RATE_HZ, layout="stereo", options=options)
    stream.bit_rate = 128_000
    return stream
