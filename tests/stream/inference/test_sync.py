"""Which token a frame is compared with, how long it waits for it, and what gives way when slow."""

from itertools import pairwise

import numpy as np
import pytest

from denseav.export.runtime.bundle import SAMPLE_RATE_HZ, TOKEN_HOP_SAMPLES, TOKEN_SPAN_SAMPLES
from denseav.stream.errors import UsageError
from denseav.stream.inference import delay_line, sync_policy
from denseav.stream.inference.delay_line import DelayLine
from denseav.stream.inference.hop_controller import HOP_TOKENS_MAX, TOKEN_S, HopController
from denseav.stream.inference.pipeline import Pipeline
from denseav.stream.inference.sync_policy import Sync
from denseav.stream.types import AudioBlock, Frame
from tests.support.fake_session import TOKENS, FakeSession, fake_manifest
from tests.support.fakes import FakeClock

BLOCK_S = 0.02
START_S = 100.0


def picture(level: int = 0) -> np.ndarray:
    return np.full((48, 64, 3), level, np.uint8)


def ramp(seconds: float, start_s: float = START_S) -> list[AudioBlock]:
    """Sound whose samples are their own times, in hundredths."""
    wave_S = (np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ / 100).astype(np.float32)
    size = round(BLOCK_S * SAMPLE_RATE_HZ)
    return [
        AudioBlock(wave_S[at : at + size, None], SAMPLE_RATE_HZ, at, start_s + at / SAMPLE_RATE_HZ)
        for at in range(0, len(wave_S), size)
    ]


def heard(pipeline: Pipeline, seconds: float, start_s: float = START_S) -> Pipeline:
    for block in ramp(seconds, start_s):
        pipeline.push(block)
        pipeline.encode_audio()
    return pipeline


@pytest.mark.parametrize("lookahead", [0, 1, 2])
def test_the_newest_token_with_its_look_ahead_is_used(lookahead: int) -> None:
    pipeline = heard(Pipeline(FakeSession(), fake_manifest(), sync=Sync(lookahead=lookahead)), 1.0)
    heatmap = pipeline.heatmap(Frame(picture(), 0, START_S + 1))
    ends = (SAMPLE_RATE_HZ - TOKEN_SPAN_SAMPLES) // TOKEN_HOP_SAMPLES - lookahead
    end_s = (ends * TOKEN_HOP_SAMPLES + TOKEN_SPAN_SAMPLES) / SAMPLE_RATE_HZ
    assert heatmap.audio_end_s == pytest.approx(START_S + end_s)
    assert heatmap.audio_start_s == pytest.approx(START_S + end_s - 0.185)
    assert heatmap.skew_s == pytest.approx(end_s - 1)
    assert heatmap.heat_KHW[1, 0, 0] == pytest.approx(end_s / 100, abs=1e-4)


@pytest.mark.parametrize("lookahead", [0, 1])
def test_exact_uses_the_token_that_covers_the_frame(lookahead: int) -> None:
    pipeline = Pipeline(FakeSession(), fake_manifest(), sync=Sync(exact=True, lookahead=lookahead))
    seen = 0
    waiting = [Frame(picture(), i, START_S + i / 30) for i in range(60)]
    for block in ramp(2.0):
        pipeline.push(block)
        pipeline.encode_audio()
        while waiting and pipeline.sync[0].covers(waiting[0]):
            frame = waiting.pop(0)
            heatmap = pipeline.heatmap(frame)
            assert heatmap.audio_start_s is not None
            assert heatmap.audio_end_s is not None
            assert heatmap.audio_start_s - 1e-3 <= frame.capture_s <= heatmap.audio_end_s
            assert heatmap.heat_KHW[1, 0, 0] == pytest.approx(
                (heatmap.audio_end_s - START_S) / 100, abs=1e-4
            )
            # The look-ahead has been heard, and nothing more was waited for.
            assert block.end_s - heatmap.audio_end_s >= lookahead * TOKEN_S - 1e-3
            assert block.end_s - frame.capture_s <= (1 + lookahead) * TOKEN_S + 0.03
            seen += 1
    assert seen == 60 - len(waiting) >= 42


