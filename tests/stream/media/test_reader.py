"""Whole files that are damaged, odd or sparse, read by the one reader."""

import gc
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from denseav.stream.errors import SourceError
from denseav.stream.media.errors import MediaError
from denseav.stream.media.reader import MediaReader
from denseav.stream.sources.media_file import HELD_S, Clip
from denseav.stream.types import AudioBlock, Frame
from tests.support.media import ffmpeg, grey, tone, write_clip

SOUND = ("-f", "lavfi", "-i", "sine=f=1000:r=48000:d=4")
PICTURES = ("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=4")
SMALL = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-pix_fmt", "yuv420p")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def plain(folder: Path) -> Path:
    """Four seconds of H.264 and AAC."""
    path = folder / "plain.mp4"
    ffmpeg(*PICTURES, *SOUND, *SMALL, "-c:a", "aac", path)
    return path


def wave(reader: MediaReader) -> np.ndarray:
    return np.concatenate([sound.samples_S for sound in reader.sound()])


def power(reader: MediaReader) -> float:
    return float(np.mean(np.square(wave(reader))))


@pytest.fixture(scope="module")
def tracks(folder: Path) -> Path:
    """Three sound tracks: silent, a German tone that is the default, an English half as loud."""
    path = folder / "tracks.mkv"
    silence = ("-f", "lavfi", "-i", "anullsrc=r=48000:cl=stereo")
    maps = ("-map", "0:v", "-map", "1:a", "-map", "2:a", "-map", "2:a", "-filter:a:2", "volume=0.5")
    said = ("-metadata:s:a:1", "language=ger", "-metadata:s:a:2", "language=eng")
    default = ("-disposition:a:0", "0", "-disposition:a:1", "default", "-disposition:a:2", "0")
    ffmpeg(*PICTURES, *silence, *SOUND, *maps, "-t", "2", *SMALL, *said, *default, path)
    return path


def test_the_default_track_is_heard_unless_another_is_asked_for(tracks: Path) -> None:
    default = power(MediaReader(tracks))
    assert default > 1e-3
    assert power(MediaReader(tracks, audio_track="1")) < 1e-9
    assert power(MediaReader(tracks, audio_track="ger")) == pytest.approx(default)
    for asked in ("3", "en", "ENG"):
        assert power(MediaReader(tracks, audio_track=asked)) == pytest.approx(default / 4, rel=0.1)


def test_a_track_that_is_not_there_is_refused_with_those_that_are(tracks: Path) -> None:
    with pytest.raises(MediaError, match=r"no audio track fra.*2 \(ger\), 3 \(eng\)"):
        list(MediaReader(tracks, audio_track="fra").sound())
    with pytest.raises(SourceError, match="no audio track 4"):
        Clip(tracks, audio_track="4")


def test_subtitles_that_outlast_a_film_do_not_make_it_cut_short(folder: Path, plain: Path) -> None:
    subtitles, path = folder / "s.srt", folder / "subtitled.mkv"
    subtitles.write_text("1\n00:00:12,000 --> 00:00:14,000\nthanks to the translators\n")
    ffmpeg("-i", plain, "-i", subtitles, "-c", "copy", path)
    assert MediaReader(path).facts().duration_s is None
    assert list(Clip(path))


def test_pictures_that_were_shown_are_freed_without_the_collector(plain: Path) -> None:
    gc.collect()
    gc.disable()
    try:
        for picture in MediaReader(plain).pictures():
            picture.shown("bgr24")
        alive = sum(type(each) is av.VideoFrame for each in gc.get_objects())
    finally:
        gc.enable()
    assert alive <= 2  # of a hundred: the last one


def damaged(path: Path, to: Path) -> Path:
    data = bytearray(path.read_bytes())
    at = len(data) // 2
    data[at : at + 500] = np.random.default_rng(1).bytes(500)
    to.write_bytes(data)
    return to


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
def test_a_damaged_spot_costs_itself(folder: Path, plain: Path, container: str) -> None:
    whole = folder / f"whole.{container}"
    ffmpeg("-i", plain, "-c", "copy", whole)
    reader = MediaReader(damaged(whole, folder / f"hurt.{container}"))
    times = [picture.time_s for picture in reader.pictures()]
    assert len(times) >= 90
    assert times[-1] > 3.9
    assert len(wave(reader)) > 3.5 * 48_000
    assert reader.mended


def test_sound_whose_channels_have_an_order_of_their_own_is_heard(folder: Path) -> None:
    path = folder / "seven.mov"
    same = "pan=7.1|" + "|".join(f"c{channel}=c0" for channel in range(8))
    ffmpeg(*PICTURES, *SOUND, "-t", "1", "-af", same, *SMALL, "-c:a", "pcm_s24le", path)
    reader = MediaReader(path)
    assert power(reader) == pytest.approx(1 / 128, rel=0.05)
    assert "order of its channels" in reader.mended[0]


