"""How each source does: states from the sources' own threads in, words and records out.

The HUD, the log, the feed and the report read it. Any thread; nothing here waits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from threading import Lock
from time import monotonic
from typing import Any, Literal

Kind = Literal["camera", "microphone"]


class State(StrEnum):
    """How a source does.

    Attributes
    ----------
    OPENING : opened for the first time, and nothing has come yet.
    RUNNING : pictures or sound come.
    STALLED : it is open, and nothing comes.
    LOST : it failed, or stalled for too long; it is opened again and again until something comes.
    FROZEN : a camera gives the very same picture again and again, or a few in turn.
    MUTED : a microphone gives sound, and all of it is zeros.
    """

    OPENING = "opening"
    RUNNING = "running"
    STALLED = "stalled"
    LOST = "lost"
    FROZEN = "frozen"
    MUTED = "muted"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    """One source's state.

    Attributes
    ----------
    name : what people read: the device or address, never a password.
    since_s : when it began, on the monotonic clock; RUNNING begins with the capture of what came.
    reason : one line for people; empty while all is well.
    losses : how often it was lost in this run.
    number : which of a run's cameras or microphones it is.
    """

    kind: Kind
    name: str
    state: State
    since_s: float
    reason: str = ""
    losses: int = 0
    number: int = 0

    @property
    def is_well(self) -> bool:
        """Whether there is nothing to tell people."""
        return self.state in (State.OPENING, State.RUNNING)

    def words(self, now_s: float) -> str:
        """Return the state as a few words for the HUD."""
        if self.state is State.RUNNING:
            return self.name
        return f"{self.name}: {self.state.value} for {max(0.0, now_s - self.since_s):.0f} s"


class SourceHealth:
    """The newest state of each source. Every method may be called from any thread.

    Parameters
    ----------
    say : called with one line for people at each change, except that a source begins. It must not
        wait: capture calls it.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._lock = Lock()
        self._states: dict[tuple[Kind, int], SourceState] = {}

    def enter(self, new: SourceState) -> None:
        """Take a source's new state."""
        with self._lock:
            old = self._states.get((new.kind, new.number))
            if old is not None and not old.is_well:
                # What was captured before a fault and came after it is not trusted.
                new = replace(new, since_s=max(new.since_s, old.since_s))
            self._states[new.kind, new.number] = new
            if old is None or (old.state in (State.OPENING, new.state) and new.is_well):
                return
            self._say(_line(old, new))

    def states(self) -> Sequence[SourceState]:
        """Return all states, those of cameras first and in their order."""
        with self._lock:
            return [self._states[source] for source in sorted(self._states)]

    def running_since_s(self, kind: Kind, number: int = 0) -> float | None:
        """Return when what such a source gives began to be good; None while it gives nothing good.

        Without such a source, as when a file is played, all is good.
        """
        with self._lock:
            source = self._states.get((kind, number))
        if source is None:
            return float("-inf")
        return source.since_s if source.state in (State.RUNNING, State.FROZEN) else None

    def states_of(self, camera: int, microphone: int) -> Sequence[SourceState]:
        """Return the states of one camera and of the microphone that its frames meet."""
        number = {"camera": camera, "microphone": microphone}
        return [source for source in self.states() if source.number == number[source.kind]]

    def fault_of(self, camera: int) -> str | None:
        """Return why no picture comes from one camera as a few words, or None."""
        with self._lock:
            source = self._states.get(("camera", camera))
        if source is None or source.is_well or source.state is State.FROZEN:
            return None
        return source.words(monotonic())

    def camera_fault(self) -> str | None:
        """Return why no picture comes from any camera as a few words, or None."""
        numbers = [source.number for source in self.states() if source.kind == "camera"]
        faults = [self.fault_of(number) for number in numbers]
        return "; ".join(fault for fault in faults if fault) if all(faults) and faults else None

    def report(self) -> list[dict[str, Any]]:
        """Return the states as JSON takes them."""
        now_s = monotonic()
        return [
            {
                "source": source.kind,
                "state": source.state.value,
                "for_s": round(now_s - source.since_s, 3),
                "losses": source.losses,
            }
            for source in self.states()
        ]


def _line(old: SourceState, new: SourceState) -> str:
    if new.state is State.RUNNING:
        return f"{new.kind} {new.name} is back after {new.since_s - old.since_s:.1f} s"
    return new.reason
