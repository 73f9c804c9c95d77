"""A device that may fail in, a source that goes on out: it is opened again until it is back.

On a thread of its own, with back-off. What the connections give is joined: frames are counted on,
and the sound that was missed is as many missing samples. Nothing is made up meanwhile: without a
camera there are no frames.
"""

import dataclasses
import math
import random
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from threading import Event, Lock, current_thread
from time import monotonic
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from denseav.stream.errors import SourceError, UnexpectedSourceError
from denseav.stream.sources.source_thread import SourceThread
from denseav.stream.stats.source_health import Kind, SourceHealth, SourceState, State
from denseav.stream.types import AudioBlock, Frame, Receiver, Source

STALLED_S = {"camera": 1.0, "microphone": 0.5}
GIVEN_UP_S = 1.5  # what stalled for so long is opened anew
SLOW = 3.0  # a source is given this many times its last pause, or its usual one
LEARNED_S = 6.0  # until then, a camera's pace is not known …
UNKNOWN_S = 6.0  # … and it is given so long, for some send a picture every two seconds
REPEATED_S = 10.0  # no new picture for so long is no live camera's
REPEATED_MAX = 4  # different pictures that a frozen camera's buffers repeat
ZEROS_S = 3.0
FIRST_DELAY_S, LAST_DELAY_S, JITTER = 0.25, 1.0, 0.25  # from attempt to attempt
LEAST_DELAY_S = 0.1  # after an attempt that took long
HEALTHY_S = 5.0  # what gave something for so long is opened again without much delay
POLL_S = 0.05
STOP_TIMEOUT_S = 1.5
LEAVE_S = 0.1


class Device(Source, Protocol):
    """A source that can be opened again."""

    def stop(self, timeout_s: float = ...) -> None:
        """Stop and release the device; one that does not answer releases itself later."""

    def again(self) -> Self:
        """Open the same device anew; SourceError while that is impossible."""


class BackOff:
    """How long to wait before each attempt: longer each time, and never the same for everybody."""

    def __init__(self) -> None:
        self._delay_s = FIRST_DELAY_S

    def next_s(self) -> float:
        """Return the seconds to wait now."""
        delay_s = self._delay_s * random.uniform(1 - JITTER, 1 + JITTER)
        self._delay_s = min(2 * self._delay_s, LAST_DELAY_S)
        return delay_s

    def reset(self) -> None:
        """Begin with short delays again."""
        self._delay_s = FIRST_DELAY_S


