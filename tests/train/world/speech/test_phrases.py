import ctypes.util
import os
import threading

import numpy as np
import pytest

from denseav.models.audio_encoder import SAMPLE_RATE_HZ
from denseav.train.data.workers import STOP_SIGNALS
from denseav.train.errors import DataError
from denseav.train.world.classes import CLASSES
from denseav.train.world.sounds.classes import sound
from denseav.train.world.sounds.level import LEVEL_DBFS, active_rms
from denseav.train.world.speech import espeak
from denseav.train.world.speech.espeak import Manner, utter
from denseav.train.world.speech.phrases import LONGEST_S, SHORTEST_S, speak, voices
from tests.support.train.world_hearing import accuracy, course

needs_voice = pytest.mark.skipif(
    ctypes.util.find_library("espeak-ng") is None, reason="espeak-ng is not installed"
)
PLAIN = Manner(voice="en-us+m1", speed_wpm=150, pitch=50, range=50)


def say(name, seed, *, held_out=False):
    return speak(name, np.random.default_rng(seed), held_out=held_out)


def dbfs(rms):
    return 20 * np.log10(rms)


def name_word(spoken):
    (word,) = [word for word in spoken.words if word.text in CLASSES]
    return word


def cut(spoken, word):
    return spoken.wave_S[round(word.start_s * SAMPLE_RATE_HZ) : round(word.stop_s * SAMPLE_RATE_HZ)]


@pytest.fixture(scope="module")
def phrases():
    return [
        (name, say(name, (index, seed), held_out=bool(seed % 2)))
        for index, name in enumerate(CLASSES)
        for seed in range(6)
    ]


@needs_voice
def test_speech_is_short_at_the_level_and_below_full_scale(phrases):
    for _, spoken in phrases:
        assert spoken.wave_S.dtype == np.float32
        assert SHORTEST_S <= len(spoken.wave_S) / SAMPLE_RATE_HZ <= LONGEST_S
        assert np.abs(spoken.wave_S).max() < 1
        assert dbfs(active_rms(spoken.wave_S)) == pytest.approx(LEVEL_DBFS, abs=0.5)


@needs_voice
def test_speech_and_sound_are_equally_loud_even_without_a_gate(phrases):
    spoken = [dbfs(np.sqrt(np.mean(s.wave_S**2))) for _, s in phrases]
    played = [
        dbfs(np.sqrt(np.mean(sound(name, np.random.default_rng(7), 1.0, held_out=False) ** 2)))
        for name in CLASSES
    ]
    assert np.mean(spoken) == pytest.approx(np.mean(played), abs=1.5)


@needs_voice
def test_the_words_make_up_the_text_and_fill_the_wave_in_order(phrases):
    for name, spoken in phrases:
        assert " ".join(word.text for word in spoken.words) == spoken.text
        assert name in spoken.text.split()
        assert spoken.words[0].start_s == pytest.approx(0, abs=0.05)
        assert spoken.words[-1].stop_s == pytest.approx(
            len(spoken.wave_S) / SAMPLE_RATE_HZ, abs=0.001
        )
        for word, following in zip(spoken.words, spoken.words[1:], strict=False):
            assert word.start_s < word.stop_s <= following.start_s


@needs_voice
def test_the_article_fits_the_name():
    texts = {name: " ".join(say(name, seed).text for seed in range(30)) for name in ("owl", "bell")}
    assert "an owl" in texts["owl"]
    assert "a owl" not in texts["owl"]
    assert "a bell" in texts["bell"]
    assert "an bell" not in texts["bell"]


@needs_voice
def test_the_name_is_heard_where_it_is_said(phrases):
    for _, spoken in phrases:
        word = name_word(spoken)
        assert word.stop_s - word.start_s > 0.1
        assert dbfs(np.sqrt(np.mean(cut(spoken, word) ** 2))) > LEVEL_DBFS - 7


@needs_voice
def test_word_times_are_exact_after_a_silence_of_known_length():
    said = utter("frog, frog", PLAIN)
    (_, (_, second)) = said.words
    loud = np.abs(said.wave_S) > 0.03 * np.abs(said.wave_S.astype(float)).max()
    before, after = np.flatnonzero(loud[:second])[-1], np.flatnonzero(loud[second:])[0]
    assert (second - before) / said.rate_hz > 0.1
    assert after / said.rate_hz < 0.15


@needs_voice
def test_a_seed_gives_the_same_bytes_whatever_was_said_before():
    first = say("kettle", 3)
    for seed in range(4, 9):
        say("rocket", seed, held_out=True)
    again = say("kettle", 3)
    assert first.wave_S.tobytes() == again.wave_S.tobytes()
    assert (first.text, first.voice, first.words) == (again.text, again.voice, again.words)
    assert say("kettle", 4).wave_S.tobytes() != first.wave_S.tobytes()


def test_voices_of_the_splits_are_disjoint_down_to_the_throat():
    train, held_out = voices(held_out=False), voices(held_out=True)
    assert len(train) > 30
    assert len(held_out) > 15
    throats = [{voice.split("+")[1] for voice in split} for split in (train, held_out)]
    assert not throats[0] & throats[1]


@needs_voice
@pytest.mark.parametrize("held_out", [False, True])
def test_every_voice_exists_and_speaks(held_out):
    for voice in voices(held_out=held_out):
        said = utter("bell", Manner(voice=voice, speed_wpm=150, pitch=50, range=50))
        assert np.abs(said.wave_S.astype(float)).max() > 3_000


@needs_voice
def test_an_ear_that_heard_training_tells_held_out_names_apart():
    features, labels = [], []
    for held_out in (False, True):
        for index, name in enumerate(CLASSES):
            for seed in range(14):
                spoken = say(name, (index, seed, 1), held_out=held_out)
                features.append(course(cut(spoken, name_word(spoken))))
                labels.append(index)
    features, labels, half = np.array(features), np.array(labels), len(labels) // 2
    share = accuracy(features[:half], labels[:half], features[half:], labels[half:])
    assert share > 0.75, "chance is 0.0625"


@needs_voice
def test_threads_share_the_voice_without_mixing_their_words():
    alone = [utter(name, PLAIN).wave_S.tobytes() for name in CLASSES[:6]]
    together = [b""] * 6

    def work(index):
        together[index] = utter(CLASSES[index], PLAIN).wave_S.tobytes()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


@needs_voice
def test_a_fork_of_the_process_speaks_for_itself():
    alone = utter("owl", PLAIN).wave_S.tobytes()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, b"1" if utter("owl", PLAIN).wave_S.tobytes() == alone else b"0")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(read, 1) == b"1"
    os.close(read)
    os.close(write)


@needs_voice
@needs_voice
def test_a_signal_to_the_whole_group_leaves_the_voice_to_its_run():
    expected = utter("a bell", PLAIN).wave_S
    process = espeak._espeak(os.getpid())._process
    for number in STOP_SIGNALS:
        process.send_signal(number)
    assert np.array_equal(utter("a bell", PLAIN).wave_S, expected)
    assert process.poll() is None


@needs_voice
def test_an_unknown_voice_is_named():
    with pytest.raises(DataError, match="no voice tlh"):
        utter("bell", Manner(voice="tlh", speed_wpm=150, pitch=50, range=50))
    assert len(utter("bell", PLAIN).wave_S)


def test_a_missing_library_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(ctypes.util, "find_library", lambda _: None)
    espeak._espeak.cache_clear()
    with pytest.raises(DataError, match="apt install espeak-ng") as raised:
        say("bell", 0)
    assert "\n" not in str(raised.value)