def test_exact_does_not_compare_a_frame_with_sound_that_does_not_cover_it() -> None:
    pipeline = heard(Pipeline(FakeSession(), fake_manifest(), sync=Sync(exact=True)), 3.0)
    for offset_s in (-1.0, 0.5, 3.5):  # before the sound, out of the window, after it
        frame = Frame(picture(), 0, START_S + offset_s)
        assert not pipeline.sync[0].covers(frame)
        heatmap = pipeline.heatmap(frame)
        assert heatmap.valid_K == (False, False)
        assert heatmap.skew_s is None


def test_a_look_ahead_that_reaches_before_the_stream_is_no_sound() -> None:
    pipeline = Pipeline(FakeSession(), fake_manifest(), sync=Sync(lookahead=2))
    for block in ramp(0.5):
        pipeline.push(block)
        pipeline.encode_audio()
        heatmap = pipeline.heatmap(Frame(picture(), 0, block.end_s))
        begun = block.end_s - START_S >= 0.185 + 2 * TOKEN_S
        assert (heatmap.audio_end_s is not None) == begun


def test_a_frame_that_looks_like_the_last_is_not_encoded_again() -> None:
    session = FakeSession()
    pipeline = heard(Pipeline(session, fake_manifest()), 1.0)
    levels = [5, 5, 5, 9, 9, 5]
    heats = [
        pipeline.heatmap(Frame(picture(level), i, START_S + 1)).heat_KHW[0, 0, 0]
        for i, level in enumerate(levels)
    ]
    assert session.images == 3
    assert heats == pytest.approx([level / 255 for level in levels])