def renamed_codec(path: Path, to: Path, codec: bytes, number: int) -> Path:
    """Rename the codec of one of the tracks that have it, to one that nobody knows."""
    data = bytearray(path.read_bytes())
    at = data.index(b"moov")
    for _ in range(number):
        at = data.index(codec, data.index(b"stsd", at)) + 4
    data[at - 4 : at] = b"zz99"
    described = data.index(b"esds", at)
    data[described : described + 4] = b"zzds"
    to.write_bytes(data)
    return to


def test_a_track_in_an_unknown_codec_costs_itself(folder: Path, plain: Path) -> None:
    two = folder / "two.mp4"
    ffmpeg("-i", plain, "-map", "0:v", "-map", "0:a", "-map", "0:a", "-c", "copy", two)
    for number in (1, 2):
        path = renamed_codec(two, folder / f"new{number}.mp4", b"mp4a", number)
        assert power(MediaReader(path)) > 1e-3
    only = renamed_codec(plain, folder / "only.mp4", b"mp4a", 1)
    with pytest.raises(MediaError, match="no sound in a codec that FFmpeg knows"):
        list(MediaReader(only).sound())
    assert list(MediaReader(only).pictures())


def slides(folder: Path) -> Path:
    """Dark, grey and light slides at 0, 3 and 4 s, under a tone of 6 s."""
    levels = [grey(level) for level in (10, 100, 200)]
    sound = tone(16_000, 6.0)
    return write_clip(folder / "slides.mov", levels, sound, rate_hz=16_000, places=(0, 75, 100))


def test_a_slide_stays_until_the_next_while_sound_goes_on(folder: Path) -> None:
    clip = Clip(slides(folder))
    items = list(clip)
    frames = [item for item in items if isinstance(item, Frame)]
    times = [frame.capture_s for frame in frames]
    assert max(np.diff(times)) <= HELD_S + 1e-9
    assert times[-1] >= 6.0 - HELD_S
    assert [frame.index for frame in frames] == list(range(len(frames)))
    for frame in frames:
        shown = 10 if frame.capture_s < 3 else 100 if frame.capture_s < 4 else 200
        assert frame.image_HW3.mean() == shown
    ready = [item.end_s if isinstance(item, AudioBlock) else item.capture_s for item in items]
    assert ready == sorted(ready)


def not_numbers(folder: Path) -> Path:
    samples_SC = tone(48_000, 1.0)
    samples_SC[30_000] = np.nan
    return write_clip(folder / "nan.mov", [grey(1)] * 25, samples_SC)


def against_each_other(folder: Path) -> Path:
    samples_SC = tone(48_000, 1.0) * np.array([1, -1], np.float32)
    return write_clip(folder / "anti.mov", [grey(1)] * 25, samples_SC)


@pytest.mark.parametrize(
    ("make", "words"),
    [(not_numbers, "no numbers"), (against_each_other, "cancel each other")],
)
def test_what_was_mended_is_known_afterwards(
    folder: Path, make: Callable[[Path], Path], words: str
) -> None:
    clip = Clip(make(folder))
    blocks = [item for item in clip if isinstance(item, AudioBlock)]
    assert max(np.abs(block.samples_SC).max() for block in blocks) == pytest.approx(0.5, abs=0.01)
    assert words in clip.mended


@pytest.mark.parametrize("edges", [(32, 0, 0, 0), (16, 8, 2, 6)])
def test_pictures_are_cropped_as_their_codec_says(
    folder: Path, plain: Path, edges: tuple[int, int, int, int]
) -> None:
    left, right, top, bottom = edges
    whole, path = folder / "whole.mp4", folder / f"cropped{left}.mp4"
    ffmpeg("-i", plain, "-an", "-t", 0.2, "-pix_fmt", "yuv420p", "-c:v", "libx264", whole)
    sides = f"crop_left={left}:crop_right={right}:crop_top={top}:crop_bottom={bottom}"
    ffmpeg("-i", whole, "-c", "copy", "-bsf:v", f"h264_metadata={sides}", path)
    full, part = (next(MediaReader(file).pictures()).shown("rgb24") for file in (whole, path))
    height, width = full.shape[:2]
    expected = full[top : height - bottom, left : width - right]
    assert part.shape == expected.shape
    np.testing.assert_allclose(part, expected, atol=8)


def test_a_track_that_begins_within_a_file_costs_itself(folder: Path, plain: Path) -> None:
    short, path = folder / "short.flv", folder / "titled.flv"
    ffmpeg("-i", plain, "-c", "copy", short)
    text = b"\2\0\x0aonTextData\x08\0\0\0\1\0\4text\2\0\2hi\0\0\x09"
    tag = b"\x12" + len(text).to_bytes(3, "big") + bytes(7) + text
    tag += (len(tag)).to_bytes(4, "big")
    data, at = short.read_bytes(), 13
    while at < 0.8 * len(data):
        at += 15 + int.from_bytes(data[at + 1 : at + 4], "big")
    path.write_bytes(data[:at] + tag + data[at:])
    whole, reader = MediaReader(short), MediaReader(path)
    assert len(list(reader.pictures())) == len(list(whole.pictures()))
    assert len(wave(reader)) == len(wave(whole))
    assert [line[:37] for line in reader.mended] == ["a track that begins within the file i"]
