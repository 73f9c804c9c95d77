"""The script of the demonstration clip: who sounds and who is named, when.

Nothing enters; a `Script` leaves, and the picture (`demo_scene`) and the sound (`demo_sounds`)
both follow it, so that what moves and what is heard are the same moments. It knows no pixel and
no sample.
"""

import math
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

Head = Literal["sound", "speech"]

BEATS_S: dict[str, tuple[float, ...]] = {
    "drum": (0.0, 0.42, 0.84, 1.05, 1.26, 1.68, 2.1),
    "bell": (0.0, 0.8, 1.6),
    "bird": (0.0, 0.3, 0.6, 1.15, 1.45, 1.75),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing heard: object `name` makes its own sound, or is named by a voice saying `text`.

    `start_s` and `stop_s` are seconds of the clip; speech may end before `stop_s`, never after.
    """

    name: str
    head: Head
    start_s: float
    stop_s: float
    text: str = ""

    def beats_s(self) -> tuple[float, ...]:
        """Return when a drum, bell or bird is struck or starts a note: seconds of the clip."""
        beats = (self.start_s + beat for beat in BEATS_S[self.name])
        return tuple(takewhile(lambda beat: beat < self.stop_s - 0.2, beats))


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What happens in a clip of `duration_s` seconds, in order of `start_s`."""

    events: tuple[Event, ...]
    duration_s: float

    def sounding(self, name: str) -> tuple[Event, ...]:
        """Return the events in which `name` makes its own sound."""
        return tuple(e for e in self.events if e.name == name and e.head == "sound")

    def beats_s(self, name: str) -> tuple[float, ...]:
        """Return every beat of `name` in the clip: seconds of the clip."""
        return tuple(beat for event in self.sounding(name) for beat in event.beats_s())


def shaken(time_s: float, beats_s: tuple[float, ...], rate_hz: float, decay_s: float) -> float:
    """Return a swing about zero, in [-1, 1] for one beat, set off by each beat and dying away."""
    since_s = [time_s - beat for beat in beats_s if beat <= time_s]
    return sum(math.exp(-s / decay_s) * math.sin(2 * math.pi * rate_hz * s) for s in since_s)


def pulse(time_s: float, beats_s: tuple[float, ...], before_s: float, after_s: float) -> float:
    """Return 1 on a beat, falling to 0 `before_s` earlier and `after_s` later."""
    gaps_s = (time_s - beat for beat in beats_s)
    slopes = [1 - gap / after_s if gap >= 0 else 1 + gap / before_s for gap in gaps_s]
    return max([0.0, *slopes])


def _sound(name: str, start_s: float, stop_s: float) -> Event:
    return Event(name=name, head="sound", start_s=start_s, stop_s=stop_s)


def _speech(name: str, start_s: float, stop_s: float, text: str) -> Event:
    return Event(name=name, head="speech", start_s=start_s, stop_s=stop_s, text=text)


SCRIPT = Script(
    events=(
        _sound("drum", 0.6, 3.1),
        _sound("bell", 3.5, 6.3),
        _sound("bird", 6.7, 8.9),
        _sound("car", 9.3, 12.3),
        _speech("drum", 12.7, 14.9, "Look, there is a drum."),
        _speech("bell", 15.1, 17.1, "A picture of a bell."),
        _speech("bird", 17.3, 19.3, "Here is a little bird."),
        _speech("car", 19.5, 21.5, "This is a green car."),
        _sound("bird", 21.8, 24.0),
        _speech("drum", 22.1, 24.1, "Can you see the drum?"),
        _sound("car", 24.4, 27.2),
        _speech("bell", 24.9, 26.9, "And there is the bell."),
    ),
    duration_s=29.8,
)
"""Each object alone, each name alone, sound and speech at once, then 2.6 s of silence."""