def test_held_frames_go_on_evenly_and_each_with_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sound in 20 ms blocks, frames at 50 a second, and a clock that moves by milliseconds."""
    clock = FakeClock(START_S)
    monkeypatch.setattr(sync_policy, "monotonic", clock)
    pipeline = Pipeline(FakeSession(), fake_manifest(), sync=Sync(exact=True))
    dropped: list[int] = []
    line = DelayLine(pipeline.sync[0].wait_s, lambda _, count: dropped.append(count))
    out_s, given, sound = [], 0, ramp(3.0)
    while sound:
        clock.advance(0.001)
        while sound and sound[0].end_s <= clock():
            pipeline.push(sound.pop(0))
            pipeline.encode_audio()
        if clock() >= START_S + 0.02 * (given + 1):
            line.put((Frame(picture(given % 250), given, clock()), 0.0))
            given += 1
        came = line.get(0)
        if came is not None:
            out_s.append(clock())
            heatmap = pipeline.heatmap(came[0])
            assert heatmap.skew_s is not None
            assert -1e-3 <= heatmap.skew_s <= 0.186
            assert clock() - came[0].capture_s <= TOKEN_S + 0.03
    assert len(out_s) + sum(dropped) >= given - 11
    assert sum(dropped) <= 2
    assert max(b - a for a, b in pairwise(out_s)) <= 0.041  # not in bursts of a token


def test_without_sound_held_frames_go_on_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock(START_S)
    monkeypatch.setattr(sync_policy, "monotonic", clock)
    pipeline = Pipeline(FakeSession(), fake_manifest(), sync=Sync(exact=True))
    line = DelayLine(pipeline.sync[0].wait_s, lambda *_: None)
    line.put((Frame(picture(), 0, START_S), 0.0))
    clock.advance(TOKEN_S + sync_policy.GRACE_S - 0.01)
    assert line.get(0) is None
    clock.advance(0.02)
    assert line.get(0) is not None
    assert line.empty


def test_of_frames_that_are_due_the_newest_wins() -> None:
    dropped: list[int] = []
    due = {0, 1, 2}
    line = DelayLine(
        lambda frame: 0.0 if frame.index in due else 1.0, lambda _, count: dropped.append(count)
    )
    for index in range(5):
        assert not line.put((Frame(picture(), index, 0.0), 0.0))
    taken = line.get(0)
    assert taken is not None
    assert taken[0].index == 2
    assert dropped == [2]
    assert line.get(0.01) is None
    assert not line.empty


def test_cameras_take_turns_and_the_newest_of_each_wins() -> None:
    dropped: list[tuple[int, int]] = []
    line = DelayLine(lambda _: 0.0, lambda camera, count: dropped.append((camera, count)), 3)
    for index in range(4):
        for camera in (0, 2):
            line.put((Frame(picture(), index, 0.0, camera), 0.0))
    line.put((Frame(picture(), 0, 0.0, 1), 0.0))
    taken = [line.get(0) for _ in range(4)]
    found = [(each[0].camera, each[0].index) for each in taken if each is not None]
    assert found == [(0, 3), (1, 0), (2, 3)]
    assert dropped == [(0, 3), (2, 3)]
    for camera in (0, 1, 0, 1):
        line.put((Frame(picture(), 9, 0.0, camera), 0.0))
    again = [line.get(0), line.get(0)]
    assert [each[0].camera for each in again if each is not None] == [0, 1]
    assert line.empty


def test_frames_that_wait_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delay_line, "HELD_BYTES_MAX", 10 * picture().nbytes)
    due: set[int] = set()
    line = DelayLine(lambda frame: 0.0 if frame.index in due else 1.0, lambda *_: None)
    full = [line.put((Frame(picture(), index, index / 30), 0.0)) for index in range(100)]
    assert full == [False] * 10 + [True] * 90
    due.add(0)
    assert line.get(0) is not None
    assert not line.put((Frame(picture(), 100, 100 / 30), 0.0))


@pytest.mark.parametrize("room", [5, 10, 20])
def test_frames_that_are_too_large_to_wait_are_thinned_evenly(
    monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """Frames at 50 a second that wait 0.9 s, and memory for only some of the 45."""
    monkeypatch.setattr(delay_line, "HELD_BYTES_MAX", room * picture().nbytes)
    clock = FakeClock(START_S)
    monkeypatch.setattr(delay_line, "monotonic", clock)
    line = DelayLine(lambda frame: frame.capture_s + 0.9 - clock(), lambda *_: None)
    out_s, dropped = [], 0
    for index in range(500):
        clock.advance(0.02)
        dropped += line.put((Frame(picture(), index, clock()), clock()))
        taken = line.get(0)
        if taken is not None:
            out_s.append(taken[0].capture_s)
    assert len(out_s) + dropped >= 500 - room - 1
    steady_s = [b - a for a, b in pairwise(out_s) if a > START_S + 1]
    assert max(steady_s) <= 2.1 * 0.9 / (room - 1)  # no burst, and no longer gap than must be


@pytest.mark.parametrize("lookahead", [2, 14, 47])
def test_an_exact_frame_waits_as_long_as_its_look_ahead_takes(
    monkeypatch: pytest.MonkeyPatch, lookahead: int
) -> None:
    """A bundle of 55 tokens: every frame that its sound has time to reach meets it."""
    clock = FakeClock(START_S)
    monkeypatch.setattr(sync_policy, "monotonic", clock)
    sync = Sync(exact=True, lookahead=lookahead)
    sync.check(55)
    pipeline = Pipeline(FakeSession(), fake_manifest(tokens=55), sync=sync)
    line = DelayLine(pipeline.sync[0].wait_s, lambda *_: None)
    seconds = (1 + lookahead) * TOKEN_S + 3
    given, sound, met = 0, ramp(seconds), 0
    while sound:
        clock.advance(0.005)
        while sound and sound[0].end_s <= clock():
            pipeline.push(sound.pop(0))
            pipeline.encode_audio()
        if clock() >= START_S + 0.1 * (given + 1):
            line.put((Frame(picture(given % 250), given, clock()), 0.0))
            given += 1
        timed = line.get(0)
        if timed is not None:
            assert pipeline.heatmap(timed[0]).skew_s is not None
            met += 1
    assert met >= 25


@pytest.mark.parametrize(
    ("exact", "most"), [(False, 54), (True, 55 - HOP_TOKENS_MAX)], ids=["latest", "exact"]
)
def test_a_look_ahead_that_no_frame_could_meet_is_refused(exact: bool, most: int) -> None:
    Sync(exact=exact, lookahead=most).check(55)
    with pytest.raises(UsageError, match=f"it is at most {most}"):
        Sync(exact=exact, lookahead=most + 1).check(55)


@pytest.mark.parametrize("late_s", [0.1, 1.0, 2.5])
def test_a_slow_machine_compares_exact_frames_at_the_longest_look_ahead_too(late_s: float) -> None:
    """A pass moves on by up to the longest hop, and no frame's token falls out of it unseen."""
    tokens, hop = 55, HOP_TOKENS_MAX
    sync = Sync(exact=True, lookahead=tokens - hop)
    controller = HopController()
    worked(controller, audio_s=late_s, frame_s=1.0, passes=100)
    session = FakeSession()
    pipeline = Pipeline(session, fake_manifest(tokens=tokens), sync=sync, hop_controller=controller)
    met = set()
    for block in ramp(16.0):
        pipeline.push(block)
        if pipeline.encode_audio():
            newest = pipeline.audio[0].newest
            assert newest is not None
            for token in range(newest.stop):
                frame = Frame(picture(), token, START_S + (token + 0.5) * TOKEN_S)
                if pipeline.sync[0].token_of(frame, newest) == token:
                    met.add(token)
    assert met == set(range(max(met) + 1))
    assert len(met) > 30


