"""Generates small files of all kinds, and compares what the reader gives with FFmpeg's own program.

    python -m benchmarks.accuracy.media_grid [--seconds N] [--files N] [--seed S] [--keep DIR]

Each file is drawn: container, codecs, sample rate and layout, how it is turned and how wide its
pixels are, where its clock starts and how much later its sound does, holes, left-out pictures, and
a fault: bytes replaced, the end cut off; a clock that begins anew, or one wrong time stamp, where
the reader has to give what `ffmpeg` gives without. `ffmpeg` decodes it to pictures
with their times and to sound; the reader has to give the same number of pictures, within a third
of a picture's length, of the same size and nearly the same pixels, and the same sound within 5 ms.
Where a file is damaged it has to give nine tenths of what `ffmpeg` gives.

What differs by choice: `ffmpeg` turns by any angle, the reader by quarter turns; `ffmpeg` leaves
sound untouched whose stamps disagree by up to 100 ms, the reader by up to 50 ms; of sound that
overlaps the reader gives the first; the stamp of the last packet of a stream, which nothing later
contradicts, is believed, and so is not made wrong here. Prints each file that differs, and figures
as JSON on the last line; exits 1 when any did. `--keep` copies them.
"""

import argparse
import json
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from denseav.stream.media.errors import MediaError
from denseav.stream.media.reader import MediaReader

RATE_HZ = 16_000
SECONDS = 1.6
WIDTH, HEIGHT = 96, 64
PIXELS_MAX = 8.0
"""The mean difference of pictures from `ffmpeg`'s, of 255, that is due to rounding and scaling."""
LATE_S = 0.005
BEGUN_S = 0.05
"""What a decoder leaves out at the beginning of sound is counted by one of FFmpeg's versions."""
NOISE_SHARE = 0.1
JOINT_S = 0.3
"""How much longer or shorter two films may be that are joined, than both alone."""

