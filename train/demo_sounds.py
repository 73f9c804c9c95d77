"""What the demonstration clip sounds like: four synthesised instruments and a voice.

A script enters; one mono wave leaves, and when each event was truly heard. The instruments are made
here from sines and noise; the voice is the `espeak-ng` program, whose version decides its exact
samples. Axes: S samples.

Errors
------
ClipError    espeak-ng is missing or failed
"""

import subprocess
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soxr
from numpy.random import Generator
from numpy.typing import NDArray

from denseav.train.demo_script import Event, Script

RATE_HZ = 48_000
LEVEL_DBFS = -20.0
PEAK = 0.6  # a limiter's ceiling: two sounds at once stay below full scale
FADE_IN_S = 0.004
FADE_OUT_S = 0.12
VOICES = ("en-us+f3", "en-us")

Wave = NDArray[np.float64]
Hit = Callable[[Wave], Wave]
"""Gives the wave of one beat at the seconds since that beat."""


class ClipError(Exception):
    """The clip cannot be made; one line that says what to do."""


def synthesise(script: Script, seed: int) -> tuple[NDArray[np.float32], Script]:
    """Return the clip's sound and the script as it is heard, each event ending with its wave.

    The sound is float32 [S] at 48 kHz, exactly zero where nothing sounds.

    Raises
    ------
    ClipError
        If a text has to be spoken and espeak-ng cannot.
    """
    mix_S = np.zeros(round(script.duration_s * RATE_HZ))
    heard = []
    for index, event in enumerate(script.events):
        wave_S = perform(event, np.random.default_rng((seed, index)), VOICES[index % 2])
        first = round(event.start_s * RATE_HZ)
        mix_S[first : first + len(wave_S)] += wave_S
        heard.append(replace(event, stop_s=round((first + len(wave_S)) / RATE_HZ, 3)))
    return mix_S.astype(np.float32), replace(script, events=tuple(heard))


def perform(event: Event, rng: Generator, voice: str) -> Wave:
    """Return one event's wave, [S] at 48 kHz: levelled, faded, no longer than the event."""
    room = round((event.stop_s - event.start_s) * RATE_HZ)
    if event.head == "speech":
        return _level(_speak(event.text, voice)[:room])
    if event.name == "car":
        return _level(_engine(room, rng))
    hit = STRUCK[event.name](rng)
    wave_S = np.zeros(room)
    for beat_s in event.beats_s():
        first = round((beat_s - event.start_s) * RATE_HZ)
        wave_S[first:] += hit(np.arange(room - first) / RATE_HZ)
    return _level(wave_S)


def _level(wave_S: Wave) -> Wave:
    """Bring the wave to the common level, limit its peaks softly and fade its two ends."""
    rms = np.sqrt(np.mean(wave_S**2))
    loud_S = PEAK * np.tanh(wave_S * 10 ** (LEVEL_DBFS / 20) / rms / PEAK)
    position_S = np.arange(len(wave_S)) / RATE_HZ
    opening_S = np.clip(position_S / FADE_IN_S, 0, 1)
    closing_S = np.clip((position_S[-1] - position_S) / FADE_OUT_S, 0, 1)
    faded: Wave = loud_S * opening_S * closing_S**2
    return faded


def _drum(rng: Generator) -> Hit:
    """Return a small drum: three modes of a membrane, falling in pitch, and the stick's noise."""

    def hit(time_S: Wave) -> Wave:
        turns_S = 150 * time_S + 3.2 * (1 - np.exp(-time_S / 0.03))
        modes_S = sum(
            gain * np.sin(2 * np.pi * ratio * turns_S) * np.exp(-time_S / decay_s)
            for ratio, gain, decay_s in ((1.0, 1.0, 0.16), (1.594, 0.6, 0.1), (2.136, 0.4, 0.07))
        )
        return modes_S + _soft_noise(len(time_S), rng) * np.exp(-time_S / 0.05)

    return hit


