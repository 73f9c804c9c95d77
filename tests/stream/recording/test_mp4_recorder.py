import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from denseav.stream.recording.film_encoder import SOUND_RATE_HZ
from denseav.stream.recording.mp4_recorder import Recorder
from denseav.stream.types import AudioBlock

START_S = 5000.125


def canvas(value: int = 90, height: int = 96, width: int = 128) -> NDArray[np.uint8]:
    return np.full((height, width, 3), value, np.uint8)


def test_every_picture_is_in_the_file_a_fragment_later(tmp_path: Path) -> None:
    """Also of few in a second: a kill or a full disk takes a second, and not what encoders hold."""
    recorder = Recorder(tmp_path / "r.mp4", 128, 96)
    for second in range(5):
        recorder.frame(canvas(50 * second), START_S + second)
    recorder.audio(block(0, START_S, 240_000))
    recorder.frame(canvas(), START_S + 5)
    assert len(pictures(tmp_path / "r.part.mp4")) >= 4
    recorder.close()
    assert len(pictures(tmp_path / "r.mp4")) == 6


def block(
    first_sample: int,
    capture_s: float,
    samples: int = 480,
    rate_hz: int = 48_000,
    channels: int = 1,
    level: float = 0.0,
) -> AudioBlock:
    samples_SC = np.full((samples, channels), level, np.float32)
    return AudioBlock(samples_SC, rate_hz, first_sample, capture_s)


def beep(block: AudioBlock, at_s: float, lasts_s: float = 0.05) -> AudioBlock:
    """Put a 1 kHz tone from `at_s` into a block, where it falls into it."""
    time_S = block.capture_s + np.arange(len(block.samples_SC)) / block.rate_hz
    tone_S = 0.5 * np.cos(2 * np.pi * 1000 * (time_S - at_s))
    on_S = (time_S >= at_s - 1e-9) & (time_S < at_s + lasts_s)
    block.samples_SC[on_S] = tone_S[on_S, None]
    return block


def pictures(path: Path) -> list[tuple[float, NDArray[np.uint8]]]:
    with av.open(str(path)) as container:
        return [
            (frame.time, frame.to_ndarray(format="bgr24")) for frame in container.decode(video=0)
        ]


