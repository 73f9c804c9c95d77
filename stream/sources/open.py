"""`SourceOptions` in; the cameras, microphones and files that they name out, opened."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from denseav.stream.errors import SourceError, StreamError, UsageError
from denseav.stream.options import SourceOptions
from denseav.stream.sources.camera import Camera
from denseav.stream.sources.camera_sound import CameraWithSound
from denseav.stream.sources.media_file import Clip
from denseav.stream.sources.microphone import Microphone
from denseav.stream.sources.paced_file import PacedClip
from denseav.stream.sources.recorded_run import SUFFIX, RecordedRun
from denseav.stream.sources.supervisor import SupervisedSource
from denseav.stream.stats.source_health import SourceHealth
from denseav.stream.stats.stats import Stats
from denseav.stream.types import Film, Source

ADDRESS_MAX = 4096
CAMERAS_OWN = "camera"  # as a microphone's name
NOT_YET_KNOWN = (640, 480)  # the size of pictures of which none has come
DEMO_CLIP = Path(__file__).parents[1] / "demo" / "clip.mp4"


def open_sources(options: SourceOptions, film: Film | None = None) -> list[Source]:
    """Return the film, played at its pace, or what the options name: cameras come first.

    Without a microphone that was asked for, cameras have their own sound if all of them have some;
    else they share the default microphone.

    Raises
    ------
    SourceError
        When it cannot be opened; then nothing stays open.
    """
    if film is not None:
        return [PacedClip(film)]
    if options.demo:
        return [PacedClip(Clip(DEMO_CLIP), loop=True)]
    if options.source is not None:
        return [PacedClip(open_file(options))]
    cameras: list[Camera] = []
    try:
        addresses = _addresses(options.cameras)
        on_network = all("://" in address for address in addresses)
        own = options.mic == CAMERAS_OWN or (options.mic is None and on_network)
        for address in addresses:
            camera = Camera(address, size=options.camera_size, fps=options.camera_fps, sound=own)
            cameras.append(camera)
        silent = next((each.name for each in cameras if each.sound_rate_hz is None), None)
        if options.mic == "none" or (own and silent is None):
            return [*cameras]
        if options.mic == CAMERAS_OWN:
            raise SourceError(
                f"camera {silent} sends no sound; use --mic default, another one's name, or none"
            )
        for camera in cameras:
            camera.leave_sound()
        return [*cameras, Microphone(options.mic or "default")]
    except StreamError:
        for camera in cameras:
            camera.stop()
        raise


def _addresses(specs: Sequence[str]) -> list[str]:
    addresses = [camera_address(spec) for spec in specs]
    if len(set(addresses)) < len(addresses):
        raise UsageError("the same --camera is named twice; name each once")
    return addresses


def most_microphones(options: SourceOptions) -> int:
    """Return of how many microphones audio may have to be encoded; known before any is opened."""
    local = any(spec.isdigit() or spec.startswith("/") for spec in options.cameras)
    own = options.mic == CAMERAS_OWN or (options.mic is None and not local)
    return max(1, len(options.cameras)) if own else 1


def open_file(options: SourceOptions) -> Film:
    """Return the file that the options name, with the audio that they choose, or a recorded run.

    Raises
    ------
    SourceError
        When it cannot be read.
    """
    assert options.source is not None
    if options.source.suffix.lower() == SUFFIX:
        return RecordedRun(options.source)
    return Clip(options.source, audio_track=options.audio_track, channel=options.channel)


def camera_address(spec: str) -> str:
    """Return what a camera's spec stands for: the first line of `@FILE`, or `env:NAME`.

    An address with a password need not stand in a command line, which all users of a machine see.

    Raises
    ------
    SourceError
        When there is no such file or variable, or nothing in it.
    """
    if spec.startswith("@"):
        try:
            with Path(spec[1:]).open(encoding="utf-8") as file:
                address = file.readline(ADDRESS_MAX).strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise SourceError(
                f"the camera's address cannot be read from {spec[1:]} ({reason})"
            ) from None
    elif spec.startswith("env:"):
        address = os.environ.get(spec[4:], "").strip()
    else:
        return spec
    if not address:
        raise SourceError(f"there is no camera's address in {spec.lstrip('@')}; write one there")
    return address


def supervised(sources: Sequence[Source], health: SourceHealth, stats: Stats) -> list[Source]:
    """Return the sources with each camera and microphone kept going; files just end.

    Parameters
    ----------
    sources : the cameras first.
    health : is told how they do.
    stats : takes what each microphone lost.
    """
    closed = partial(count_losses, stats)
    kept: list[Source] = []
    for number, source in enumerate(sources):
        match source:
            case Camera():
                camera = SupervisedSource("camera", source, health, closed, number)
                has_sound = source.sound_rate_hz is not None
                kept.append(CameraWithSound(camera, health, number) if has_sound else camera)
            case Microphone():
                kept.append(SupervisedSource("microphone", source, health, closed))
            case _:
                kept.append(source)
    return kept


def films_of(sources: Sequence[Source]) -> list[Film]:
    """Return what is played as if it were live."""
    return [source.clip for source in sources if isinstance(source, PacedClip)]


def camera_size(camera: Source) -> tuple[int, int]:
    """Return width and height of a camera's pictures, as they were at the start, or may be."""
    match camera:
        case (
            SupervisedSource(device=Camera() as device) | CameraWithSound(device=Camera() as device)
        ):
            return device.width, device.height
        case _:
            return NOT_YET_KNOWN


def count_losses(stats: Stats, source: Source) -> None:
    """Count what a connection that is done with has lost."""
    if isinstance(source, Microphone):
        stats.drop("microphone_overflow", source.overflows)
        stats.drop("samples_not_numbers", source.not_finite)


def described(source: Source) -> str:
    """Return a source as the READY line has it."""
    match source:
        case SupervisedSource() | CameraWithSound():
            return described(source.device)
        case Camera():
            sound = "" if source.sound_rate_hz is None else f' mic="camera"@{source.sound_rate_hz}'
            return f'camera="{source.name}"@{source.width}x{source.height}{sound}'
        case Microphone():
            return f'mic="{source.name}"@{source.rate_hz}'
        case _:
            return f'source="{source.name}"'
