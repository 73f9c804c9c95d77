import itertools
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from denseav.stream.errors import SourceError
from denseav.stream.sources.media_file import Clip, ready_s
from denseav.stream.types import AudioBlock, Frame
from tests.support.media import LEVELS, cut, ffmpeg, grey, read_sound, speak, tone, write_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


def split(clip: Clip) -> tuple[list[Frame], list[AudioBlock]]:
    items = list(clip)
    frames = [item for item in items if isinstance(item, Frame)]
    return frames, [item for item in items if isinstance(item, AudioBlock)]


def test_frames_and_sound_come_exactly_as_written(exact: Path) -> None:
    clip = Clip(exact)
    frames, blocks = split(clip)
    assert (clip.name, clip.width, clip.height, clip.fps) == ("exact.mov", 64, 48, 25.0)
    assert clip.rate_hz == 48_000
    assert clip.duration_s == pytest.approx(1.0)
    assert [int(frame.image_HW3.mean()) for frame in frames] == LEVELS
    assert [frame.index for frame in frames] == list(range(25))
    assert [frame.capture_s for frame in frames] == pytest.approx(np.arange(25) / 25)
    sound_SC = np.concatenate([block.samples_SC for block in blocks])
    np.testing.assert_array_equal(sound_SC, tone(48_000, 0.9))
    ends = itertools.accumulate(len(block.samples_SC) for block in blocks)
    assert [block.first_sample for block in blocks] == [0, *list(ends)[:-1]]
    assert all(block.capture_s == pytest.approx(block.first_sample / 48_000) for block in blocks)


def test_items_come_in_the_order_in_which_they_are_ready(common: Path) -> None:
    ready = [ready_s(item) for item in Clip(common)]
    assert ready == sorted(ready)
    assert len(ready) > 200


def test_a_clip_can_be_read_again(exact: Path) -> None:
    clip = Clip(exact)
    assert [ready_s(item) for item in clip] == [ready_s(item) for item in clip]


def test_sound_stored_behind_all_pictures_needs_no_memory(exact: Path) -> None:
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0
    for item in Clip(exact):
        if isinstance(item, Frame):
            alive.append(weakref.ref(item.image_HW3))
        most = max(most, sum(ref() is not None for ref in alive))
    assert len(alive) == 25
    assert most <= 3


