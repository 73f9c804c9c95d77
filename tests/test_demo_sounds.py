import shutil
from pathlib import Path

import numpy as np
import pytest

from denseav.train.demo_script import SCRIPT, Event, Script, pulse, shaken
from denseav.train.demo_sounds import LEVEL_DBFS, PEAK, RATE_HZ, ClipError, perform, synthesise

needs_voice = pytest.mark.skipif(
    shutil.which("espeak-ng") is None, reason="espeak-ng is not installed"
)
NAMES = ("drum", "bell", "bird", "car")


def sound(name, start_s=0.0, stop_s=2.4):
    return Event(name=name, head="sound", start_s=start_s, stop_s=stop_s)


def play(name, seed=0):
    return perform(sound(name), np.random.default_rng(seed), "en-us")


def level_dbfs(wave_S):
    return 20 * np.log10(np.sqrt(np.mean(np.square(wave_S, dtype=np.float64))))


def overlaps(first, second):
    return first.start_s < second.stop_s and second.start_s < first.stop_s


def test_the_script_plays_every_object_alone_names_it_alone_and_mixes():
    alone = [e for e in SCRIPT.events if sum(overlaps(e, other) for other in SCRIPT.events) == 1]
    assert {(e.name, e.head) for e in alone} >= {(n, h) for n in NAMES for h in ("sound", "speech")}
    mixed = [
        (a, b)
        for i, a in enumerate(SCRIPT.events)
        for b in SCRIPT.events[i + 1 :]
        if overlaps(a, b)
    ]
    assert mixed
    assert all(a.name != b.name and {a.head, b.head} == {"sound", "speech"} for a, b in mixed)


def test_the_script_is_in_order_names_what_it_says_and_ends_in_silence():
    starts = [e.start_s for e in SCRIPT.events]
    assert starts == sorted(starts)
    assert all(e.name in e.text for e in SCRIPT.events if e.head == "speech")
    silence_s = SCRIPT.duration_s - max(e.stop_s for e in SCRIPT.events)
    assert 2.0 <= silence_s <= 3.0
    assert 24 <= SCRIPT.duration_s <= 30


def test_beats_lie_in_the_event_and_stop_before_its_end():
    beats = sound("drum", 3.0, 4.1).beats_s()
    assert beats == pytest.approx((3.0, 3.42, 3.84))
    script = Script(events=(sound("drum", 1.0, 1.3), sound("drum", 5.0, 5.3)), duration_s=6.0)
    assert script.beats_s("drum") == (1.0, 5.0)
    assert script.beats_s("bell") == ()


def test_a_shake_starts_at_the_beat_and_dies_away():
    assert shaken(0.9, (1.0,), 10.0, 0.2) == 0
    early, late = shaken(1.025, (1.0,), 10.0, 0.2), shaken(2.025, (1.0,), 10.0, 0.2)
    assert early == pytest.approx(np.exp(-0.125))
    assert 0 < late < 0.01 * early


def test_a_pulse_is_one_on_the_beat_and_zero_away_from_it():
    assert pulse(1.0, (1.0, 3.0), 0.1, 0.2) == 1
    assert pulse(0.95, (1.0, 3.0), 0.1, 0.2) == pytest.approx(0.5)
    assert pulse(3.1, (1.0, 3.0), 0.1, 0.2) == pytest.approx(0.5)
    assert pulse(2.0, (1.0, 3.0), 0.1, 0.2) == 0
    assert pulse(2.0, (), 0.1, 0.2) == 0


