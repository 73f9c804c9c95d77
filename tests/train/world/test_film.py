"""Films of the world: what is rendered, what its truth says, and the one that is shipped."""

import ctypes.util
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

import denseav.stream
from denseav.train.cli import world
from denseav.train.cli.data import main
from denseav.train.errors import DataError
from denseav.train.world import film, shots
from denseav.train.world.classes import CLASSES
from denseav.train.world.film import SHOTS, Film, describe, make_film, save_film
from denseav.train.world.library import library
from denseav.train.world.shots import (
    FRAME_RATE,
    FRAME_SAMPLES,
    HEIGHT,
    RATE_HZ,
    WIDTH,
    box,
    look,
    make_shot,
)
from denseav.train.world.speech.phrases import speak

pytestmark = pytest.mark.skipif(
    ctypes.util.find_library("espeak-ng") is None, reason="espeak-ng is not installed"
)
SHIPPED = Path(denseav.stream.__file__).parent / "demo" / "clip.mp4"
PARTS = library(held_out=True)
SHORT_FRAMES = 40


def truth_of(path):
    return json.loads(path.with_suffix(".json").read_text())


def place_event(path):
    with av.open(path) as file:
        return np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])


def level_dbfs(wave_S):
    return 20 * np.log10(np.sqrt(np.mean(np.square(wave_S, dtype=np.float64))) + 1e-12)


def shot_of(seed, *names, **options):
    return make_shot(np.random.default_rng(seed), PARTS, names, **options)


def cut(shot, frames):
    """The first frames of a shot, in which its first event is cut off, and no other begins."""
    first = shot.events[0]
    stop_s = min(first.stop_s, 1.1)
    words = tuple(word for word in first.words if word.stop_s <= stop_s)
    wave_S = shot.wave_S[: frames * FRAME_SAMPLES].copy()
    wave_S[round(stop_s * RATE_HZ) :] = 0
    events = (replace(first, stop_s=stop_s, words=words),)
    return replace(shot, frames=frames, events=events, wave_S=wave_S)


@pytest.fixture(scope="module")
def shot():
    return shot_of(3, "bell", "dog", "rocket", "sheep")


@pytest.fixture(scope="module")
def short(shot):
    return Film(seed=3, shots=(cut(shot, SHORT_FRAMES),))


