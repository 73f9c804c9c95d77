import json
import shutil
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

import denseav.stream
from denseav.train import demo_clip
from denseav.train.demo_clip import FRAME_RATE, RATE_HZ, describe, main, render_clip
from denseav.train.demo_scene import Scene
from denseav.train.demo_script import SCRIPT, Event, Script
from denseav.train.demo_sounds import ClipError

SHIPPED = Path(denseav.stream.__file__).parent / "demo" / "clip.mp4"
SHORT = Script(
    events=(Event(name="drum", head="sound", start_s=0.3, stop_s=1.1),),
    duration_s=1.5,
)


def decode(path):
    """Every picture, uint8 [F, H, W, 3] BGR, their times, and the sound, float32 [S]."""
    with av.open(path) as film:
        frames = list(film.decode(video=0))
        pictures = [frame.to_ndarray(format="bgr24") for frame in frames]
        times_s = [frame.time for frame in frames]
    return pictures, times_s, hear(path)


def hear(path):
    with av.open(path) as film:
        return np.concatenate([frame.to_ndarray()[0] for frame in film.decode(audio=0)])


def motion_in(start_s, stop_s):
    """How much each pixel of the shipped clip changes between two times, float64 [H, W]."""
    change_HW, before = np.zeros((480, 640)), None
    with av.open(SHIPPED) as film:
        for frame in film.decode(video=0):
            if frame.time >= stop_s:
                break
            if frame.time >= start_s:
                after = frame.to_ndarray(format="gray").astype(np.int16)
                change_HW += 0 if before is None else np.abs(after - before)
                before = after
    return change_HW


def truth_of(path):
    return json.loads(path.with_suffix(".json").read_text())


def level_dbfs(wave_S):
    return 20 * np.log10(np.sqrt(np.mean(np.square(wave_S, dtype=np.float64))) + 1e-12)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "short.mp4"
    render_clip(path, SHORT, 3)
    return path


@pytest.fixture(scope="module")
def shipped_sound():
    return hear(SHIPPED)


def test_a_short_cut_has_every_picture_and_its_sound(short):
    pictures, times_s, sound_S = decode(short)
    assert times_s == pytest.approx([i / FRAME_RATE for i in range(45)])
    assert len(sound_S) >= 1.5 * RATE_HZ
    assert level_dbfs(sound_S[: int(0.25 * RATE_HZ)]) < -90
    assert level_dbfs(sound_S[int(0.3 * RATE_HZ) : int(1.1 * RATE_HZ)]) == pytest.approx(
        -20, abs=1.5
    )
    drawn = Scene(SHORT, 3).draw(times_s[10])[0]
    assert np.abs(pictures[10].astype(int) - drawn).mean() < 4


def test_the_truth_says_who_was_heard_when_and_where(short):
    truth = truth_of(short)
    assert {key: truth[key] for key in truth if key != "events"} == {
        "seed": 3,
        "width": 640,
        "height": 480,
        "frame_rate": 30,
        "duration_s": 1.5,
        "silent_from_s": 1.1,
    }
    (event,) = truth["events"]
    assert (event["name"], event["head"], event["start_s"], event["stop_s"], event["text"]) == (
        "drum",
        "sound",
        0.3,
        1.1,
        "",
    )
    assert [time_s for time_s, *_ in event["boxes"]] == pytest.approx([0.3, 0.8, 1.1])
    assert tuple(event["boxes"][1][1:]) == Scene(SHORT, 3).draw(0.8)[1]["drum"]


def test_the_truth_follows_an_object_that_moves():
    drive = Event(name="car", head="sound", start_s=0.1, stop_s=1.25)
    talk = Event(name="bell", head="speech", start_s=0.1, stop_s=0.4, text="the bell")
    boxes = [{"car": (i, 10, i + 50, 30), "bell": (7, 8, 9, 10)} for i in range(45)]
    truth = describe(Script(events=(drive, talk), duration_s=1.5), boxes, 0)
    car, bell = truth["events"]
    assert car["boxes"] == [
        [0.1, 3, 10, 53, 30],
        [0.6, 18, 10, 68, 30],
        [1.1, 33, 10, 83, 30],
        [1.233, 37, 10, 87, 30],
    ]
    assert bell["boxes"] == [[0.1, 7, 8, 9, 10], [0.4, 7, 8, 9, 10]]
    assert truth["silent_from_s"] == 1.25


def test_the_same_seed_renders_the_same_film(short, tmp_path):
    render_clip(tmp_path / "again.mp4", SHORT, 3)
    pictures, _, sound_S = decode(short)
    pictures_again, _, sound_again_S = decode(tmp_path / "again.mp4")
    assert all(np.array_equal(a, b) for a, b in zip(pictures, pictures_again, strict=True))
    assert np.array_equal(sound_S, sound_again_S)
    assert truth_of(short) == truth_of(tmp_path / "again.mp4")


def test_nothing_else_is_left_behind(short):
    assert sorted(path.name for path in short.parent.iterdir()) == ["short.json", "short.mp4"]


def test_a_missing_folder_is_one_line(tmp_path):
    with pytest.raises(ClipError, match=r"cannot write .*No such file.*; choose another place"):
        render_clip(tmp_path / "nowhere" / "clip.mp4", SHORT, 0)


def test_a_failure_leaves_the_old_film_and_no_parts(tmp_path):
    old = tmp_path / "clip.mp4"
    old.write_bytes(b"the old film")
    (tmp_path / "clip.json").mkdir()
    with pytest.raises(ClipError, match="cannot write"):
        render_clip(old, SHORT, 0)
    assert old.read_bytes() == b"the old film"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.json", "clip.mp4"]