_X264 = ("libx264", "-preset", "ultrafast", "-g", "12")
_PICTURES: dict[str, tuple[str, ...]] = {
    "h264": _X264,
    "h264 with B": ("libx264", "-preset", "veryfast", "-bf", "3", "-g", "12"),
    "h264 10 bit": (*_X264, "-pix_fmt", "yuv420p10le"),
    "h264 full range": (*_X264, "-pix_fmt", "yuvj420p"),
    "h264 bt709": (*_X264, "-colorspace", "bt709", "-color_trc", "bt709"),
    "hevc": ("libx265", "-preset", "ultrafast", "-x265-params", "log-level=none"),
    "vp8": ("libvpx", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "1M"),
    "vp9": ("libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "1M"),
    "ffv1": ("ffv1",),
    "mpeg2": ("mpeg2video", "-q:v", "4"),
    "mpeg4": ("mpeg4", "-q:v", "4"),
    "mjpeg": ("mjpeg", "-q:v", "4", "-pix_fmt", "yuvj422p"),
    "huffyuv": ("huffyuv", "-pix_fmt", "yuv422p"),
    "prores": ("prores", "-pix_fmt", "yuv422p10le"),
    "flv1": ("flv", "-q:v", "4"),
    "theora": ("libtheora", "-q:v", "7"),
    "wmv2": ("wmv2", "-q:v", "4"),
}
_ANY, _TO_STEREO = ("mono", "stereo", "5.1"), ("mono", "stereo")
_USUAL = (22_050, 44_100, 48_000)
_SOUNDS: dict[str, tuple[str, Sequence[int], Sequence[str]]] = {
    "aac": ("aac", _USUAL, _ANY),
    "mp3": ("libmp3lame", _USUAL, _TO_STEREO),
    "mp2": ("mp2", _USUAL, _TO_STEREO),
    "ac3": ("ac3", (44_100, 48_000), _ANY),
    "opus": ("libopus", (48_000,), _TO_STEREO),
    "vorbis": ("libvorbis", (44_100, 48_000), _TO_STEREO),
    "flac": ("flac", (8_000, 22_050, 96_000), _ANY),
    "pcm": ("pcm_s16le", (8_000, 44_100, 48_000), _ANY),
    "pcm 24 bit": ("pcm_s24le", (44_100, 96_000), _ANY),
    "pcm float": ("pcm_f32le", (16_000, 48_000), _ANY),
    "alac": ("alac", (44_100,), _TO_STEREO),
    "wma": ("wmav2", (44_100, 48_000), _TO_STEREO),
}
_H264 = ("h264", "h264 with B", "h264 full range", "h264 bt709")
CONTAINERS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "mp4": ((*_H264, "h264 10 bit", "hevc", "mpeg4"), ("aac", "mp3", "ac3", "alac")),
    "mov": ((*_H264, "mjpeg", "prores"), ("aac", "pcm", "pcm 24 bit", "alac")),
    "mkv": (
        (*_H264, "h264 10 bit", "hevc", "vp8", "ffv1", "mpeg2", "mjpeg"),
        ("aac", "opus", "vorbis", "flac", "pcm float", "ac3", "mp2"),
    ),
    "webm": (("vp8", "vp9"), ("opus", "vorbis")),
    "avi": (("mpeg4", "mjpeg", "huffyuv"), ("mp3", "pcm", "ac3")),
    "ts": (("h264", "h264 with B", "mpeg2"), ("aac", "mp2", "ac3")),
    "m2ts": (("h264", "mpeg2"), ("ac3",)),
    "mpg": (("mpeg2",), ("mp2",)),
    "flv": (("h264", "flv1"), ("aac", "mp3")),
    "3gp": (("h264",), ("aac",)),
    "ogv": (("theora",), ("vorbis",)),
    "wmv": (("wmv2",), ("wma",)),
    "nut": (("ffv1", "mpeg4"), ("pcm", "flac")),
}
TURNS = ("", "90", "180", "270", "hflip", "vflip", "rot90", "rot90_hflip")
_TURNING = ("mp4", "mov", "3gp")
_STARTS = {
    "mkv": (0.0, 1.5, 5_000.0),
    "nut": (0.0, 1.5),
    "ts": (0.0, 1.5, 5_000.0, 95_443.0),  # the last wraps round after less than a second
    "m2ts": (0.0, 95_443.0),
}
_HOLES = ("mkv", "nut", "mp4")
_ONE = 1 << 16
_MATRICES = {
    "90": (0, _ONE, -_ONE, 0),
    "180": (-_ONE, 0, 0, -_ONE),
    "270": (0, -_ONE, _ONE, 0),
    "hflip": (-_ONE, 0, 0, _ONE),
    "vflip": (_ONE, 0, 0, -_ONE),
    "rot90": (0, _ONE, _ONE, 0),
    "rot90_hflip": (0, -_ONE, -_ONE, 0),
}
FAULTS = ("", "", "", "bytes", "cut")
_RESTARTING = ("", "bytes", "cut", "restart", "restart", "stamp", "stamp", "stamp")

_CRASHES = (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError)
"""What the reader must never raise; FFmpeg's errors are among them."""

Wave = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Film:
    """One file as drawn: names of what is in `CONTAINERS`, and the rest of it."""

    container: str
    pictures: str
    sound: str
    rate_hz: int
    layout: str
    fps: str
    turn: str
    pixel_aspect: str
    start_s: float
    sound_later_s: float
    hole: str
    fault: str
    seed: int


def draw(seed: int) -> Film:
    """Return a film that a seed stands for."""
    rng = random.Random(seed)
    container = rng.choice(list(CONTAINERS))
    pictures, sounds = CONTAINERS[container]
    sound = rng.choice(sounds)
    _, rates, layouts = _SOUNDS[sound]
    rates = (44_100,) if container == "flv" else rates
    layouts = ("mono",) if container == "3gp" else layouts
    fault = rng.choice(_RESTARTING if container == "ts" else FAULTS)
    return Film(
        container=container,
        pictures=rng.choice(pictures),
        sound=sound,
        rate_hz=rng.choice(rates),
        layout=rng.choice(layouts),
        fps="25" if container in ("mpg", "avi") else rng.choice(("25", "30000/1001", "50", "10")),
        turn=rng.choice(TURNS) if container in _TURNING else "",
        pixel_aspect=rng.choice(("1", "64/45", "8/9", "4/3")),
        start_s=rng.choice(_STARTS.get(container, (0.0,))),
        sound_later_s=rng.choice((0.0, 0.0, 0.3, -0.3)) if container != "avi" else 0.0,
        hole=rng.choice(("", "", "sound", "pictures"))
        if container in ("mkv", "nut", "mp4")
        else "",
        fault=fault,
        seed=seed,
    )


