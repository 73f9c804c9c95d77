"""Times at which pictures came in; whether each had waited, and how long a pause is usual, out.

Seconds of the monotonic clock, nothing else: no camera, no thread. A camera's pace is learned
from what it does: a few pictures a second or one every two, evenly or in bursts.
"""

PAUSE_S = 0.2  # after a longer one, pictures may have waited
PAUSE_PERIODS = 2.25  # … unless so few usual periods fit into it: one picture may be lost
DRAINED_S = 0.5  # pictures that wait are looked through for so long at most
PERIOD_S = (1 / 120, 0.2)  # what is believed of a camera that says how often it gives pictures
SPREAD = 0.8  # of the time between bursts; the rest is left to catch up
ALIKE = 3.0  # pauses that differ by less than this factor are one camera's habit …
ALIKE_SHORT, SHORT_S = 2.0, 0.3  # … and where one is so short, by less than this


class ArrivalPace:
    """Tells pictures that have waited in a buffer from those that have just come.

    A camera is opened by reading some of its stream, and a network holds up what it cannot send:
    such pictures then come at once, and are older than their stamps say. The first that comes
    after about its usual time has not waited.

    A pause that follows another of its kind is no hold-up but the camera's habit: it is slow, or
    sends in bursts. Then every picture counts, and those of a burst are to be taken one by one
    over the time until the next.

    Parameters
    ----------
    fps : pictures a second, as the camera says; anything.
    now_s : when it was opened.

    Attributes
    ----------
    usual_pause_s : how long a habitual pause lasts; 0 without any.
    spread_s : how long to leave each further picture of a burst where it is; 0 without bursts.
    """

    def __init__(self, fps: float, now_s: float) -> None:
        shortest_s, longest_s = PERIOD_S
        self.usual_pause_s = self.spread_s = 0.0
        self._period_s = min(max(1 / fps if fps > 0 else 0.0, shortest_s), longest_s)
        self._asked_s = self._since_s = self._awaited_s = now_s
        self._pause_s, self._paused_s, self._burst = 0.0, now_s, 0  # the last one, its end
        self._burst_s, self._burst_before = 0.0, 0
        self._draining = True

    def asked(self, now_s: float) -> None:
        """Note that the next picture is waited for from now on."""
        self._asked_s = now_s

    def waited(self, came_s: float) -> bool:
        """Return whether the picture that came now had waited."""
        gap_s, self._asked_s = came_s - self._asked_s, came_s
        if self.spread_s and self._is_bursty(gap_s, came_s):
            return False
        self._burst += 1
        if gap_s > max(PAUSE_S, PAUSE_PERIODS * self._period_s):
            self._pause(gap_s, came_s)
        elif self._draining:
            on_time = gap_s > self._period_s / 2 or came_s - self._since_s > DRAINED_S
            self._draining = not on_time
        else:
            self._period_s += 0.1 * (gap_s - self._period_s)
        return self._draining

    def _pause(self, gap_s: float, came_s: float) -> None:
        """Take a pause for a habit when one of its kind was just before it, else for a hold-up."""
        cycle_s = came_s - self._paused_s
        # One that is taken late makes the next pause short, which is no hold-up.
        usual_s = self.usual_pause_s
        factor = ALIKE if min(gap_s, self._pause_s) > SHORT_S else ALIKE_SHORT
        alike = gap_s / factor < self._pause_s < gap_s * factor or gap_s <= usual_s
        habit = alike and cycle_s < 2 * max(gap_s, usual_s)
        self._draining, self._since_s = not habit, came_s
        self.usual_pause_s = max(gap_s, self._pause_s) if habit else 0.0
        if habit and self._burst > 1 and self._burst_before > 1:
            self._burst_s, self._awaited_s = cycle_s, came_s
            self.spread_s = SPREAD * cycle_s / self._burst
        self._burst_before, self._burst = self._burst, 0
        self._pause_s, self._paused_s = gap_s, came_s

    def _is_bursty(self, gap_s: float, came_s: float) -> bool:
        """Return whether bursts go on: neither have they ceased, nor do pictures come faster."""
        if gap_s > self.spread_s / 4:
            self._awaited_s = came_s
        late = gap_s > 2 * self._burst_s
        if late or came_s - self._awaited_s > 2 * self._burst_s:
            self.spread_s, self._draining, self._since_s = 0.0, True, came_s
        return self.spread_s > 0