def test_the_command_renders_the_script_with_a_progress_bar(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(demo_clip, "SCRIPT", SHORT)
    assert main([str(tmp_path / "out.mp4"), "--seed", "5"]) == 0
    assert truth_of(tmp_path / "out.mp4")["seed"] == 5
    assert "Drawing" in capsys.readouterr().err


def test_the_command_without_a_voice_fails_in_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert main([str(tmp_path / "out.mp4")]) == 1
    error = capsys.readouterr().err
    assert error == "demo_clip: espeak-ng is not installed: apt install espeak-ng\n"
    assert not (tmp_path / "out.mp4").exists()


def test_the_shipped_clip_is_small_and_starts_with_its_index():
    film = SHIPPED.read_bytes()
    assert len(film) <= 2_000_000
    assert SHIPPED.with_suffix(".json").stat().st_size < 10_000
    assert film.index(b"moov") < film.index(b"mdat")


def test_the_shipped_clip_has_the_promised_streams():
    with av.open(SHIPPED) as film:
        video, audio = film.streams.video[0], film.streams.audio[0]
        assert (video.codec_context.name, video.width, video.height) == ("h264", 640, 480)
        assert (video.pix_fmt, video.average_rate, video.frames) == ("yuv420p", 30, 894)
        assert (audio.codec_context.name, audio.rate, audio.layout.name) == ("aac", 48_000, "mono")
        assert film.duration / av.time_base == pytest.approx(SCRIPT.duration_s, abs=0.05)
        for stream in (video, audio):
            assert stream.start_time == 0


def test_the_shipped_clip_can_be_entered_every_two_seconds():
    with av.open(SHIPPED) as film:
        packets = [packet for packet in film.demux(video=0) if packet.size]
    assert all(packet.pts == packet.dts for packet in packets)
    keys = [i for i, packet in enumerate(packets) if packet.is_keyframe]
    assert keys[0] == 0
    assert max(b - a for a, b in pairwise([*keys, len(packets)])) <= 2 * FRAME_RATE


def test_the_shipped_clip_follows_the_script():
    events = truth_of(SHIPPED)["events"]
    said = [(e["name"], e["head"], e["start_s"], e["text"]) for e in events]
    assert said == [(e.name, e.head, e.start_s, e.text) for e in SCRIPT.events]
    assert all(
        event["stop_s"] <= planned.stop_s
        for event, planned in zip(events, SCRIPT.events, strict=True)
    )


def test_the_shipped_clip_begins_each_sound_where_the_truth_says(shipped_sound):
    loud_until_s = 0.0
    for event in truth_of(SHIPPED)["events"]:
        at = round(event["start_s"] * RATE_HZ)
        if event["start_s"] >= loud_until_s:
            assert level_dbfs(shipped_sound[at - 4_800 : at - 480]) < -90
            first = np.argmax(np.abs(shipped_sound[at - 480 :]) > 0.01) - 480
            assert -48 <= first <= 0.02 * RATE_HZ
        loud_until_s = max(loud_until_s, event["stop_s"])


def test_the_shipped_clip_is_level_and_does_not_clip(shipped_sound):
    assert np.abs(shipped_sound).max() < 0.98
    for event in truth_of(SHIPPED)["events"]:
        part = shipped_sound[round(event["start_s"] * RATE_HZ) : round(event["stop_s"] * RATE_HZ)]
        assert -22 < level_dbfs(part) < -16.5


def test_the_shipped_clip_ends_in_silence(shipped_sound):
    silent_from_s = truth_of(SHIPPED)["silent_from_s"]
    assert 2.0 <= SCRIPT.duration_s - silent_from_s <= 3.0
    assert np.abs(shipped_sound[round((silent_from_s + 0.05) * RATE_HZ) :]).max() < 1e-5


def test_the_shipped_clip_is_what_the_code_draws():
    truth = truth_of(SHIPPED)
    scene = Scene(SCRIPT, truth["seed"])
    for event in truth["events"]:
        for time_s, *box in event["boxes"]:
            frame_s = round(time_s * FRAME_RATE) / FRAME_RATE
            assert scene.draw(frame_s)[1][event["name"]] == pytest.approx(box, abs=1)
    with av.open(SHIPPED) as film:
        for frame in film.decode(video=0):
            if round(frame.time * FRAME_RATE) % 180 == 20:
                drawn = scene.draw(frame.time)[0]
                shown = frame.to_ndarray(format="bgr24").astype(int)
                assert np.abs(shown - drawn).mean() < 4


def test_in_the_shipped_clip_the_one_that_sounds_moves_most():
    """Motion, measured on the decoded film alone, points at the object the truth names."""
    truth = truth_of(SHIPPED)
    at_rest = {event["name"]: event["boxes"][0][1:] for event in truth["events"]}
    for event in truth["events"][:4]:
        change_HW = motion_in(event["start_s"], event["stop_s"])
        motion = {
            name: change_HW[top:bottom, left:right].mean()
            for name, (left, top, right, bottom) in at_rest.items()
        }
        assert max(motion, key=motion.__getitem__) == event["name"]


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_a_spoken_event_ends_with_its_phrase(tmp_path):
    spoken = Event(name="bell", head="speech", start_s=0.2, stop_s=2.0, text="A bell.")
    render_clip(tmp_path / "spoken.mp4", Script(events=(spoken,), duration_s=2.1), 0)
    truth = truth_of(tmp_path / "spoken.mp4")
    (event,) = truth["events"]
    assert 0.5 < event["stop_s"] == truth["silent_from_s"] < 1.9
    assert event["boxes"][-1][0] <= event["stop_s"]
