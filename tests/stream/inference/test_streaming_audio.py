"""Audio encoded token after token against whole windows: the same tokens, whatever happens."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from denseav.export.runtime.bundle import SAMPLE_RATE_HZ, TOKEN_SPAN_SAMPLES
from denseav.export.runtime.session import AudioWay, Level
from denseav.stream.audio.rolling_window import MARGIN_SAMPLES
from denseav.stream.inference.audio_pass import token_end
from denseav.stream.inference.pipeline import Pipeline
from denseav.stream.inference.sync_policy import Sync
from denseav.stream.types import AudioBlock, Frame
from tests.support.fake_session import FakeSession, fake_manifest

PICTURE = np.zeros((16, 24, 3), np.uint8)
BLOCK = 800


def noise(samples: int) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal(samples).astype(np.float32)


def blocks(seconds: float = 6.0) -> list[AudioBlock]:
    wave_S = noise(round(seconds * SAMPLE_RATE_HZ))
    return [
        AudioBlock(wave_S[at : at + BLOCK, None], SAMPLE_RATE_HZ, at, at / SAMPLE_RATE_HZ)
        for at in range(0, len(wave_S), BLOCK)
    ]


def with_gap(gap_s: float) -> list[AudioBlock]:
    """Sound of which so much is missing after the second second."""
    gap, out = round(gap_s * SAMPLE_RATE_HZ), []
    for block in blocks():
        first = block.first_sample + (gap if block.first_sample >= 2 * SAMPLE_RATE_HZ else 0)
        out.append(AudioBlock(block.samples_SC, block.rate_hz, first, first / SAMPLE_RATE_HZ))
    return out


def with_another_rate() -> list[AudioBlock]:
    """A microphone of 16 kHz, and after two seconds one of 48 kHz."""
    before, after = blocks(2.0), []
    wave_S = noise(3 * 48_000)
    for at in range(0, len(wave_S), 2400):
        first = 2 * 48_000 + at
        after.append(AudioBlock(wave_S[at : at + 2400, None], 48_000, first, first / 48_000))
    return [*before, *after]


def both(
    sound: list[AudioBlock], sync: Sync, poll: Callable[[int], bool] = lambda _: True
) -> tuple[list[tuple[float, ...]], FakeSession]:
    """Run both ways over the same sound, and return their heat after each pass, and a session."""
    sessions = FakeSession(), FakeSession()
    windowed = Pipeline(sessions[0], fake_manifest(), sync=sync)
    streaming = Pipeline(sessions[1], fake_manifest(), sync=sync, audio="streaming")
    heats = []
    for index, block in enumerate(sound):
        for pipeline in (windowed, streaming):
            pipeline.push(block)
        if not poll(index):
            continue
        ran = [pipeline.encode_audio() for pipeline in (windowed, streaming)]
        assert ran[0] == ran[1]
        if ran[0]:
            frame = Frame(PICTURE, 0, block.end_s)
            one, other = (pipeline.heatmap(frame) for pipeline in (windowed, streaming))
            assert (one.audio_start_s, one.rms_dbfs) == (other.audio_start_s, other.rms_dbfs)
            assert one.valid_K == other.valid_K
            heats.append((one.heat_KHW[1, 0, 0], other.heat_KHW[1, 0, 0]))
    return heats, sessions[1]


@pytest.mark.parametrize("lookahead", [0, 1, 2])
@pytest.mark.parametrize(
    "sound",
    [blocks(), with_gap(0.5), with_gap(1.5), with_another_rate()],
    ids=["plain", "short gap", "longer gap", "another rate"],
)
def test_each_token_is_the_one_that_whole_windows_give(
    sound: list[AudioBlock], lookahead: int
) -> None:
    heats, session = both(sound, Sync(lookahead=lookahead))
    assert len(heats) >= 25
    for one, other in heats:
        assert other == pytest.approx(one, abs=1e-7)
    assert session.streams[0].resets == 0


def test_tokens_that_come_together_are_all_stepped_through() -> None:
    heats, session = both(blocks(), Sync(), poll=lambda index: index % 20 == 19)
    assert all(other == pytest.approx(one) for one, other in heats)
    assert len(session.streams[0].levels) >= 26


@pytest.mark.parametrize("gap_s", [3.0, 10.0, 600.0])
def test_after_a_pause_the_stream_begins_anew_with_the_newest_token(gap_s: float) -> None:
    heats, session = both(with_gap(gap_s), Sync())
    assert all(other == pytest.approx(one) for one, other in heats)
    (stream,) = session.streams
    assert stream.resets == 1
    assert len(stream.levels) < 40  # and no silence was stepped through


def test_after_a_pause_no_token_from_before_it_is_used() -> None:
    pipeline = Pipeline(FakeSession(), fake_manifest(), sync=Sync(lookahead=1), audio="streaming")
    seen = []
    for block in with_gap(10.0):
        pipeline.push(block)
        if pipeline.encode_audio():
            heatmap = pipeline.heatmap(Frame(PICTURE, 0, block.end_s))
            seen.append(heatmap.audio_end_s is not None)
    back = seen.index(False, 2)
    assert seen == [False, *[True] * (back - 1), False, *[True] * (len(seen) - back - 1)]


def test_each_token_has_the_level_of_the_window_that_ends_with_it() -> None:
    sound = blocks()
    heats, session = both(sound, Sync())
    assert len(heats) == len(session.streams[0].levels)
    wave_S = np.concatenate([block.samples_SC[:, 0] for block in sound])
    window = fake_manifest().audio.window_samples
    padded_S = np.concatenate((np.zeros(window, np.float32), wave_S))
    for token in (5, 17, 25):
        end = token_end(token)
        found = session.streams[0].levels[token]
        least = session_least(padded_S, end, window)
        expected = Level.of(padded_S[end : end + window], least)
        assert found == pytest.approx(expected, rel=1e-3)


def session_least(padded_S: np.ndarray, end: int, window: int) -> float:
    """The loudest of all windows so far, each faded by 2 dB a second, and 20 dB above the floor."""
    ends = range(TOKEN_SPAN_SAMPLES, end + 1, 2880)
    faded = [
        float(padded_S[at : at + window].std()) * 10 ** (-0.1 * (end - at) / SAMPLE_RATE_HZ)
        for at in ends
    ]
    return max(*faded, 0.01)


def test_a_slow_stream_reads_what_it_needs_before_the_window_rolls_on() -> None:
    """More than the ring's margin may come while tokens are stepped through."""
    session = FakeSession()
    pipeline = Pipeline(session, fake_manifest(), audio="streaming")
    sound = blocks(12.0)
    for block in sound[:20]:
        pipeline.push(block)
    pipeline.encode_audio()
    (stream,) = session.streams
    step, rest = stream.step, iter(sound[20:])

    def slow(samples_S: np.ndarray, level: Level) -> np.ndarray:
        for block in [next(rest, None) for _ in range(60)]:
            if block is not None:
                pipeline.push(block)
        return step(samples_S, level)

    stream.step = slow  # type: ignore[method-assign]
    for _ in range(5):
        pipeline.push(next(rest))
    while pipeline.encode_audio():
        assert pipeline.audio[0].newest is not None
    assert pipeline.audio[0].newest is not None
    assert token_end(pipeline.audio[0].newest.stop) > 12 * SAMPLE_RATE_HZ - MARGIN_SAMPLES