@pytest.fixture(scope="module")
def saved(short, tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "short.mp4"
    save_film(short, path, range(short.frames))
    return path


@pytest.fixture(scope="module")
def shipped_film():
    """What the code makes of the shipped film's seed, if its voice is the one that is here."""
    truth, film = truth_of(SHIPPED), make_film(truth_of(SHIPPED)["seed"])
    stops_s = [round(begin_s + event.stop_s, 3) for begin_s, event in film.events()]
    if stops_s != [event["stop_s"] for event in truth["events"]]:
        pytest.skip("this espeak-ng speaks otherwise than the one that made the film")
    return film


@pytest.fixture(scope="module")
def shipped_sound():
    return place_event(SHIPPED)


def test_a_seed_casts_the_same_film_from_held_out_parts_and_another_seed_another(monkeypatch):
    splits = set()

    def listening(name, random, *, held_out):
        splits.add(held_out)
        return speak(name, random, held_out=held_out)

    monkeypatch.setattr(shots, "speak", listening)
    one, same, other = make_film(1), make_film(1), make_film(2)
    assert splits == {True}
    for first, second in zip(one.shots, same.shots, strict=True):
        assert (first.scene, first.events) == (second.scene, second.events)
        assert first.wave_S.tobytes() == second.wave_S.tobytes()
        index = first.frames // 2
        pictures = [look(shot, PARTS, index)[0].tobytes() for shot in (first, second)]
        assert pictures[0] == pictures[1]
    assert one.shots[0].scene != other.shots[0].scene
    assert [len(shot.scene.things) for shot in one.shots] == list(SHOTS)
    cast = [name for shot in one.shots for name in shot.scene.names]
    assert len(set(cast)) == len(cast)
    assert set(cast) <= set(CLASSES)


def test_a_film_has_every_picture_and_its_sound(saved, short):
    with av.open(saved) as file:
        frames = list(file.decode(video=0))
    assert [frame.time for frame in frames] == pytest.approx([i / 30 for i in range(SHORT_FRAMES)])
    drawn_HW3, _ = look(short.shots[0], PARTS, 20)
    shown_HW3 = frames[20].to_ndarray(format="rgb24").astype(int)
    assert np.abs(shown_HW3 - drawn_HW3).mean() < 5
    heard_S, made_S = place_event(saved), short.sound()
    assert len(heard_S) >= len(made_S)
    sounding = slice(round(0.6 * RATE_HZ), round(1.1 * RATE_HZ))
    assert np.corrcoef(heard_S[sounding], made_S[sounding])[0, 1] > 0.95


def test_the_truth_says_who_was_heard_when_and_where(saved, short):
    truth = truth_of(saved)
    (event,) = truth.pop("events")
    assert truth == {
        "seed": 3, "width": 640, "height": 480, "frame_rate": 30,
        "duration_s": round(SHORT_FRAMES / 30, 3), "silent_from_s": 1.1,
    }  # fmt: skip
    (played,) = short.shots[0].events
    assert (event["name"], event["head"], event["start_s"]) == (played.name, played.head, 0.6)
    assert [row[0] for row in event["boxes"]] == pytest.approx([0.6, 1.1])
    _, masks_NHW = look(short.shots[0], PARTS, 18)
    mask_HW = masks_NHW[short.shots[0].scene.names.index(played.name)]
    assert tuple(event["boxes"][0][1:]) == box(mask_HW)
    assert event["text"].split() == [w for text, *_ in event["words"] for w in text.split()]


def test_times_of_later_shots_count_from_the_beginning_of_the_film(shot):
    spoken = next(event for event in shot.events if event.head == "speech")
    part = cut(replace(shot, events=(replace(spoken, start_s=0.2, stop_s=0.9),)), 30)
    film = Film(seed=0, shots=(part, part))
    boxes = [{spoken.name: (i, 0, i + 9, 9)} for i in range(film.frames)]
    first, second = describe(film, boxes)["events"]
    assert (first["start_s"], second["start_s"]) == (0.2, 1.2)
    assert second["boxes"] == [[1.2, 36, 0, 45, 9], [1.7, 51, 0, 60, 9], [1.9, 57, 0, 66, 9]]
    for early, late in zip(first["words"], second["words"], strict=True):
        assert late[1] - early[1] == pytest.approx(1.0)


def test_what_is_hidden_has_no_box(shot):
    film = Film(seed=0, shots=(cut(shot, 40),))
    name = film.shots[0].events[0].name
    boxes = [{name: (1, 2, 3, 4)} if index < 30 else {} for index in range(40)]
    (event,) = describe(film, boxes)["events"]
    assert [row[0] for row in event["boxes"]] == [0.6]


def test_a_failure_leaves_the_old_film_and_no_parts(short, tmp_path):
    old = tmp_path / "clip.mp4"
    old.write_bytes(b"the old film")
    (tmp_path / "clip.json").mkdir()
    film = Film(seed=0, shots=(cut(short.shots[0], 36),))
    with pytest.raises(DataError, match=r"cannot write .*; choose another --out"):
        save_film(film, old, range(film.frames))
    with pytest.raises(DataError, match="No such file"):
        save_film(film, tmp_path / "nowhere" / "clip.mp4", range(film.frames))
    assert old.read_bytes() == b"the old film"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.json", "clip.mp4"]


def test_the_command_renders_the_film_of_its_seed(monkeypatch, short, tmp_path, capsys):
    monkeypatch.setattr(world, "make_film", lambda seed: replace(short, seed=seed))
    assert main(["world", "film", "--seed", "8", "--out", str(tmp_path / "a.mp4")]) == 0
    assert truth_of(tmp_path / "a.mp4")["seed"] == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.mp4"]
    assert "a.json" in capsys.readouterr().err


def test_the_command_without_a_voice_fails_in_one_line(monkeypatch, tmp_path, capsys):
    def silent(*_, **__):
        raise DataError("espeak-ng is not installed: apt install espeak-ng")

    monkeypatch.setattr(film, "make_shot", silent)
    assert main(["world", "film", "--out", str(tmp_path / "a.mp4")]) == 3
    error = capsys.readouterr().err
    assert error == "denseav-data: error: espeak-ng is not installed: apt install espeak-ng\n"
    assert not any(tmp_path.iterdir())


def test_the_shipped_film_is_small_and_starts_with_its_index():
    film = SHIPPED.read_bytes()
    assert len(film) <= 2_000_000
    assert SHIPPED.with_suffix(".json").stat().st_size < 10_000
    assert film.index(b"moov") < film.index(b"mdat")


def test_the_shipped_film_has_the_promised_streams():
    truth = truth_of(SHIPPED)
    with av.open(SHIPPED) as file:
        video, audio = file.streams.video[0], file.streams.audio[0]
        assert (video.codec_context.name, video.width, video.height) == ("h264", WIDTH, HEIGHT)
        assert (video.pix_fmt, video.average_rate) == ("yuv420p", 30)
        assert video.frames == round(truth["duration_s"] * FRAME_RATE)
        assert (audio.codec_context.name, audio.rate, audio.layout.name) == ("aac", 48_000, "mono")
        assert file.duration / av.time_base == pytest.approx(truth["duration_s"], abs=0.05)
        assert video.start_time == audio.start_time == 0
    assert 20 <= truth["duration_s"] <= 40
    assert (truth["width"], truth["height"], truth["frame_rate"]) == (WIDTH, HEIGHT, FRAME_RATE)


def test_the_shipped_film_can_be_entered_every_two_seconds():
    with av.open(SHIPPED) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
    assert all(packet.pts == packet.dts for packet in packets)
    keys = [i for i, packet in enumerate(packets) if packet.is_keyframe]
    assert keys[0] == 0
    assert max(b - a for a, b in pairwise([*keys, len(packets)])) <= 2 * FRAME_RATE


def test_the_shipped_film_begins_each_sound_where_the_truth_says(shipped_sound):
    loud_until_s = 0.0
    for event in truth_of(SHIPPED)["events"]:
        at = round(event["start_s"] * RATE_HZ)
        if event["start_s"] >= loud_until_s:
            assert level_dbfs(shipped_sound[at - 4_800 : at - 1_100]) < -60
            first = np.argmax(np.abs(shipped_sound[at - 480 :]) > 0.02) - 480
            assert -480 <= first <= 0.1 * RATE_HZ
        loud_until_s = max(loud_until_s, event["stop_s"])


def test_the_shipped_film_is_level_and_does_not_clip(shipped_sound):
    assert np.abs(shipped_sound).max() < 1
    for event in truth_of(SHIPPED)["events"]:
        part = shipped_sound[round(event["start_s"] * RATE_HZ) : round(event["stop_s"] * RATE_HZ)]
        assert -31 < level_dbfs(part) < -17


def test_the_shipped_film_ends_in_silence(shipped_sound):
    truth = truth_of(SHIPPED)
    assert 3.0 <= truth["duration_s"] - truth["silent_from_s"] <= 5.0
    assert np.abs(shipped_sound[round((truth["silent_from_s"] + 0.05) * RATE_HZ) :]).max() < 1e-5


def test_in_the_shipped_film_all_happens_that_the_demo_shows():
    events = truth_of(SHIPPED)["events"]
    assert {event["head"] for event in events} == {"sound", "speech"}
    sounds, names = ([e for e in events if e["head"] == head] for head in ("sound", "speech"))
    together = [(a, b) for a in sounds for b in names if a["start_s"] <= b["start_s"] < a["stop_s"]]
    assert len(together) >= 3
    assert all(a["name"] != b["name"] for a, b in together)
    for event in events:
        assert event["name"] in (event["text"].split() or [event["name"]])
        times_s = [row[0] for row in event["boxes"]]
        assert event["start_s"] - 0.02 <= times_s[0] <= times_s[-1] <= event["stop_s"]
        for _, left, top, right, bottom in event["boxes"]:
            assert 0 <= left < right <= WIDTH
            assert 0 <= top < bottom <= HEIGHT


def test_the_shipped_film_is_what_the_code_draws(shipped_film, shipped_sound):
    made_S = shipped_film.sound()
    heard_S = shipped_sound[: len(made_S)]
    assert np.corrcoef(heard_S, made_S)[0, 1] > 0.97
    wanted = {number * 150 + 20 for number in range(shipped_film.frames // 150)}
    with av.open(SHIPPED) as file:
        shown = {i: f for i, f in enumerate(file.decode(video=0)) if i in wanted}
    first = 0
    for shot in shipped_film.shots:
        for index in wanted & set(range(first, first + shot.frames)):
            drawn_HW3, _ = look(shot, PARTS, index - first)
            shown_HW3 = shown[index].to_ndarray(format="rgb24").astype(int)
            assert np.abs(shown_HW3 - drawn_HW3).mean() < 5
        first += shot.frames


def test_the_shipped_truth_is_what_the_code_says(shipped_film):
    truth, begin = truth_of(SHIPPED), 0
    events = iter(truth["events"])
    for shot in shipped_film.shots:
        for played, event in zip(shot.events, events, strict=False):
            assert (event["name"], event["head"]) == (played.name, played.head)
            for time_s, *edges in event["boxes"][:: len(event["boxes"]) - 1]:
                _, masks_NHW = look(shot, PARTS, round(time_s * FRAME_RATE) - begin)
                mask_HW = masks_NHW[shot.scene.names.index(played.name)]
                assert box(mask_HW) == pytest.approx(edges, abs=2)
        begin += shot.frames