def worked(throttle: HopController, audio_s: float, frame_s: float, passes: int) -> int:
    for _ in range(passes):
        throttle.note_frame(frame_s)
        throttle.note_audio_pass(audio_s)
    return throttle.hop_tokens


def test_frames_give_way_first_then_the_hop() -> None:
    throttle = HopController()
    assert worked(throttle, audio_s=0.1, frame_s=0.15, passes=50) == 1
    assert worked(throttle, audio_s=0.15, frame_s=0.25, passes=4) == 2
    assert worked(throttle, audio_s=0.15, frame_s=0.25, passes=4) == 4


def test_the_hop_is_bounded_and_comes_back() -> None:
    throttle = HopController()
    assert worked(throttle, audio_s=3.0, frame_s=1.0, passes=100) == HOP_TOKENS_MAX
    assert worked(throttle, audio_s=0.05, frame_s=0.15, passes=50) == HOP_TOKENS_MAX
    assert worked(throttle, audio_s=0.04, frame_s=0.03, passes=60) == 1


def test_a_quick_audio_pass_keeps_its_hop_however_slow_frames_are() -> None:
    assert worked(HopController(), audio_s=0.02, frame_s=2.0, passes=50) == 1


def test_a_throttled_pipeline_hears_every_second_token_and_says_so() -> None:
    session, throttle = FakeSession(), HopController()
    worked(throttle, audio_s=0.15, frame_s=0.25, passes=4)
    pipeline = Pipeline(session, fake_manifest(), hop_controller=throttle)
    assert pipeline.hop_s == TOKEN_S
    heard(pipeline, 2.0)
    tokens = (2 * SAMPLE_RATE_HZ - TOKEN_SPAN_SAMPLES) // TOKEN_HOP_SAMPLES + 1
    assert len(session.windows) == (tokens + 1) // 2
    assert pipeline.hop_s == pytest.approx(2 * TOKEN_S)
    assert pipeline.hops_skipped == 0  # a longer hop was chosen, and nothing dropped
    assert throttle.hop_tokens < TOKENS  # no sound is missed by a frame that waits for its token