@pytest.mark.parametrize("name", NAMES)
def test_an_instrument_is_level_unclipped_and_faded(name):
    wave_S = play(name)
    assert len(wave_S) == round(2.4 * RATE_HZ)
    assert level_dbfs(wave_S) == pytest.approx(LEVEL_DBFS, abs=1.5)
    assert np.abs(wave_S).max() <= PEAK
    assert wave_S[0] == wave_S[-1] == 0
    assert np.abs(wave_S[: RATE_HZ // 10]).max() > 0.03


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_decides_an_instrument(name):
    assert np.array_equal(play(name, 1), play(name, 1))
    assert not np.array_equal(play(name, 1), play(name, 2))


@pytest.mark.parametrize(
    ("name", "low_hz", "high_hz"),
    [("drum", 100, 400), ("bell", 300, 1_400), ("bird", 2_500, 5_500), ("car", 20, 250)],
)
def test_each_instrument_has_its_own_register(name, low_hz, high_hz):
    power = np.abs(np.fft.rfft(play(name))) ** 2
    median_hz = np.fft.rfftfreq(round(2.4 * RATE_HZ), 1 / RATE_HZ)[
        np.searchsorted(np.cumsum(power), power.sum() / 2)
    ]
    assert low_hz < median_hz < high_hz


@pytest.mark.parametrize("name", ["drum", "bell", "bird"])
def test_every_beat_is_heard(name):
    event = sound(name)
    wave_S = play(name)
    for beat_s in event.beats_s()[1:]:
        at = round(beat_s * RATE_HZ)
        before, after = wave_S[at - 960 : at], wave_S[at : at + 4_800]
        assert level_dbfs(after) > level_dbfs(before + 1e-9) + 2


def test_the_mix_is_zero_where_nothing_sounds():
    script = Script(events=(sound("bell", 0.5, 1.5), sound("car", 2.0, 2.5)), duration_s=3.0)
    mix_S, heard = synthesise(script, 0)
    assert mix_S.dtype == np.float32
    assert len(mix_S) == 3 * RATE_HZ
    for start_s, stop_s in ((0.0, 0.5), (1.5, 2.0), (2.5, 3.0)):
        assert not mix_S[round(start_s * RATE_HZ) : round(stop_s * RATE_HZ)].any()
    assert heard == script


@needs_voice
def test_speech_is_level_and_says_when_it_truly_ends():
    spoken = Event(name="drum", head="speech", start_s=0.5, stop_s=4.0, text="Look, a drum.")
    mix_S, heard = synthesise(Script(events=(spoken,), duration_s=4.5), 0)
    stop_s = heard.events[0].stop_s
    assert 1.2 < stop_s < 3.5
    assert not mix_S[: RATE_HZ // 2].any()
    assert not mix_S[round(stop_s * RATE_HZ) + 48 :].any()
    assert level_dbfs(mix_S[RATE_HZ // 2 : round(stop_s * RATE_HZ)]) == pytest.approx(-20, abs=1.5)


@needs_voice
def test_speech_never_outlasts_its_event():
    text = "A much longer sentence than there is time for."
    spoken = Event(name="drum", head="speech", start_s=0.0, stop_s=1.0, text=text)
    wave_S = perform(spoken, np.random.default_rng(0), "en-us")
    assert len(wave_S) == RATE_HZ
    assert np.abs(wave_S[-480:]).max() < 0.02


@needs_voice
def test_the_whole_script_does_not_clip_and_fits_its_slots():
    mix_S, heard = synthesise(SCRIPT, 0)
    assert np.abs(mix_S).max() < 0.98
    for event, planned in zip(heard.events, SCRIPT.events, strict=True):
        if event.head == "speech":
            assert event.stop_s < planned.stop_s - 0.05, "the phrase is cut"


def test_a_missing_voice_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClipError, match="apt install espeak-ng"):
        perform(SCRIPT.events[4], np.random.default_rng(0), "en-us")


def test_a_failing_voice_is_quoted(monkeypatch, tmp_path: Path):
    program = tmp_path / "espeak-ng"
    program.write_text("#!/bin/sh\necho 'no such voice' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(ClipError, match="espeak-ng failed: no such voice"):
        perform(SCRIPT.events[4], np.random.default_rng(0), "en-us")
