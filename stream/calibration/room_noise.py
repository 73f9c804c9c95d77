"""Room noise: some seconds of sources in which nobody makes a sound in, a `Room` out.

For some seconds the sources run as live. How loud the tokens were sets the energy floor of the run,
and what the heads made of them sets thresholds that such noise stays under. A room only ever makes
a model more careful than its bundle is.

Axes: K heads, N tokens, P places.
"""

import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from denseav.export.runtime.bundle import Manifest
from denseav.export.runtime.session import AudioWay, Session
from denseav.stream.errors import SourceError, UsageError
from denseav.stream.inference.pipeline import Pipeline
from denseav.stream.types import AudioBlock, Frame, Heatmap, Receiver, Source

FLOOR_ABOVE_NOISE_DB = 6.0
LOUDEST_QUANTILE = 0.95  # of the tokens; a chair may creak
HEAT_QUANTILE = 0.99
UNSTEADY_DB = 10.0  # from the median to the loudest: that was no silence
_POLL_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Room:
    """What a room is like.

    Attributes
    ----------
    noise_dbfs : of its loudest tokens, but for one in twenty.
    unsteady_db : how much that is above the median.
    heat_K : that one in a hundred places was above, by head.
    """

    noise_dbfs: float
    unsteady_db: float
    heat_K: tuple[float, ...]

    def settle(self, manifest: Manifest) -> Manifest:
        """Return the manifest with what this room asks for."""
        floor_dbfs = round(self.noise_dbfs + FLOOR_ABOVE_NOISE_DB, 1)
        raised = {
            head.name: round(heat, 4)
            for head, heat in zip(manifest.heads, self.heat_K, strict=True)
            if heat > head.threshold
        }
        return with_settings(manifest, max(floor_dbfs, manifest.audio.energy_floor_dbfs), raised)


def with_settings(
    manifest: Manifest, energy_floor_dbfs: float | None, thresholds: Mapping[str, float]
) -> Manifest:
    """Return the manifest with another energy floor, and other thresholds of some heads.

    A head's ceiling moves as far as its threshold.

    Raises
    ------
    UsageError
        When the model has no head of that name.
    """
    names = [head.name for head in manifest.heads]
    for name in thresholds:
        if name not in names:
            raise UsageError(
                f"--threshold {name}: this model has no such head; it has {' and '.join(names)}"
            )
    heads = tuple(
        replace(head, threshold=at, ceiling=head.ceiling + at - head.threshold)
        for head in manifest.heads
        for at in [thresholds.get(head.name, head.threshold)]
    )
    audio = manifest.audio
    if energy_floor_dbfs is not None:
        audio = replace(audio, energy_floor_dbfs=energy_floor_dbfs)
    return replace(manifest, heads=heads, audio=audio)


def learn(
    sources: Sequence[Source],
    session: Session,
    manifest: Manifest,
    *,
    audio: AudioWay = "window",
    seconds: float,
    stop: threading.Event,
    cameras: int = 1,
    own_microphones: bool = False,
) -> Room | None:
    """Run the sources for so long and return what the room is like; None when told to stop.

    Of several cameras with their own sound, all are listened to. The sources are stopped after it.

    Raises
    ------
    SourceError
        When a source fails, or no sound came.
    """
    pipeline = Pipeline(
        session, manifest, audio=audio, cameras=cameras, own_microphones=own_microphones
    )
    sampler = _RoomSampler(pipeline)
    with ExitStack() as started:
        for source in sources:
            started.callback(source.stop)
        for number, source in enumerate(sources):
            source.start(_FromSource(sampler, number if number < cameras else 0))
        end_s = monotonic() + seconds
        while monotonic() < end_s and not (stop.is_set() or sampler.over.is_set()):
            sampler.sample()
    if sampler.error is not None:
        raise sampler.error
    return None if stop.is_set() else sampler.noise.room()


def words_of_room(before: Manifest, room: Room) -> str:
    """Return, for people, what was learned and how to keep it."""
    after = room.settle(before)
    said = f"the room's noise is {room.noise_dbfs:.1f} dBFS"
    if room.unsteady_db > UNSTEADY_DB:
        said += f", {room.unsteady_db:.0f} dB above its median: that was not quiet, try again"
    keep = f"--energy-floor-dbfs {after.audio.energy_floor_dbfs:g}"
    raised = [
        f"{new.name}={new.threshold:g}"
        for old, new in zip(before.heads, after.heads, strict=True)
        if new.threshold != old.threshold
    ]
    if raised:
        keep += f" --threshold {' '.join(raised)}"
    return f"{said}; to keep what was learned: {keep}"


class RoomNoise:
    """How loud heatmaps' tokens were, and what the heads made of them."""

    def __init__(self) -> None:
        self._level_db: list[float] = []
        self._heats_KP: list[NDArray[np.float32]] = []

    def add(self, heatmap: Heatmap) -> None:
        """Take a heatmap of audio in which nobody makes a sound."""
        self._level_db.append(heatmap.rms_dbfs)
        self._heats_KP.append(heatmap.heat_KHW.reshape(len(heatmap.heat_KHW), -1))

    def room(self) -> Room:
        """Return what the room is like.

        Raises
        ------
        SourceError
            When no heatmap came.
        """
        if not self._level_db:
            raise SourceError(
                "no picture with sound came while the room was to be learned; give it more "
                "seconds, or leave --calibrate out"
            )
        middle, loudest = np.quantile(self._level_db, (0.5, LOUDEST_QUANTILE))
        heat_K = np.quantile(np.concatenate(self._heats_KP, axis=1), HEAT_QUANTILE, axis=1)
        return Room(
            noise_dbfs=float(loudest),
            unsteady_db=float(loudest - middle),
            heat_K=tuple(heat_K.tolist()),
        )


class _RoomSampler:
    """A `Receiver` that takes tokens' loudness, and their heat on the newest pictures in turn."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.over = threading.Event()
        self.error: SourceError | None = None
        self._pipeline = pipeline
        self._frames: dict[int, Frame] = {}  # the newest of each camera
        self._passes = 0
        self.noise = RoomNoise()

    def frame(self, frame: Frame) -> None:
        """Take one picture."""
        self._frames[frame.camera] = frame

    def audio(self, block: AudioBlock) -> None:
        """Take some sound."""
        self._pipeline.push(block)

    def ended(self, error: SourceError | None) -> None:
        """Take note that a source gives no more."""
        self.error = self.error or error
        self.over.set()

    def sample(self) -> None:
        """Wait a moment for the next token, and take what it is."""
        frames = list(self._frames.values())
        if not frames:
            self.over.wait(_POLL_S)
        elif self._pipeline.encode_audio(_POLL_S):
            self.noise.add(self._pipeline.heatmap(frames[self._passes % len(frames)]))
            self._passes += 1


class _FromSource:
    """A `Receiver` of one of several sources, which says of what is passed on whose it is."""

    def __init__(self, receiver: Receiver, number: int) -> None:
        self._receiver = receiver
        self._number = number
        self.ended = receiver.ended

    def frame(self, frame: Frame) -> None:
        """Pass a picture on."""
        self._receiver.frame(replace(frame, camera=self._number))

    def audio(self, block: AudioBlock) -> None:
        """Pass some sound on."""
        self._receiver.audio(replace(block, microphone=self._number))