@pytest.mark.parametrize("audio", ["window", "streaming"])
def test_samples_that_are_no_numbers_are_silence_and_set_no_level(audio: AudioWay) -> None:
    def levels(bad: float) -> list[float]:
        session = FakeSession()
        pipeline = Pipeline(session, fake_manifest(), audio=audio)
        for index, block in enumerate(blocks()):
            samples_SC = np.full_like(block.samples_SC, bad) if index in (40, 41) else None
            block = (
                block if samples_SC is None else dataclasses.replace(block, samples_SC=samples_SC)
            )
            pipeline.push(block)
            pipeline.encode_audio()
        if audio == "window":
            return session.deviations
        return [level.deviation for level in session.streams[0].levels]

    assert levels(float("nan")) == levels(float("inf")) == levels(0.0)


def test_after_an_hour_of_silence_sound_is_as_loud_as_at_first() -> None:
    half_s, hour = SAMPLE_RATE_HZ // 2, 2 * 3600
    session = FakeSession()
    pipeline = Pipeline(session, fake_manifest(), audio="streaming")
    silence = np.zeros((half_s, 1), np.float32)
    sound = np.concatenate([block.samples_SC for block in blocks(3.0)])
    halves = [*np.split(sound, 6), *([silence] * hour), *np.split(sound, 6)]
    for index, samples_SC in enumerate(halves):
        first = index * half_s
        pipeline.push(AudioBlock(samples_SC, SAMPLE_RATE_HZ, first, first / SAMPLE_RATE_HZ))
        assert pipeline.encode_audio()
    (stream,) = session.streams
    assert stream.resets == 0
    assert pipeline.hops_skipped == 0
    assert len(stream.levels) == pytest.approx(len(halves) * half_s / 2880, abs=2)
    assert np.isfinite(stream.levels).all()
    silent = stream.levels[len(stream.levels) // 2]
    assert silent.deviation == pytest.approx(0.01, rel=1e-3)  # 20 dB above the floor, no lower
    assert stream.levels[-1].deviation == pytest.approx(stream.levels[10].deviation, rel=0.05)