def _bell(rng: Generator) -> Hit:
    """Return a bell: the partials of a tuned bell, the higher ones dying sooner."""
    ratios_P = np.array([0.5, 1.0, 1.2, 1.5, 2.0, 2.51, 3.01, 4.17, 5.43])
    gains_P = np.array([0.5, 1.0, 0.8, 0.5, 1.0, 0.5, 0.45, 0.3, 0.2])
    phases_P = rng.uniform(0, 2 * np.pi, len(ratios_P))

    def hit(time_S: Wave) -> Wave:
        total_S = np.zeros(len(time_S))
        for ratio, gain, phase in zip(ratios_P, gains_P, phases_P, strict=True):
            tone_S = np.sin(2 * np.pi * 640 * ratio * time_S + phase)
            total_S += gain * tone_S * np.exp(-time_S * (0.7 + 0.9 * ratio))
        return total_S

    return hit


def _bird(rng: Generator) -> Hit:
    """Return birdsong: one whistled note a beat, bent up or down, with a trill on top."""

    def note(time_S: Wave) -> Wave:
        length_s, low_hz, bend_hz = 0.2, rng.uniform(2_700, 3_300), rng.uniform(900, 2_000)
        place_S = np.clip(time_S / length_s, 0, 1)
        pitch_S = low_hz + bend_hz * np.sin(np.pi * place_S**0.7)
        pitch_S += 180 * np.sin(2 * np.pi * 32 * time_S)
        turns_S = np.cumsum(pitch_S) / RATE_HZ
        whistle_S = np.sin(2 * np.pi * turns_S) + 0.12 * np.sin(4 * np.pi * turns_S)
        shaped: Wave = whistle_S * np.sin(np.pi * np.sqrt(place_S)) ** 2
        return shaped

    return note


def _engine(samples: int, rng: Generator) -> Wave:
    """Return a small engine that speeds up and slows down: a puff and a rasp at every firing."""
    place_S = np.linspace(0, 1, samples)
    firing_hz_S = 24 + 34 * np.sin(np.pi * place_S) ** 0.8
    turns_S = np.cumsum(firing_hz_S) / RATE_HZ
    since_S = np.mod(turns_S, 1.0)
    puff_S = np.exp(-6 * since_S) * np.sin(2 * np.pi * 3 * since_S)
    rasp_S = _soft_noise(samples, rng)
    uneven_S = 1 + 0.25 * np.sin(np.pi * turns_S)
    hum_S = 0.3 * np.sin(4 * np.pi * turns_S) + 0.2 * np.sin(10 * np.pi * turns_S)
    engine: Wave = uneven_S * (puff_S + 1.8 * rasp_S * np.exp(-4 * since_S)) + hum_S
    return engine


def _soft_noise(samples: int, rng: Generator) -> Wave:
    """Return noise [S] that falls off above some 4 kHz."""
    return np.convolve(rng.standard_normal(samples), np.hanning(13) / 6.5, mode="same")


STRUCK: dict[str, Callable[[Generator], Hit]] = {"drum": _drum, "bell": _bell, "bird": _bird}


def _speak(text: str, voice: str) -> Wave:
    """Return `text` spoken by espeak-ng, [S] at 48 kHz, without the silence round it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        command = ["espeak-ng", "-v", voice, "-s", "125", "-w", str(path), text]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise ClipError("espeak-ng is not installed: apt install espeak-ng") from error
        except subprocess.CalledProcessError as error:
            raise ClipError(f"espeak-ng failed: {error.stderr.strip()}") from error
        with wave.open(str(path)) as file:
            rate_hz = file.getframerate()
            samples_S = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2") / 32_768
    loud = np.flatnonzero(np.abs(samples_S) > 0.01)
    spoken: Wave = soxr.resample(samples_S[loud[0] : loud[-1] + 1], rate_hz, RATE_HZ)
    return spoken
