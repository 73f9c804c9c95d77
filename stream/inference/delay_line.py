"""A delay line: frames in with the time they came, out when they are due; the newest due wins.

Each camera has a line of its own; of those where a frame is due, the one whose last turn is longest
ago is next. Between the sources' threads and the one that makes heatmaps; its memory is bounded.
"""

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic

from denseav.stream.types import Frame

TimedFrame = tuple[Frame, float]  # a frame, and when it came

HELD_BYTES_MAX = 256 * 2**20  # of pictures that wait: 2 s of 1280x720 at 48 a second


class DelayLine:
    """Hold frames until they are due. Where too many of a camera wait they are thinned evenly.

    Parameters
    ----------
    wait_s : tells how many seconds a frame still has to wait, at least; 0 when it is due.
    dropped : called with a camera, and how many of its frames were overtaken by one that was due as
        well.
    cameras : that share the memory.
    """

    def __init__(
        self,
        wait_s: Callable[[Frame], float],
        dropped: Callable[[int, int], None],
        cameras: int = 1,
    ) -> None:
        self._wait_s = wait_s
        self._dropped = dropped
        self._lines: list[deque[TimedFrame]] = [deque() for _ in range(cameras)]
        self._held_bytes = [0] * cameras
        self._order = list(range(cameras))  # whose last turn is longest ago comes first
        self._changed = threading.Condition()

    @property
    def empty(self) -> bool:
        """Whether no frame waits."""
        return not any(self._lines)

    def put(self, timed: TimedFrame) -> bool:
        """Let a frame wait. Returns whether one had to be dropped because too many wait."""
        camera = timed[0].camera
        line = self._lines[camera]
        with self._changed:
            line.append(timed)
            self._held_bytes[camera] += timed[0].image_HW3.nbytes
            thinned = False
            while self._held_bytes[camera] > HELD_BYTES_MAX / len(self._lines) and len(line) > 2:
                self._thin(camera)
                thinned = True
            self._changed.notify()
            return thinned

    def get(self, timeout_s: float) -> TimedFrame | None:
        """Take the newest frame that is due, waiting for one; None when none was in time."""
        end_s = monotonic() + timeout_s
        with self._changed:
            while True:
                left_s = end_s - monotonic()
                waits_s = {camera: self._first_waits_s(camera) for camera in self._order}
                due = next((camera for camera, wait_s in waits_s.items() if wait_s <= 0), None)
                if due is not None:
                    self._order.remove(due)
                    self._order.append(due)
                    return self._newest_due(due)
                if left_s <= 0:
                    return None
                self._changed.wait(min(*waits_s.values(), left_s))

    def _thin(self, camera: int) -> None:
        """Drop the frame whose neighbours are closest together: the gap it leaves is smallest."""
        line = self._lines[camera]
        times_s = [frame.capture_s for frame, _ in line]
        gaps_s = [after - before for before, after in zip(times_s, times_s[2:], strict=False)]
        at = 1 + gaps_s.index(min(gaps_s))
        self._held_bytes[camera] -= line[at][0].image_HW3.nbytes
        del line[at]

    def _first_waits_s(self, camera: int) -> float:
        line = self._lines[camera]
        return self._wait_s(line[0][0]) if line else float("inf")

    def _newest_due(self, camera: int) -> TimedFrame:
        timed, overtaken = self._pop(camera), 0
        while self._first_waits_s(camera) <= 0:
            timed, overtaken = self._pop(camera), overtaken + 1
        if overtaken:
            self._dropped(camera, overtaken)
        return timed

    def _pop(self, camera: int) -> TimedFrame:
        timed = self._lines[camera].popleft()
        self._held_bytes[camera] -= timed[0].image_HW3.nbytes
        return timed
