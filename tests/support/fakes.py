"""Stand-ins at the seams: who listens to a source, a camera, a microphone, and the clock."""

import threading
import time

import numpy as np
from numpy.typing import NDArray

from denseav.stream.errors import SourceError
from denseav.stream.types import AudioBlock, Frame, Receiver


class Collector:
    """A `Receiver` that keeps all that comes."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.blocks: list[AudioBlock] = []
        self.order: list[Frame | AudioBlock] = []
        self.came_s: list[float] = []
        self.errors: list[SourceError | None] = []
        self._changed = threading.Condition()

    def frame(self, frame: Frame) -> None:
        with self._changed:
            self.frames.append(frame)
            self._note(frame)

    def audio(self, block: AudioBlock) -> None:
        with self._changed:
            self.blocks.append(block)
            self._note(block)

    def ended(self, error: SourceError | None) -> None:
        with self._changed:
            self.errors.append(error)
            self._changed.notify_all()

    def sound(self) -> NDArray[np.float32]:
        """All sound so far, joined."""
        with self._changed:
            return np.concatenate([block.samples_SC for block in self.blocks])

    def wait_end(self, timeout_s: float = 10.0) -> SourceError | None:
        """Wait for the source's end and return its error."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.errors, timeout_s), "the source goes on"
            return self.errors[0]

    def wait_frames(self, count: int, timeout_s: float = 10.0) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.frames) >= count, timeout_s)

    def wait_sound(self, seconds: float, timeout_s: float = 10.0) -> None:
        def enough() -> bool:
            return sum(len(b.samples_SC) / b.rate_hz for b in self.blocks) >= seconds

        with self._changed:
            assert self._changed.wait_for(enough, timeout_s), "too little sound came"

    def _note(self, item: Frame | AudioBlock) -> None:
        self.order.append(item)
        self.came_s.append(time.monotonic())
        self._changed.notify_all()


class FakeSource:
    """A source without a device: the test itself gives pictures and sound through it."""

    def __init__(self, name: str = "fake") -> None:
        self.name = name
        self.stops = 0
        self.receiver: Receiver | None = None

    def start(self, receiver: Receiver) -> None:
        self.receiver = receiver

    def stop(self) -> None:
        self.stops += 1

    def end(self, error: SourceError | None = None) -> None:
        assert self.receiver is not None
        self.receiver.ended(error)


class FakeCamera(FakeSource):
    """Gives pictures when told to."""

    frames = 0

    def give(self, image_HW3: NDArray[np.uint8], capture_s: float) -> Frame:
        assert self.receiver is not None
        frame = Frame(image_HW3, self.frames, capture_s)
        self.frames += 1
        self.receiver.frame(frame)
        return frame


class FakeMicrophone(FakeSource):
    """Gives sound when told to; `skip` makes a gap."""

    rate_hz = 16_000
    samples = 0

    def give(self, samples_SC: NDArray[np.float32], capture_s: float) -> AudioBlock:
        assert self.receiver is not None
        block = AudioBlock(samples_SC, self.rate_hz, self.samples, capture_s)
        self.samples += len(samples_SC)
        self.receiver.audio(block)
        return block

    def skip(self, samples: int) -> None:
        self.samples += samples


class FakeClock:
    """Call it for the time in seconds; it stands still until moved on."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
