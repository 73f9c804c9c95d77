"""A supervised camera with its own sound: frames and audio through, and how the sound does.

Both come by one connection, so that the camera's supervisor opens both again; what the sound does
meanwhile, as long as pictures come, is a state of its own.
"""

from time import monotonic

from denseav.stream.errors import SourceError
from denseav.stream.sources.supervisor import STALLED_S, ZEROS_S, SupervisedSource
from denseav.stream.stats.source_health import SourceHealth, SourceState, State
from denseav.stream.types import AudioBlock, Frame, Receiver

GAP_S = 0.5  # without audio, after which what comes is a new beginning


class CameraWithSound:
    """A `Source` of a camera's frames and audio, which ends only when it is stopped.

    Parameters
    ----------
    camera : supervised, not started.
    health : is told the microphone's states.
    number : which of a run's cameras, and so of its microphones, it is.
    """

    def __init__(self, camera: SupervisedSource, health: SourceHealth, number: int = 0) -> None:
        self.name = camera.name
        self.device = camera.device
        self._camera = camera
        self._number = number
        self._health = health
        self._receiver: Receiver | None = None
        self._state = State.OPENING
        self._losses = 0
        self._last: AudioBlock | None = None
        self._came_s = 0.0
        self._zeros_from_s: float | None = None

    def start(self, receiver: Receiver) -> None:
        """Begin to give what the camera gives."""
        self._receiver = receiver
        self._enter(State.OPENING, monotonic())
        self._camera.start(self)

    def stop(self) -> None:
        """Stop and release the camera. May be called twice."""
        self._camera.stop()

    def frame(self, frame: Frame) -> None:
        """Take one picture, and see whether sound still comes beside it."""
        silent_s = monotonic() - self._came_s
        if self._state in (State.RUNNING, State.MUTED) and silent_s > 2 * STALLED_S["microphone"]:
            self._losses += 1
            line = f"the sound of camera {self.name} has stalled; nothing comes of it"
            self._enter(State.STALLED, monotonic() - silent_s, line)
        assert self._receiver is not None
        self._receiver.frame(frame)

    def audio(self, block: AudioBlock) -> None:
        """Take some sound."""
        if self._last is not None and block.capture_s - self._last.end_s > GAP_S:
            self._enter(
                State.STALLED, self._last.end_s, f"the sound of camera {self.name} was lost"
            )
        self._last, self._came_s = block, monotonic()
        if block.samples_SC.any():
            self._zeros_from_s = None
        elif self._zeros_from_s is None:
            self._zeros_from_s = block.capture_s
        muted = self._zeros_from_s is not None and block.end_s - self._zeros_from_s > ZEROS_S
        state = State.MUTED if muted else State.RUNNING
        if state is not self._state:
            line = f"the sound of camera {self.name} is all zeros; unmute it" if muted else ""
            self._enter(state, block.capture_s, line)
        assert self._receiver is not None
        self._receiver.audio(block)

    def ended(self, error: SourceError | None) -> None:
        """Take note that the camera gives no more."""
        assert self._receiver is not None
        self._receiver.ended(error)

    def _enter(self, state: State, since_s: float, reason: str = "") -> None:
        self._state = state
        self._health.enter(
            SourceState(
                kind="microphone",
                name=f"of {self.name}",
                state=state,
                since_s=since_s,
                reason=reason,
                losses=self._losses,
                number=self._number,
            )
        )