class SupervisedSource:
    """A camera or microphone kept going: a `Source` that ends only when it is stopped.

    Parameters
    ----------
    kind : which of the two.
    device : opened, not started.
    health : is told every change of state.
    closed : is given each connection of the device when it is done with.
    number : which of a run's cameras it is.
    """

    def __init__(
        self,
        kind: Kind,
        device: Device,
        health: SourceHealth,
        closed: Callable[[Source], None],
        number: int = 0,
    ) -> None:
        self.name = device.name
        self.device = device
        self._kind = kind
        self._number = number
        self._health = health
        self._closed = closed
        self._back_off = BackOff()
        self._stopping = Event()
        self._thread: SourceThread | None = None
        self._lock = Lock()  # of the state
        self._state = State.OPENING
        self._losses = 0
        self._splicer = Splicer(number)
        self._connection: Connection | None = None

    def start(self, receiver: Receiver) -> None:
        """Begin to give what the device gives."""
        self._enter(State.OPENING, monotonic())
        self._thread = SourceThread(
            f"{self._kind} {self.name}", partial(self._keep, receiver), receiver.ended
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop and release the device. May be called twice."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        if self._thread is None:
            self._close()
        elif self._thread is not current_thread():
            self._thread.join(STOP_TIMEOUT_S)

    @property
    def current(self) -> "Connection | None":
        """The connection whose frames and audio still count."""
        return self._connection

    def accept(self, connection: "Connection", state: State, since_s: float) -> bool:
        """Hear from a connection that something has come; return whether that still counts."""
        with self._lock:
            if connection is not self._connection:
                return False
            connection.note()
            if self._state is not state:
                self._enter(state, since_s, self._reason(state))
            return True

    def _keep(self, receiver: Receiver) -> None:
        try:
            while not self._stopping.is_set():
                self._run_once(receiver)
        except Exception:
            with self._lock:
                self._connection = None  # what still comes is nobody's
            self.device.stop(LEAVE_S)
            raise

    def _run_once(self, receiver: Receiver) -> None:
        """Give what one connection gives, and open the device again when it gives nothing more."""
        connection = Connection(self, self._kind, self._splicer, receiver)
        self._connection = connection
        self.device.start(connection)
        reason = self._watch(connection)
        with self._lock:
            self._connection = None
        self._close()
        if connection.lasted_s > HEALTHY_S:
            self._back_off.reset()
        if reason is not None:
            self._lose(reason)
            self._reopen()

    def _watch(self, connection: "Connection") -> str | None:
        """Return why the device has ceased to give anything, or None when told to stop.

        Raises
        ------
        UnexpectedSourceError
            When the device's thread failed in a way that opening it again does not mend.
        """
        while not self._stopping.is_set():
            if connection.over.wait(POLL_S):
                if isinstance(connection.error, UnexpectedSourceError):
                    raise connection.error
                return str(connection.error or self._reason(State.LOST))
            with self._lock:
                silent_s, stalled_s = connection.silent_s, STALLED_S[self._kind]
                patience_s = connection.patience_s(self._kind)
                if silent_s > max(GIVEN_UP_S, patience_s + GIVEN_UP_S - stalled_s):
                    return self._reason(State.LOST)
                if silent_s > max(stalled_s, patience_s):
                    self._stall(silent_s)
        return None

    def _stall(self, silent_s: float) -> None:
        if self._state in (State.RUNNING, State.MUTED, State.FROZEN):
            self._enter(State.STALLED, monotonic() - silent_s, self._reason(State.STALLED))

    def _lose(self, reason: str) -> None:
        with self._lock:
            if self._state is State.LOST:
                return
            self._losses += 1
            self._enter(State.LOST, monotonic(), f"{reason}; it is opened again until it is back")

    def _reopen(self) -> None:
        took_s = 0.0
        while not self._stopping.wait(max(LEAST_DELAY_S, self._back_off.next_s() - took_s)):
            begun_s = monotonic()
            try:
                self.device = self.device.again()
            except SourceError:
                took_s = monotonic() - begun_s
                continue
            if self._stopping.is_set():
                self._close()
            return

    def _close(self) -> None:
        self.device.stop(STOP_TIMEOUT_S if self._stopping.is_set() else LEAVE_S)
        self._closed(self.device)

    def _enter(self, state: State, since_s: float, reason: str = "") -> None:
        self._state = state
        self._health.enter(
            SourceState(
                kind=self._kind,
                name=self.name,
                state=state,
                since_s=since_s,
                reason=reason,
                losses=self._losses,
                number=self._number,
            )
        )

    def _reason(self, state: State) -> str:
        match state:
            case State.MUTED:
                return (
                    f"{self._kind} {self.name} gives only zeros; unmute it, or allow it for this "
                    "program in the system's privacy settings"
                )
            case State.FROZEN:
                return (
                    f"{self._kind} {self.name} has given the very same picture for "
                    f"{REPEATED_S:.0f} s, or a few in turn; check that it has not frozen"
                )
            case State.STALLED:
                return f"{self._kind} {self.name} has stalled; nothing comes from it"
            case State.LOST:
                return f"{self._kind} {self.name} gives nothing any more"
            case _:
                return ""


class Connection:
    """One connection of a device: the `Receiver` of what it gives, until it is left."""

    def __init__(
        self, owner: SupervisedSource, kind: Kind, splicer: "Splicer", receiver: Receiver
    ) -> None:
        self.over = Event()
        self.error: SourceError | None = None
        self._owner = owner
        self._kind = kind
        self._splicer = splicer
        self._receiver = receiver
        self._missed: int | None = None
        self._zeros_from_s: float | None = None
        self._first_s: float | None = None
        self._last_s = self._gap_s = 0.0
        self._longest_s = self._longest_before_s = (
            0.0  # gaps of the last seconds, and of those before
        )
        self._counted_s = 0.0
        self._pictures = PictureMemory()
        self._same_since_s = 0.0

    @property
    def silent_s(self) -> float:
        """How long nothing has come; none before the first: the device knows how long it takes."""
        return 0.0 if self._first_s is None else monotonic() - self._last_s

    @property
    def lasted_s(self) -> float:
        """How long something came."""
        return 0.0 if self._first_s is None else self._last_s - self._first_s

    def patience_s(self, kind: Kind) -> float:
        """Return how long it may give nothing, by the pace that it lately had."""
        if kind == "microphone":
            return SLOW * self._gap_s
        known_s = 0.0 if self.lasted_s > LEARNED_S else UNKNOWN_S
        return max(known_s, SLOW * max(self._longest_s, self._longest_before_s))

    def note(self) -> None:
        """Note that something has come now."""
        now_s = monotonic()
        if self._first_s is None:
            self._first_s = self._last_s = self._counted_s = now_s
        if now_s - self._counted_s > LEARNED_S:
            self._longest_before_s, self._longest_s = self._longest_s, 0.0
            self._counted_s = now_s
        self._gap_s = now_s - self._last_s
        self._longest_s = max(self._longest_s, self._gap_s)
        self._last_s = now_s

    def frame(self, frame: Frame) -> None:
        """Take one picture."""
        if self._pictures.is_new(frame.image_HW3):
            self._same_since_s = frame.capture_s
        repeated = frame.capture_s - self._same_since_s > REPEATED_S
        state = State.FROZEN if repeated else State.RUNNING
        if self._owner.accept(self, state, self._same_since_s if repeated else frame.capture_s):
            self._receiver.frame(self._splicer.frame(frame))

    def audio(self, block: AudioBlock) -> None:
        """Take some sound; of a camera's own, another one keeps the state."""
        if self._kind == "camera":
            if self._owner.current is self:
                self._pass_on(block)
            return
        if block.samples_SC.any():
            self._zeros_from_s = None
        elif self._zeros_from_s is None:
            self._zeros_from_s = block.capture_s
        zeros_s = 0.0 if self._zeros_from_s is None else block.end_s - self._zeros_from_s
        state = State.MUTED if zeros_s > ZEROS_S else State.RUNNING
        if self._owner.accept(self, state, block.capture_s):
            self._pass_on(block)

    def _pass_on(self, block: AudioBlock) -> None:
        if self._missed is None:
            self._missed = self._splicer.missed(block)
        self._receiver.audio(self._splicer.audio(block, self._missed))

    def ended(self, error: SourceError | None) -> None:
        """Hear that the device gives no more."""
        self.error = error
        self.over.set()


class PictureMemory:
    """Tells a new picture from those that a camera has lately given, in whatever order it does."""

    def __init__(self) -> None:
        self._last_HW3: NDArray[np.uint8] | None = None
        self._known: dict[bytes, None] = {}  # of each picture a few pixels, or its hash

    def is_new(self, image_HW3: NDArray[np.uint8]) -> bool:
        """Return whether a picture is none of the last ones; of a live camera, a few pixels tell.

        Several that come in turn are known when they come for the third time.
        """
        last_HW3, self._last_HW3 = self._last_HW3, image_HW3
        few = image_HW3[::32, ::32].tobytes()
        if not self._note(few):
            return True
        if last_HW3 is not None and np.array_equal(image_HW3, last_HW3):
            return False
        return not self._note(
            blake2b(np.ascontiguousarray(image_HW3).data, digest_size=16).digest()
        )

    def _note(self, key: bytes) -> bool:
        known = key in self._known
        self._known.pop(key, None)
        self._known[key] = None
        if len(self._known) > 2 * REPEATED_MAX:
            del self._known[next(iter(self._known))]
        return known


class Splicer:
    """Joins what one connection gave to what the next gives, in counts that only grow.

    Parameters
    ----------
    number : which of a run's cameras gives the frames, and which of its microphones the audio.
    """

    def __init__(self, number: int = 0) -> None:
        self._number = number
        self._next_frame = 0
        self._last: AudioBlock | None = None

    def frame(self, frame: Frame) -> Frame:
        """Return the frame with its camera and its index in the whole run."""
        frame = dataclasses.replace(frame, index=self._next_frame, camera=self._number)
        self._next_frame += 1
        return frame

    def missed(self, block: AudioBlock) -> int:
        """Return how much must be added to the counts of a connection that begins with this block.

        The time between the connections' sound is counted as missing samples, at this one's rate.
        """
        if self._last is None:
            return 0
        end_s = (self._last.first_sample + len(self._last.samples_SC)) / self._last.rate_hz
        missed_s = max(0.0, block.capture_s - self._last.end_s)
        return math.ceil((end_s + missed_s) * block.rate_hz) - block.first_sample

    def audio(self, block: AudioBlock, missed: int) -> AudioBlock:
        """Return the block with its microphone, and its samples counted from the run's start."""
        self._last = dataclasses.replace(
            block, first_sample=block.first_sample + missed, microphone=self._number
        )
        return self._last
