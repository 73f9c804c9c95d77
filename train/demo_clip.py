"""The demonstration clip: `python -m denseav.train.demo_clip OUT.mp4` renders it.

A script enters, OUT.mp4 and OUT.json leave: a picture in which a drum, a bell, a bird and a toy car
sound, are named by a voice, do both at once and at last fall silent; and who was heard where. The
same seed gives the same pictures and instruments; the voice and the files' bytes depend on the
versions of espeak-ng and FFmpeg.

The film is H.264 (yuv420p, closed groups of two seconds, no B frames) and AAC, mono at 48 kHz, with
its index in front. The truth in OUT.json:

    seed, width, height, frame_rate, duration_s
    silent_from_s    from here to the end every sample is zero (once decoded: 50 ms later)
    events           in order of start_s, each with
        name             "drum", "bell", "bird" or "car"
        head             "sound" if it makes its own sound, "speech" if it is named
        start_s, stop_s  first and last moment heard, seconds of the clip
        text             what is said, "" for a sound
        boxes            [time_s, left, top, right, bottom] twice a second, first and last frame
                         included; pixels, right and bottom just outside; what hides behind
                         another object is included, sticks, smoke and shadows are not
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from denseav.train.demo_paint import Box
from denseav.train.demo_scene import HEIGHT, WIDTH, Scene
from denseav.train.demo_script import SCRIPT, Event, Script
from denseav.train.demo_sounds import RATE_HZ, ClipError, synthesise

FRAME_RATE = 30
FRAME_SAMPLES = RATE_HZ // FRAME_RATE
BOX_EVERY_FRAMES = FRAME_RATE // 2
VIDEO_OPTIONS = {"crf": "23", "preset": "slow", "g": str(2 * FRAME_RATE), "bf": "0"}
AUDIO_BITS_PER_S = 80_000


def render_clip(path: Path, script: Script, seed: int, *, quiet: bool = True) -> None:
    """Write the clip to `path` and its truth beside it, as .json; both whole or not at all.

    Raises
    ------
    ClipError
        If espeak-ng is missing or fails, or the files cannot be written.
    """
    sound_S, heard = synthesise(script, seed)
    scene = Scene(script, seed)
    indices = range(round(script.duration_s * FRAME_RATE))
    bar = track(indices, "Drawing", console=Console(stderr=True), disable=quiet)
    part, truth_part = (
        path.with_name(f".{path.name}.part"),
        path.with_name(f".{path.stem}.json.part"),
    )
    try:
        boxes = _write_film(part, scene, sound_S, bar)
        truth_part.write_text(json.dumps(describe(heard, boxes, seed)) + "\n")
        truth_part.replace(path.with_suffix(".json"))
        part.replace(path)
    except (OSError, av.FFmpegError) as error:
        raise ClipError(f"cannot write {path}: {error.strerror}; choose another place") from error
    finally:
        part.unlink(missing_ok=True)
        truth_part.unlink(missing_ok=True)


def describe(heard: Script, boxes: Sequence[dict[str, Box]], seed: int) -> dict[str, object]:
    """Return the truth of a clip from the script as heard and every frame's boxes."""
    return {
        "seed": seed,
        "width": WIDTH,
        "height": HEIGHT,
        "frame_rate": FRAME_RATE,
        "duration_s": heard.duration_s,
        "silent_from_s": max(event.stop_s for event in heard.events),
        "events": [asdict(event) | {"boxes": _track(event, boxes)} for event in heard.events],
    }


def _track(event: Event, boxes: Sequence[dict[str, Box]]) -> list[list[float]]:
    """Return where the event's object is while it is heard: time and box."""
    first, last = round(event.start_s * FRAME_RATE), int(event.stop_s * FRAME_RATE)
    chosen = [*range(first, last, BOX_EVERY_FRAMES), last]
    return [[round(i / FRAME_RATE, 3), *boxes[i][event.name]] for i in chosen]


def _write_film(
    path: Path, scene: Scene, sound_S: NDArray[np.float32], indices: Iterable[int]
) -> list[dict[str, Box]]:
    """Draw, encode and mux frame by frame; return each frame's boxes."""
    boxes = []
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with av.open(path, "w", format="mp4", options=options) as film:
        video, audio = _add_video(film), _add_audio(film)
        for index in indices:
            picture_HW3, frame_boxes = scene.draw(index / FRAME_RATE)
            boxes.append(frame_boxes)
            frame = av.VideoFrame.from_ndarray(picture_HW3, format="bgr24")
            frame.pts = index
            film.mux(video.encode(frame))
            first = index * FRAME_SAMPLES
            film.mux(audio.encode(_audio_frame(sound_S[first : first + FRAME_SAMPLES], first)))
        film.mux(video.encode(None))
        film.mux(audio.encode(None))
    return boxes


def _add_video(film: OutputContainer) -> VideoStream:
    video = film.add_stream("libx264", rate=FRAME_RATE, options=VIDEO_OPTIONS)
    video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    return video


def _add_audio(film: OutputContainer) -> AudioStream:
    audio = film.add_stream("aac", rate=RATE_HZ, layout="mono")
    audio.bit_rate = AUDIO_BITS_PER_S
    return audio


def _audio_frame(samples_S: NDArray[np.float32], first: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(samples_S[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts = RATE_HZ, first
    return frame


def main(arguments: Sequence[str] | None = None) -> int:
    """Render the clip the command line asks for; return 0, or 1 after one line on stderr."""
    parser = argparse.ArgumentParser(prog="demo_clip", description="Render the demonstration clip.")
    parser.add_argument("out", type=Path, metavar="OUT.mp4", help="the truth goes to OUT.json")
    parser.add_argument("--seed", type=int, default=0, help="another picture (default: 0)")
    options = parser.parse_args(arguments)
    try:
        render_clip(options.out, SCRIPT, options.seed, quiet=False)
    except ClipError as error:
        sys.stderr.write(f"demo_clip: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