def make(film: Film, folder: Path) -> Path:
    """Write a film by `ffmpeg`, and then do to its bytes what else was drawn."""
    path = folder / f"{film.seed}.{film.container}"
    _ffmpeg(*_arguments(film), str(path))
    if film.turn:
        _turn(path, film.turn)
    if film.fault in ("bytes", "cut"):
        _damage(path, film)
    return path


def set_wrong_stamp(path: Path, film: Film) -> None:
    """Make the stamps of one picture or one packet of sound of an MPEG-TS wrong by far."""
    rng = random.Random(film.seed)
    data = bytearray(path.read_bytes())
    begun = [at for at in range(0, len(data), 188) if data[at + 1] & 0x40]
    headers = [at + 4 + (1 + data[at + 4] if data[at + 3] & 0x20 else 0) for at in begun]
    stamped = [at for at in headers if data[at : at + 3] == b"\0\0\1" and data[at + 3] >= 0xC0]
    last = {data[at + 3]: at for at in stamped}.values()  # which nothing contradicts
    at = rng.choice([at for at in stamped[2:-2] if at not in last])
    wrong_s = rng.choice((-600, -5, 5, 40, 600))
    for field in (at + 9, at + 14)[: 2 if data[at + 7] & 0x40 else 1]:
        _add_to_stamp(data, field, wrong_s * 90_000)
    path.write_bytes(data)


def _add_to_stamp(data: bytearray, at: int, ticks: int) -> None:
    """Add to the 33 bits of a stamp, which lie in five bytes with marks between them."""
    a, b, c, d, e = data[at : at + 5]
    value = (a >> 1 & 7) << 30 | b << 22 | (c >> 1) << 15 | d << 7 | e >> 1
    value = (value + ticks) % 2**33
    data[at] = a & 0xF1 | (value >> 30 & 7) << 1
    data[at + 1] = value >> 22 & 255
    data[at + 2] = (value >> 15 & 127) << 1 | 1
    data[at + 3] = value >> 7 & 255
    data[at + 4] = (value & 127) << 1 | 1


def _arguments(film: Film) -> list[str]:
    """Return inputs and encoders: a moving picture, under a tone that rises."""
    codec, _, _ = _SOUNDS[film.sound]
    wave = "0.4*sin(2*PI*(300*t+400*t*t))"
    channels = {"mono": 1, "stereo": 2, "5.1": 6}[film.layout]
    waves = "|".join([wave] * channels)
    picture = f"testsrc2=size={WIDTH}x{HEIGHT}:rate={film.fps}"
    sound = f"aevalsrc={waves}:s={film.rate_hz}:c={film.layout}"
    shown = f"setsar={film.pixel_aspect}"
    heard = "anull"
    if film.hole == "pictures":
        shown += ",select='not(between(t,0.5,1.0))'"
    elif film.hole == "sound":
        heard = "aselect='not(between(t,0.5,0.8))'"
    start = ["-output_ts_offset", str(film.start_s)] if film.start_s else []
    m2ts = ["-f", "mpegts", "-mpegts_m2ts_mode", "1"] if film.container == "m2ts" else []
    return [
        *("-f", "lavfi", "-itsoffset", str(max(0.0, -film.sound_later_s)), "-i", picture),
        *("-f", "lavfi", "-itsoffset", str(max(0.0, film.sound_later_s)), "-i", sound),
        *("-t", str(SECONDS), "-vf", shown, "-af", heard, "-fps_mode", "passthrough"),
        *("-c:v", *_with_pixels(_PICTURES[film.pictures])),
        *("-c:a", codec, "-strict", "-2", *start, *m2ts),
    ]


def _with_pixels(encoder: Sequence[str]) -> list[str]:
    if "-pix_fmt" in encoder:
        return list(encoder)
    return [*encoder, "-pix_fmt", "yuv420p"]


