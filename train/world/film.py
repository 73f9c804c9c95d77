"""A film of the world: a seed enters, FILM.mp4 and its truth, FILM.json, leave.

Three shots of held-out parts, cut one after the other, and silence at the end. The same seed gives
the same pictures, sound and truth; the voices depend on the version of espeak-ng, the files' bytes
on that of FFmpeg. H.264 (yuv420p, closed groups of two seconds, no B frames) and AAC, mono at
48 kHz, with the index in front. The truth:

    seed, width, height, frame_rate, duration_s
    silent_from_s    from here to the end every sample is zero (once decoded: 50 ms later)
    events           in order of start_s, each with
        name             a class of the world
        head             "sound" if it makes its own sound, "speech" if it is named
        start_s, stop_s  first and last moment heard, seconds of the film
        text             what is said, "" for a sound
        boxes            [time_s, left, top, right, bottom] twice a second, first and last frame
                         included: pixels, right and bottom just outside, of what is seen of it
        words            [text, start_s, stop_s], none for a sound

Errors
------
DataError    espeak-ng is not installed, or the files cannot be written
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from denseav.train.errors import DataError
from denseav.train.world.classes import CLASSES
from denseav.train.world.clips import AudioEvent
from denseav.train.world.library import library
from denseav.train.world.scenes import Picture
from denseav.train.world.shots import (
    FRAME_RATE,
    FRAME_SAMPLES,
    HEIGHT,
    RATE_HZ,
    WIDTH,
    Shot,
    box,
    look,
    make_shot,
)

SHOTS = (3, 4, 4)
"""How many things each has."""
SILENT_S = 3.5
BOX_EVERY_FRAMES = FRAME_RATE // 2
VIDEO_OPTIONS = {"crf": "25", "preset": "slow", "g": str(2 * FRAME_RATE), "bf": "0"}
AUDIO_BITS_PER_S = 80_000

_FILM = 7
Box = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Film:
    """Shots one after the other."""

    seed: int
    shots: tuple[Shot, ...]

    @property
    def frames(self) -> int:
        """Return how many there are."""
        return sum(shot.frames for shot in self.shots)

    def pictures(self) -> Iterator[tuple[Picture, dict[str, NDArray[np.bool_]]]]:
        """Draw every frame, uint8 [H, W, 3], and where each thing of it is seen, bool [H, W]."""
        parts = library(held_out=True)
        for shot in self.shots:
            for index in range(shot.frames):
                picture_HW3, masks_NHW = look(shot, parts, index)
                yield picture_HW3, dict(zip(shot.scene.names, masks_NHW, strict=True))

    def sound(self) -> NDArray[np.float32]:
        """Return all that is heard, float32 [S] at 48 kHz."""
        return np.concatenate([shot.wave_S for shot in self.shots])

    def events(self) -> list[tuple[float, AudioEvent]]:
        """Return what is heard in order, each with when its shot begins, in seconds."""
        found, begin_s = [], 0.0
        for shot in self.shots:
            found += [(begin_s, event) for event in shot.events]
            begin_s += shot.frames / FRAME_RATE
        return found


def make_film(seed: int) -> Film:
    """Return the film of a seed.

    Raises
    ------
    DataError
        If espeak-ng is not installed.
    """
    random = np.random.default_rng([seed, _FILM])
    cast = [str(name) for name in random.permutation(CLASSES)]
    shots = []
    for number, things in enumerate(SHOTS):
        last = number == len(SHOTS) - 1
        names, cast = cast[:things], cast[things:]
        shots.append(make_shot(random, library(held_out=True), names, SILENT_S if last else 0.0))
    return Film(seed=seed, shots=tuple(shots))


def save_film(film: Film, path: Path, indices: Iterable[int]) -> None:
    """Write a film to `path` and its truth beside it, as .json; both whole or not at all.

    Parameters
    ----------
    film, path : what, and where.
    indices : counts through the frames, and may show how far it has come.

    Raises
    ------
    DataError
        If they cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    truth_part = path.with_name(f".{path.stem}.json.part")
    try:
        truth = describe(film, _write(part, film, indices))
        truth_part.write_text(json.dumps(truth) + "\n")
        truth_part.replace(path.with_suffix(".json"))
        part.replace(path)
    except (OSError, av.FFmpegError) as error:
        raise DataError(f"cannot write {path}: {error.strerror}; choose another --out") from error
    finally:
        part.unlink(missing_ok=True)
        truth_part.unlink(missing_ok=True)


