"""Recordings as training takes them: of any rate and length, again after a restart."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from denseav.train.data.recordings import SoundLoader, SoundSettings, draw_clip, find_recordings
from denseav.train.errors import DataError


def write(path: Path, seconds: float, hertz: float, rate_hz: int, channels: int = 1) -> None:
    path.parent.mkdir(exist_ok=True)
    tone_N = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate_hz)) / rate_hz)
    soundfile.write(path, np.stack([tone_N] * channels, axis=1), rate_hz, subtype="PCM_16")


def loudest_hz(wave_S: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(wave_S)).argmax() * 16_000 / len(wave_S))


@pytest.mark.parametrize(("rate_hz", "channels"), [(16_000, 1), (44_100, 2), (8_000, 1)])
def test_a_stretch_of_a_long_recording_keeps_its_pitch(
    tmp_path: Path, rate_hz: int, channels: int
) -> None:
    write(tmp_path / "within" / "long.wav", 3.0, 440.0, rate_hz, channels)
    clip_S = draw_clip(np.random.default_rng(0), find_recordings(tmp_path), 16_000)
    assert clip_S.dtype == np.float32
    assert clip_S.shape == (16_000,)
    assert loudest_hz(clip_S) == pytest.approx(440, abs=2)
    assert np.abs(clip_S).max() == pytest.approx(0.5, abs=0.02)


def test_short_recordings_follow_one_another(tmp_path: Path) -> None:
    write(tmp_path / "one.wav", 0.25, 1000.0, 16_000)
    write(tmp_path / "two.flac", 0.25, 2000.0, 16_000)
    clip_S = draw_clip(np.random.default_rng(1), find_recordings(tmp_path), 32_000)
    pitches = {round(loudest_hz(part_S)) for part_S in clip_S.reshape(8, 4_000)}
    assert pitches == {1000, 2000}


def test_a_restart_goes_on_with_the_very_next_batch(tmp_path: Path) -> None:
    write(tmp_path / "long.wav", 4.0, 300.0, 16_000)
    settings = SoundSettings(folder=str(tmp_path), batch_size=2, samples=5_840)
    first = SoundLoader(settings, rank=0, seed=3)
    batches = first.endless()
    next(batches)
    again = SoundLoader(settings, rank=0, seed=3)
    again.load_state_dict(first.state_dict())
    expected, found = next(batches), next(again.endless())
    assert torch.equal(expected.wave_BS, found.wave_BS)
    assert found.wave_BS.shape == (2, 5_840)
    assert found.image_B3HW.numel() == 0
    elsewhere = next(SoundLoader(settings, rank=1, seed=3).endless())
    assert not torch.equal(
        elsewhere.wave_BS, next(SoundLoader(settings, rank=0, seed=3).endless()).wave_BS
    )


def test_files_of_any_name_are_heard_and_what_cannot_be_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(DataError, match=r"holds no sound; .*--sound\.folder"):
        find_recordings(tmp_path)
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    with pytest.raises(DataError, match=r"holds no sound; broken\.wav .* cannot be read"):
        find_recordings(tmp_path)
    write(tmp_path / "one.wav", 0.1, 440.0, 16_000)
    for name, kind in {
        "two.AIFF": "AIFF",
        "three.w64": "W64",
        "four": "AU",
        "five.oga": "OGG",
    }.items():
        wave_N = 0.1 * np.ones(1_600)
        soundfile.write(tmp_path / name, wave_N, 16_000, format=kind)
    (tmp_path / "six\x1b.m4a").write_bytes(b"something else")
    (tmp_path / "labels.csv").write_text("left alone")
    names = [recording.path.name for recording in find_recordings(tmp_path)]
    assert names == ["five.oga", "four", "one.wav", "three.w64", "two.AIFF"]
    alone, line = caplog.messages
    assert alone.endswith("files left alone: 1 .csv")
    assert "left out are 2 files" in line
    assert "broken.wav" in line
    assert ".m4a" in line
    assert "\x1b" not in line
