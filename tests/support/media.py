"""Makes the files that tests read: speech by espeak-ng, pictures and sound by PyAV and ffmpeg."""

import subprocess
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Samples = NDArray[np.float32]

PIXELS = {"png": "rgb24", "mjpeg": "yuvj420p"}

LEVELS = [10 * index for index in range(25)]  # a second of frames, each its own grey


def ffmpeg(*arguments: str | Path) -> None:
    """Run ffmpeg, quietly; it overwrites what it writes."""
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True, timeout=60)


def speak(path: Path, text: str) -> Path:
    """Write a WAV file (22.05 kHz mono) in which a machine says the text."""
    subprocess.run(["espeak-ng", "-w", str(path), text], check=True, timeout=60)
    return path


def read_sound(path: Path, rate_hz: int) -> Samples:
    """Return the sound of any file as mono at the rate, resampled by FFmpeg."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=rate_hz)
    with av.open(str(path)) as container:
        frames = [*container.decode(audio=0), None]
        parts = [part.to_ndarray() for frame in frames for part in resampler.resample(frame)]
    wave_S: Samples = np.concatenate(parts, axis=1)[0]
    return wave_S


def tone(rate_hz: int, seconds: float, hertz: float = 440.0, channels: int = 1) -> Samples:
    """Return a sine `[S, C]` of amplitude 0.5."""
    time_S = np.arange(round(rate_hz * seconds)) / rate_hz
    wave_S = 0.5 * np.sin(2 * np.pi * hertz * time_S)
    return np.repeat(wave_S[:, None], channels, axis=1).astype(np.float32)


def grey(level: int, width: int = 64, height: int = 48) -> Image:
    """Return one flat picture `[height, width, 3]`."""
    return np.full((height, width, 3), level, np.uint8)


def cut(path: Path, to: Path, share: float) -> Path:
    """Write the first part of a file."""
    data = path.read_bytes()
    to.write_bytes(data[: round(len(data) * share)])
    return to


def write_clip(
    path: Path,
    images: Iterable[Image],
    samples_SC: Samples | None,
    *,
    fps: int = 25,
    rate_hz: int = 48_000,
    video: str = "png",
    audio: str = "pcm_f32le",
    gap: tuple[int, int] = (0, 0),
    rotation: int = 0,
    places: Sequence[int] | None = None,
) -> Path:
    """Write pictures and sound; without loss by default, and with all pictures before all sound.

    `gap` (at, missing): from sample `at` on, sound is stamped `missing` samples later. `places`:
    when each picture is shown, counted in pictures.
    """
    with av.open(str(path), "w") as container:
        pictures: Any = container.add_stream(video, rate=fps)
        pictures.codec_context.time_base = Fraction(1, fps)
        sound: Any = None
        if samples_SC is not None:
            layout = {1: "mono", 2: "stereo", 6: "5.1"}[samples_SC.shape[1]]
            sound = container.add_stream(audio, rate=rate_hz, layout=layout)
        for index, image_HW3 in enumerate(images):
            if index == 0:
                pictures.height, pictures.width = image_HW3.shape[:2]
                pictures.pix_fmt = PIXELS.get(video, "yuv420p")
                pictures.set_display_rotation(rotation)
            frame = av.VideoFrame.from_ndarray(image_HW3, format="bgr24")
            frame.pts = index if places is None else places[index]
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode(None))
        for part in _sound_frames(samples_SC, sound, rate_hz, gap) if sound else ():
            container.mux(sound.encode(part))
    return path


def _sound_frames(
    samples_SC: Samples | None, sound: Any, rate_hz: int, gap: tuple[int, int]
) -> Sequence[av.AudioFrame | None]:
    assert samples_SC is not None
    to_codec = av.AudioResampler(format=sound.codec_context.format.name)
    frames: list[av.AudioFrame | None] = []
    for at in range(0, len(samples_SC), 1024):
        packed = np.ascontiguousarray(samples_SC[at : at + 1024].reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=sound.layout.name)
        frame.sample_rate, frame.time_base = rate_hz, Fraction(1, rate_hz)
        frame.pts = at + (gap[1] if at >= gap[0] else 0)
        frames += to_codec.resample(frame)
    return [*frames, None]