def describe(film: Film, boxes: Sequence[dict[str, Box]]) -> dict[str, Any]:
    """Return the truth of a film from every frame's boxes."""
    events = film.events()
    return {
        "seed": film.seed,
        "width": WIDTH,
        "height": HEIGHT,
        "frame_rate": FRAME_RATE,
        "duration_s": round(film.frames / FRAME_RATE, 3),
        "silent_from_s": round(max(begin_s + event.stop_s for begin_s, event in events), 3),
        "events": [
            event_truth(begin_s, event, dict(enumerate(boxes))) for begin_s, event in events
        ],
    }


def event_truth(
    begin_s: float, event: AudioEvent, boxes: Mapping[int, dict[str, Box]]
) -> dict[str, Any]:
    """Return the truth of one event.

    Parameters
    ----------
    begin_s : when its shot begins.
    event : what is heard, in seconds of the shot.
    boxes : of every frame, by its number from when `begin_s` is counted.
    """
    start_s, stop_s = begin_s + event.start_s, begin_s + event.stop_s
    first, last = round(start_s * FRAME_RATE), int(stop_s * FRAME_RATE)
    seen = [i for i in (*range(first, last, BOX_EVERY_FRAMES), last) if event.name in boxes[i]]
    return {
        "name": event.name,
        "head": event.head,
        "start_s": round(start_s, 3),
        "stop_s": round(stop_s, 3),
        "text": " ".join(word.text for word in event.words),
        "boxes": [[round(i / FRAME_RATE, 3), *boxes[i][event.name]] for i in seen],
        "words": [
            [word.text, round(begin_s + word.start_s, 3), round(begin_s + word.stop_s, 3)]
            for word in event.words
        ],
    }


def _write(path: Path, film: Film, indices: Iterable[int]) -> list[dict[str, Box]]:
    """Draw, encode and mux frame by frame; return each frame's boxes."""
    boxes, sound_S = [], film.sound()
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with av.open(path, "w", format="mp4", options=options) as file:
        video, audio = add_video(file, VIDEO_OPTIONS), add_audio(file)
        for index, (picture_HW3, masks) in zip(indices, film.pictures(), strict=True):
            boxes.append(boxes_of(masks))
            file.mux(video.encode(video_frame(picture_HW3, index)))
            first = index * FRAME_SAMPLES
            file.mux(audio.encode(audio_frame(sound_S[first : first + FRAME_SAMPLES], first)))
        file.mux(video.encode(None))
        file.mux(audio.encode(None))
    return boxes


def boxes_of(masks: dict[str, NDArray[np.bool_]]) -> dict[str, Box]:
    """Return the boxes of what is seen."""
    boxes = {name: box(mask_HW) for name, mask_HW in masks.items()}
    return {name: edges for name, edges in boxes.items() if edges is not None}


def add_video(container: OutputContainer, options: dict[str, str]) -> VideoStream:
    """Add a stream of H.264 pictures."""
    video = container.add_stream("libx264", rate=FRAME_RATE, options=options)
    video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    return video


def add_audio(container: OutputContainer) -> AudioStream:
    """Add a stream of AAC sound, mono at 48 kHz."""
    audio = container.add_stream("aac", rate=RATE_HZ, layout="mono")
    audio.bit_rate = AUDIO_BITS_PER_S
    return audio


def video_frame(picture_HW3: Picture, index: int) -> av.VideoFrame:
    """Return a picture, uint8 [H, W, 3] red green blue, as the frame of an index."""
    frame = av.VideoFrame.from_ndarray(picture_HW3, format="rgb24")
    frame.pts = index
    return frame


def audio_frame(samples_S: NDArray[np.float32], first: int) -> av.AudioFrame:
    """Return sound, float32 [S] at 48 kHz, whose first sample has this number."""
    frame = av.AudioFrame.from_ndarray(samples_S[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts = RATE_HZ, first
    return frame