def _turn(path: Path, turn: str) -> None:
    """Write a display matrix into the header of the first track, which is the picture's."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd")
    at += 4 + (4 + 20 if data[at + 4] == 0 else 4 + 32) + 16
    a, b, c, d = _MATRICES[turn]
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def _damage(path: Path, film: Film) -> None:
    rng = random.Random(film.seed)
    data = bytearray(path.read_bytes())
    if film.fault == "cut":
        del data[rng.randrange(len(data) * 6 // 10, len(data) * 9 // 10) :]
    else:
        at = rng.randrange(len(data) // 3, len(data) * 2 // 3)
        data[at : at + 200] = rng.randbytes(200)
    path.write_bytes(data)


@dataclass(frozen=True, eq=False)
class Given:
    """What somebody makes of a film: RGB pictures, their times, and sound at 16 kHz."""

    images_NHW3: NDArray[np.uint8]
    times_s: list[float]
    wave_S: Wave


def oracle(path: Path, film: Film) -> Given | None:
    """Return what `ffmpeg` makes of a film; None when it makes nothing."""
    raw, times, wave = (path.with_suffix(end) for end in (".rgb", ".crc", ".f32"))
    aspect = Fraction(film.pixel_aspect)
    size = "iw:ih" if aspect == 1 else "'round(iw*sar)':ih"
    if film.turn in ("90", "270", "rot90", "rot90_hflip"):
        size = "iw:ih" if aspect == 1 else "iw:'round(ih/sar)'"
    shown = f"scale={size}:flags=bicubic,format=rgb24"
    clean = "aresample=async=1:min_hard_comp=0.05:first_pts=0:rematrix_maxval=1"
    clean += ",aformat=channel_layouts=mono:sample_rates=16000"
    try:
        _ffmpeg(
            *("-i", str(path)),
            *("-map", "0:v:0", "-vf", shown, "-fps_mode", "passthrough", "-c:v", "ppm"),
            *(
                "-f",
                "image2pipe",
                str(raw),
                "-map",
                "0:v:0",
                "-fps_mode",
                "passthrough",
                "-enc_time_base",
                "1/90000",
            ),
            *("-c:v", "wrapped_avframe", "-f", "framecrc", str(times)),
            *("-map", "0:a:0", "-af", clean, "-f", "f32le", str(wave)),
            strict=not film.fault,
        )
    except subprocess.CalledProcessError:
        return None
    if not (raw.exists() and times.exists() and wave.exists()):
        return None
    lines = times.read_text().splitlines()
    base = next((Fraction(x.split(":")[1].strip()) for x in lines if x.startswith("#tb")), None)
    stamps = [int(line.split(",")[2]) for line in lines if not line.startswith("#")]
    if not stamps or base is None:
        return None
    return Given(
        _ppm(raw.read_bytes()),
        [float(stamp * base) for stamp in stamps],
        np.fromfile(wave, np.float32),
    )


def _ppm(data: bytes) -> NDArray[np.uint8]:
    """Return the pictures of PPM files one after the other, all of one size."""
    header = b"\n".join(data.split(b"\n", 3)[:3]) + b"\n"
    width, height = map(int, header.split()[1:3])
    rows_NB = np.frombuffer(data, np.uint8).reshape(-1, len(header) + 3 * width * height)
    return rows_NB[:, len(header) :].reshape(-1, height, width, 3)


def ours(path: Path) -> Given:
    """Return what the reader makes of a film."""
    reader = MediaReader(path, threads=1)
    pictures = [(picture.time_s, picture.shown("rgb24")) for picture in reader.pictures()]
    parts, at, rate_hz = [np.zeros(0, np.float32)], 0, RATE_HZ
    for sound in reader.sound():
        parts += [np.zeros(sound.first_sample - at, np.float32), sound.samples_S]
        at, rate_hz = sound.first_sample + len(sound.samples_S), sound.rate_hz
    wave_S = soxr.resample(np.concatenate(parts), rate_hz, RATE_HZ)
    images = np.stack([image for _, image in pictures])
    return Given(images, [time_s for time_s, _ in pictures], wave_S)


def differences(film: Film, theirs: Given, mine: Given) -> list[str]:
    """Return in words what is not the same."""
    found = []
    many, few = len(theirs.times_s), len(mine.times_s)
    if film.fault in ("bytes", "cut"):
        if few < 0.9 * many - 1:
            found.append(f"{few} pictures instead of {many}")
        # Where damage changes the layout, ffmpeg's filters begin anew and pad from zero again.
        longest = round((SECONDS + abs(film.sound_later_s)) * RATE_HZ)
        whole = min(len(theirs.wave_S), longest)
        if len(mine.wave_S) < 0.9 * whole - 2_000:
            found.append(f"{len(mine.wave_S)} samples instead of {whole}")
        return found
    if film.fault == "restart":
        return _joined(film, theirs, mine)
    if few != many:
        return [f"{few} pictures instead of {many}"]
    if mine.images_NHW3.shape != theirs.images_NHW3.shape:
        return [f"pictures {mine.images_NHW3.shape} instead of {theirs.images_NHW3.shape}"]
    pixels = np.abs(mine.images_NHW3.astype(int) - theirs.images_NHW3).mean(axis=(1, 2, 3)).max()
    if pixels > PIXELS_MAX:
        found.append(f"pixels differ by {pixels:.1f}")
    begun_s = mine.times_s[0] - theirs.times_s[0]
    late_s = np.abs(np.subtract(mine.times_s, theirs.times_s) - begun_s).max()
    if abs(begun_s) > BEGUN_S:
        found.append(f"it begins {begun_s:.3f} s later")
    if late_s > 0.34 / float(Fraction(film.fps)):
        found.append(f"pictures up to {late_s:.3f} s apart")
    return found + _heard(mine.wave_S, theirs.wave_S, begun_s)


def _joined(film: Film, theirs: Given, mine: Given) -> list[str]:
    """Compare a film twice in one file with what `ffmpeg` makes of one."""
    found = []
    many, few = 2 * len(theirs.times_s), len(mine.times_s)
    if abs(few - many) > 2:
        found.append(f"{few} pictures instead of {many}")
    pause_s = abs(film.sound_later_s) + JOINT_S
    if max(np.diff(mine.times_s)) > pause_s:
        found.append(f"a pause of {max(np.diff(mine.times_s)):.2f} s")
    longest_S = 2 * len(theirs.wave_S) + pause_s * RATE_HZ
    if not longest_S - 2 * pause_s * RATE_HZ < len(mine.wave_S) < longest_S:
        found.append(f"{len(mine.wave_S)} samples instead of about {2 * len(theirs.wave_S)}")
    return found


def _heard(mine_S: Wave, theirs_S: Wave, begun_s: float) -> list[str]:
    """Compare sound where both have some: how late it is, and what is left then."""
    size = min(len(mine_S), len(theirs_S))
    if abs(len(mine_S) - len(theirs_S)) > 0.12 * RATE_HZ:
        return [f"{len(mine_S)} samples instead of {len(theirs_S)}"]
    mine_S, theirs_S = mine_S[:size], theirs_S[:size]
    spectrum = np.fft.rfft(mine_S, 2 * size) * np.conj(np.fft.rfft(theirs_S, 2 * size))
    late = int(np.argmax(np.fft.irfft(spectrum)))
    late = late - 2 * size if late > size else late
    if abs(late - begun_s * RATE_HZ) > LATE_S * RATE_HZ:
        return [f"sound {1000 * late / RATE_HZ:.0f} ms late"]
    aligned_S = np.roll(mine_S, -late)
    power = float(np.mean(np.square(theirs_S))) or 1e-9
    rest = float(np.mean(np.square(aligned_S - theirs_S))) / power
    return [f"sound differs by {100 * rest:.0f} % of its power"] if rest > NOISE_SHARE else []


def compare(film: Film, folder: Path) -> list[str]:
    """Make a film and return in words where the reader and `ffmpeg` differ."""
    path = make(film, folder)
    theirs = oracle(path, film)
    if film.fault == "stamp":
        set_wrong_stamp(path, film)
    elif film.fault == "restart":
        path.write_bytes(2 * path.read_bytes())
    try:
        mine = ours(path)
    except MediaError as error:
        nothing = theirs is None or not len(theirs.wave_S)
        return [] if nothing else [f"refused: {error}"]
    except _CRASHES as error:
        return [f"the reader raised {error!r}"]
    return [] if theirs is None else differences(film, theirs, mine)


def _ffmpeg(*arguments: str, strict: bool = True) -> None:
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-threads", "1", *arguments]
    subprocess.run(command, check=strict, timeout=60, stderr=subprocess.DEVNULL)


def main() -> int:
    """Compare films for as long as was asked for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--files", type=int, default=sys.maxsize)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    begun_s, done, bad = time.monotonic(), 0, 0
    while done < options.files and time.monotonic() - begun_s < options.seconds:
        film = draw(options.seed + done)
        with tempfile.TemporaryDirectory() as folder:
            found = compare(film, Path(folder))
            if found:
                print(f"{'; '.join(found)}: {asdict(film)}", flush=True)
                if options.keep is not None:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    shutil.copy(Path(folder) / f"{film.seed}.{film.container}", options.keep)
        done, bad = done + 1, bad + bool(found)
    seconds = round(time.monotonic() - begun_s, 1)
    print(json.dumps({"files": done, "differ": bad, "seconds": seconds, "seed": options.seed}))
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