def sound(path: Path) -> NDArray[np.float32]:
    """The sound track [S, 2], sample n at time n / 48000 of the file."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    assert frames[0].sample_rate == SOUND_RATE_HZ
    lead = round(frames[0].time * SOUND_RATE_HZ)
    wave_SC = np.concatenate([frame.to_ndarray().T for frame in frames])
    return np.pad(wave_SC, ((max(0, lead), 0), (0, 0)))[max(0, -lead) :]


def onsets_s(wave_SC: NDArray[np.float32]) -> list[float]:
    """Where silence of 30 ms or more ends."""
    loud_S = np.nonzero(np.abs(wave_SC[:, 0]) > 0.2)[0]
    starts = [loud_S[0], *loud_S[1:][np.diff(loud_S) > 1440]]
    return [float(start) / SOUND_RATE_HZ for start in starts]


def test_pictures_keep_their_capture_times_and_order(tmp_path: Path):
    rng = np.random.default_rng(7)
    times_s = START_S + np.cumsum(rng.uniform(0.011, 0.4, 40))
    recorder = Recorder(tmp_path / "run.mp4", 128, 96, sound=False)
    for i, time_s in enumerate(times_s):
        recorder.frame(canvas(20 + 5 * i), time_s)
    assert recorder.close() == tmp_path / "run.mp4"
    seen = pictures(tmp_path / "run.mp4")
    assert [time_s for time_s, _ in seen] == pytest.approx(times_s - times_s[0], abs=1e-5)
    greys = [image_HW3.mean() for _, image_HW3 in seen]
    assert greys == pytest.approx([20 + 5 * i for i in range(40)], abs=3)
    assert [path.name for path in tmp_path.iterdir()] == ["run.mp4"]


def test_colours_come_back_as_they_were(tmp_path: Path):
    colours = np.array([[0, 159, 230], [233, 180, 86], [20, 20, 20], [245, 245, 245]], np.uint8)
    stripes = np.repeat(np.tile(colours, (96, 1, 1)), 32, axis=1)
    recorder = Recorder(tmp_path / "run.mp4", 128, 96)
    recorder.frame(stripes, START_S)
    recorder.close()
    ((_, image_HW3),) = pictures(tmp_path / "run.mp4")
    with av.open(str(tmp_path / "run.mp4")) as container:
        told = container.streams.video[0].codec_context
        assert (told.colorspace, told.color_range) == (6, 1)  # SMPTE 170M, limited
    np.testing.assert_allclose(image_HW3[48, 16::32], colours, atol=8)


def test_two_pictures_of_the_same_time_are_both_there_in_order(tmp_path: Path):
    recorder = Recorder(tmp_path / "run.mp4", 128, 96, sound=False)
    for time_s in (START_S, START_S, START_S - 0.01, START_S + 0.1):
        recorder.frame(canvas(), time_s)
    recorder.close()
    times_s = [time_s for time_s, _ in pictures(tmp_path / "run.mp4")]
    assert len(times_s) == 4
    assert all(np.diff(times_s) > 0)
    assert times_s[-1] == pytest.approx(0.1, abs=1e-4)


def test_a_picture_of_another_size_is_fitted(tmp_path: Path):
    recorder = Recorder(tmp_path / "run.mp4", 128, 96, sound=False)
    recorder.frame(canvas(), START_S)
    recorder.frame(canvas(height=240, width=320), START_S + 0.1)
    recorder.close()
    assert [image.shape for _, image in pictures(tmp_path / "run.mp4")] == [(96, 128, 3)] * 2


@pytest.mark.parametrize(
    ("rate_hz", "channels"), [(48_000, 1), (48_000, 2), (44_100, 2), (16_000, 1), (11_025, 4)]
)
def test_flash_and_beep_stay_together(tmp_path: Path, rate_hz: int, channels: int):
    """A second of pictures before and after each event; sound starts before the first picture."""
    events_s = [START_S + 1.0, START_S + 2.5]
    recorder = Recorder(tmp_path / "run.mp4", 128, 96)
    step = rate_hz // 50
    sound_s = START_S - 0.5
    for k in range(40):
        frame_s = START_S + k * 0.1
        while sound_s < frame_s + 0.05:  # sound is heard before its picture has been drawn
            first = round((sound_s - START_S + 0.5) * rate_hz)
            quiet = block(first, sound_s, step, rate_hz, channels)
            recorder.audio(beep(beep(quiet, events_s[0]), events_s[1]))
            sound_s = START_S - 0.5 + (first + step) / rate_hz
        flash = any(abs(frame_s - event_s) < 0.01 for event_s in events_s)
        recorder.frame(canvas(230 if flash else 40), frame_s)
    recorder.close()
    bright_s = [t for t, image_HW3 in pictures(tmp_path / "run.mp4") if image_HW3.mean() > 150]
    assert bright_s == pytest.approx([1.0, 2.5], abs=1e-4)
    assert onsets_s(sound(tmp_path / "run.mp4")) == pytest.approx(bright_s, abs=0.0015)


def test_two_channels_stay_apart(tmp_path: Path):
    recorder = Recorder(tmp_path / "run.mp4", 128, 96)
    recorder.frame(canvas(), START_S)
    tone_S = 0.5 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)
    samples_SC = np.stack([tone_S, 0 * tone_S], axis=1).astype(np.float32)
    recorder.audio(AudioBlock(samples_SC, 48_000, 0, START_S))
    recorder.close()
    loud, quiet = np.square(sound(tmp_path / "run.mp4")).mean(axis=0)
    assert loud > 0.1
    assert quiet < 1e-4


def test_a_gap_in_the_sound_becomes_silence_of_the_same_length(tmp_path: Path):
    recorder = Recorder(tmp_path / "run.mp4", 128, 96)
    for i in range(30):
        recorder.frame(canvas(), START_S + i / 10)
    first, second = block(0, START_S + 0.2, 9600), block(33_600, START_S + 0.9, 9600)
    recorder.audio(beep(first, START_S + 0.25))
    recorder.audio(beep(second, START_S + 1.0))
    recorder.close()
    wave_SC = sound(tmp_path / "run.mp4")
    assert onsets_s(wave_SC) == pytest.approx([0.25, 1.0], abs=0.0015)
    assert np.abs(wave_SC[20_000:40_000]).max() < 0.01


@pytest.mark.parametrize("then", ["a gap", "the end"])
def test_the_last_of_the_sound_is_there_whatever_follows(tmp_path: Path, then: str):
    """A resampler looks ahead: what it still holds belongs to the recording too."""
    recorder = Recorder(tmp_path / "run.mp4", 128, 96)
    recorder.frame(canvas(), START_S)
    recorder.audio(beep(block(0, START_S, 16_000, rate_hz=16_000), START_S + 0.5, lasts_s=0.5))
    if then == "a gap":
        recorder.audio(block(32_000, START_S + 2, 16_000, rate_hz=16_000))
    recorder.close()
    loud_S = np.nonzero(np.abs(sound(tmp_path / "run.mp4")[:, 0]) > 0.25)[0]
    assert loud_S[-1] / SOUND_RATE_HZ == pytest.approx(1.0, abs=0.0015)


def test_jitter_in_the_times_of_sound_that_goes_on_is_not_heard(tmp_path: Path):
    rng = np.random.default_rng(3)
    recorder = Recorder(tmp_path / "run.mp4", 128, 96)
    for i in range(20):
        recorder.frame(canvas(), START_S + i / 10)
    phase_S = np.arange(96_000) / 48_000
    tone_S1 = (0.5 * np.sin(2 * np.pi * 300 * phase_S)).astype(np.float32)[:, None]
    for first in range(0, 96_000, 480):
        late_s = rng.uniform(-0.008, 0.008) if first else 0.0
        part_S1 = tone_S1[first : first + 480]
        recorder.audio(AudioBlock(part_S1, 48_000, first, START_S + first / 48_000 + late_s))
    recorder.close()
    error_S = sound(tmp_path / "run.mp4")[4800:90_000, 0] - tone_S1[4800:90_000, 0]
    assert np.sqrt(np.mean(error_S**2)) < 0.01


def test_sound_that_drifts_away_from_its_times_is_put_right(tmp_path: Path):
    """A microphone that gives 1 % too few samples stays with the pictures all the same."""
    recorder = Recorder(tmp_path / "run.mp4", 128, 96)
    for i in range(100):
        recorder.frame(canvas(), START_S + i / 10)
    for i in range(1000):
        time_s = START_S + i * 0.0101
        level = 0.5 if i >= 900 else 0.0
        recorder.audio(block(480 * i, time_s, level=level))
    recorder.close()
    assert onsets_s(sound(tmp_path / "run.mp4"))[0] == pytest.approx(9.09, abs=0.025)


def test_sound_that_ends_early_is_silence_to_the_last_picture(tmp_path: Path):
    recorder = Recorder(tmp_path / "run.mp4", 128, 96)
    recorder.audio(beep(block(0, START_S, 4800), START_S + 0.02))
    for i in range(120):
        recorder.frame(canvas(), START_S + i / 10)
    recorder.audio(beep(block(96_000, START_S + 11, 4800), START_S + 11.02))
    recorder.close()
    wave_SC = sound(tmp_path / "run.mp4")
    assert len(wave_SC) / SOUND_RATE_HZ == pytest.approx(11.9, abs=0.05)
    assert onsets_s(wave_SC) == pytest.approx([0.02, 11.02], abs=0.0015)


def test_without_a_picture_there_is_no_file(tmp_path: Path):
    recorder = Recorder(tmp_path / "run.mp4", 128, 96)
    recorder.audio(block(0, START_S))
    assert recorder.close() is None
    assert recorder.close() is None
    assert list(tmp_path.iterdir()) == []


def test_a_long_recording_does_not_grow_in_memory(tmp_path: Path):
    """Ten minutes without sound: the muxer does not wait for it, and it does not come at once."""
    recorder = Recorder(tmp_path / "run.mp4", 128, 96)
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (96, 128, 3), np.uint8) for _ in range(8)]
    tracemalloc.start()
    for i in range(1200):
        recorder.frame(noise[i % 8], START_S + i / 2)
    written = sum(path.stat().st_size for path in tmp_path.iterdir())
    recorder.audio(beep(block(0, START_S + 599, 4800), START_S + 599.02))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    recorder.close()
    assert peak < 12e6  # ten minutes of silence in one piece are 230 MB
    assert written > 0.9 * (tmp_path / "run.mp4").stat().st_size > 5e6  # of a muxer that waits: 0
