"""What had to be mended in a file: noted while it is read, one line for people out."""


class Mends:
    """Each kind of fault, with when it was first met and how often."""

    def __init__(self) -> None:
        self._first_s: dict[str, float] = {}
        self._times: dict[str, int] = {}

    def note(self, what: str, time_s: float = 0.0) -> None:
        """Take note of a fault, in words that are the same for all of its kind."""
        self._first_s.setdefault(what, time_s)
        self._times[what] = self._times.get(what, 0) + 1

    def lines(self) -> list[str]:
        """Return a line for each kind, in the order in which they were met."""
        return [
            f"{what} (at {first_s:.1f} s{self._often(what)})"
            for what, first_s in self._first_s.items()
        ]

    def _often(self, what: str) -> str:
        times = self._times[what]
        return f", {times} times in all" if times > 1 else ""