@pytest.mark.parametrize(
    ("name", "video", "audio", "rate_hz", "channels", "error"),
    [
        ("phone.mp4", "libx264", "aac", 44_100, 2, 0.05),
        ("old.avi", "mpeg4", "pcm_u8", 8_000, 2, 0.01),
        ("studio.mov", "mpeg4", "pcm_s24le", 96_000, 6, 1e-6),
        ("web.mkv", "mpeg4", "flac", 48_000, 1, 1e-4),
        ("double.mkv", "mpeg4", "pcm_f64le", 16_000, 1, 1e-6),
        ("broadcast.ts", "mpeg2video", "mp2", 48_000, 2, 0.05),
    ],
)
def test_sound_of_any_format_rate_and_layout(
    folder: Path, name: str, video: str, audio: str, rate_hz: int, channels: int, error: float
) -> None:
    said_SC = tone(rate_hz, 1.0, channels=channels)
    images = [grey(100)] * 25
    path = folder / name
    write_clip(path, images, said_SC, video=video, audio=audio, rate_hz=rate_hz)
    clip = Clip(path)
    frames, blocks = split(clip)
    heard_SC = np.concatenate([block.samples_SC for block in blocks])
    assert clip.rate_hz == rate_hz
    assert heard_SC.shape[1] == 1
    assert heard_SC.dtype == np.float32
    assert len(frames) == 25
    assert all(block.samples_SC.shape[0] <= rate_hz // 20 for block in blocks)
    assert abs(len(heard_SC) - rate_hz) <= 3_000
    middle = slice(rate_hz // 4, rate_hz // 2)
    best = max(
        float(np.abs(heard_SC[middle] - np.roll(said_SC[:, :1], shift, axis=0)[middle]).max()) * -1
        for shift in (range(-1200, 1201) if error > 0.01 else (0,))
    )
    assert -best <= error


def test_flash_and_beep_of_a_compressed_file_stay_together(folder: Path) -> None:
    sound_SC = np.zeros((96_000, 1), np.float32)
    sound_SC[48_000:] = tone(48_000, 1.0)
    images = [grey(0)] * 25 + [grey(255)] * 25
    path = write_clip(folder / "flash.mp4", images, sound_SC, video="libx264", audio="aac")
    frames, blocks = split(Clip(path))
    flash_s = next(frame.capture_s for frame in frames if frame.image_HW3.mean() > 128)
    loud = next(block for block in blocks if np.abs(block.samples_SC).max() > 0.1)
    beep_s = loud.capture_s + np.argmax(np.abs(loud.samples_SC[:, 0]) > 0.1) / loud.rate_hz
    assert flash_s == pytest.approx(1.0, abs=0.001)
    assert beep_s == pytest.approx(1.0, abs=0.003)


def test_times_count_from_the_start_of_a_file_that_begins_late(common: Path, folder: Path) -> None:
    path = folder / "late.ts"
    ffmpeg("-i", common, "-c", "copy", "-output_ts_offset", "5000", path)
    frames, blocks = split(Clip(path))
    assert 0 <= frames[0].capture_s < 0.1
    assert blocks[0].capture_s == pytest.approx(blocks[0].first_sample / blocks[0].rate_hz)
    assert 0 <= blocks[0].capture_s < 0.1


def test_a_gap_in_the_sound_moves_the_sample_count(folder: Path) -> None:
    at, missing = 20 * 1024, 12_000
    path = folder / "gap.mkv"
    write_clip(path, [grey(9)] * 25, tone(48_000, 0.75), video="mpeg4", gap=(at, missing))
    _, blocks = split(Clip(path))
    after = next(block for block in blocks if block.first_sample > at)
    assert after.first_sample == pytest.approx(at + missing, abs=48)
    assert after.capture_s == pytest.approx((at + missing) / 48_000, abs=0.001)
    assert sum(len(block.samples_SC) for block in blocks) == 36_000


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_frames_are_turned_upright_as_ffmpeg_does(folder: Path, rotation: int) -> None:
    image_HW3 = grey(0)
    image_HW3[:10, :10] = 255
    path = folder / f"turned{rotation}.mov"
    write_clip(path, [image_HW3] * 5, tone(48_000, 0.2), rotation=rotation)
    raw = folder / "upright.raw"
    ffmpeg("-i", path, "-frames:v", "1", "-pix_fmt", "bgr24", "-f", "rawvideo", raw)
    clip = Clip(path)
    upright_HW3 = np.fromfile(raw, np.uint8).reshape(clip.height, clip.width, 3)
    assert (clip.width, clip.height) == ((64, 48) if rotation == 180 else (48, 64))
    np.testing.assert_array_equal(split(clip)[0][0].image_HW3, upright_HW3)


@pytest.mark.parametrize(("width", "height"), [(16, 16), (3840, 2160), (7680, 4320)])
def test_pictures_of_every_usual_size_are_read(folder: Path, width: int, height: int) -> None:
    path = folder / f"{width}.avi"
    images = [grey(77, width, height)]
    clip = Clip(write_clip(path, images, tone(8_000, 0.1), video="mjpeg", rate_hz=8_000))
    assert (clip.width, clip.height) == (width, height)


def silent(folder: Path, common: Path) -> Path:
    return write_clip(folder / "silent.mov", [grey(1)], None)


def only_sound(folder: Path, common: Path) -> Path:
    return speak(folder / "speech.wav", "a word")


def song_with_cover(folder: Path, common: Path) -> Path:
    cover, song, path = folder / "cover.png", folder / "song.wav", folder / "song.mp3"
    ffmpeg("-i", common, "-frames:v", "1", cover)
    ffmpeg("-i", common, "-vn", song)
    ffmpeg(
        "-i", song, "-i", cover, "-map", "0", "-map", "1", "-disposition:v", "attached_pic", path
    )
    return path


def text(folder: Path, common: Path) -> Path:
    path = folder / "notes.mp4"
    path.write_text("no film at all\n" * 100)
    return path


def unknown_codec(folder: Path, common: Path) -> Path:
    path = write_clip(folder / "future.mkv", [grey(1)] * 5, tone(48_000, 0.2), video="mpeg4")
    path.write_bytes(path.read_bytes().replace(b"A_PCM/FLOAT/IEEE", b"A_NEW/FLOAT/IEEE"))
    return path


def without_index(folder: Path, common: Path) -> Path:
    path = folder / "tail.mp4"
    ffmpeg("-i", common, "-c", "copy", path)
    return cut(path, folder / "headless.mp4", 0.6)


def small(folder: Path, common: Path) -> Path:
    return write_clip(folder / "small.mov", [grey(1, 8, 40)], tone(48_000, 0.1))


def large(folder: Path, common: Path) -> Path:
    return write_clip(folder / "large.mov", [grey(1, 8208, 16)], tone(48_000, 0.1))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda folder, common: folder / "absent.mp4", "there is no such file"),
        (lambda folder, common: folder, "there is no such file"),
        (text, "not a media file"),
        (silent, "no sound"),
        (only_sound, "no picture"),
        (unknown_codec, "no sound"),
        (song_with_cover, "no picture"),
        (without_index, "cut short"),
        (lambda folder, common: cut(common, folder / "cut.mp4", 0.5), "cut short"),
        (small, "8x40"),
        (large, "8208x16"),
    ],
)
def test_an_unusable_file_is_refused_in_one_line_with_a_remedy(
    folder: Path, common: Path, make: Callable[[Path, Path], Path], reason: str
) -> None:
    path = make(folder, common)
    with pytest.raises(SourceError, match=reason) as failure:
        list(Clip(path))
    message = str(failure.value)
    assert "\n" not in message
    assert path.name in message
    assert "; " in message


def test_a_matroska_file_cut_short_is_noticed(folder: Path, common: Path) -> None:
    whole = folder / "whole.mkv"
    ffmpeg("-i", common, "-c", "copy", whole)
    assert len(split(Clip(whole))[0]) == 100
    with pytest.raises(SourceError, match="cut short"):
        list(Clip(cut(whole, folder / "part.mkv", 0.5)))


def test_a_file_trimmed_without_decoding_is_whole(folder: Path, common: Path) -> None:
    path = folder / "trimmed.mp4"
    ffmpeg("-ss", "2.3", "-i", common, "-c", "copy", path)
    assert list(Clip(path))


def test_sound_agrees_with_ffmpegs_own_decoding(common: Path) -> None:
    _, blocks = split(Clip(common))
    heard_S = np.concatenate([block.samples_SC for block in blocks])[:, 0]
    np.testing.assert_allclose(heard_S, read_sound(common, 44_100)[: len(heard_S)], atol=1e-6)
