"""Whether a head means something: heat and the audio it came from in, yes or no per head out.

The one place that decides it: what is drawn, recorded, logged and published reads
`Heatmap.valid_K`, which comes from here. A head that gives no numbers looks like silence, so that
is said.

Axes: K heads, H W the feature grid.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from denseav.stream.types import Heatmap

AUDIO_AGE_MAX_S = 1.0  # audio that ended longer before the frame says nothing about it


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenAudio:
    """The audio of the token that a frame was compared with.

    Attributes
    ----------
    start_s, end_s : when it was captured, on the frame's clock.
    rms_dbfs : how loud it was.
    """

    start_s: float
    end_s: float
    rms_dbfs: float


def valid_heads(
    heat_KHW: NDArray[np.float32],
    audio: TokenAudio,
    *,
    capture_s: float,
    energy_floor_dbfs: float,
    good_since_s: float | None,
) -> tuple[bool, ...]:
    """Return which heads mean something.

    A head does when its audio was above the energy floor, ended at most a second before the frame
    and lies after the microphone's last fault, and its heat is finite throughout.

    Parameters
    ----------
    capture_s : of the frame.
    good_since_s : since when the microphone has given good audio, on the clock of `audio`; None
        while it gives none.
    """
    usable = (
        audio.rms_dbfs > energy_floor_dbfs
        and capture_s - audio.end_s <= AUDIO_AGE_MAX_S
        and good_since_s is not None
        and audio.start_s >= good_since_s
    )
    return tuple(bool(usable and np.isfinite(heat_HW).all()) for heat_HW in heat_KHW)


class FiniteCheck:
    """Says of each head, once, that its heat is not finite.

    Parameters
    ----------
    heads : their names, in the order of the maps.
    say : called with one line for people.
    """

    def __init__(self, heads: Sequence[str], say: Callable[[str], None]) -> None:
        self._heads = heads
        self._say = say
        self._said: set[str] = set()

    def heatmap(self, heatmap: Heatmap) -> None:
        """Take a heatmap, on the thread that makes them."""
        for head, heat_HW in zip(self._heads, heatmap.heat_KHW, strict=True):
            if head not in self._said and not np.isfinite(heat_HW).all():
                self._said.add(head)
                self._say(
                    f"the model's heat for {head} is not a number, so that head shows nothing; "
                    "try another --device, or export the model again with --precision fp32"
                )
