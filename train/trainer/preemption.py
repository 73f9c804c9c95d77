"""Preemption: SIGTERM and SIGUSR1 enter, which of all processes' steps is the last one leaves.

A handler only notes the signal; the loop asks after each step, on the main thread, and all
processes answer alike. It knows nothing of checkpoints.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from denseav.train.data.workers import STOP_SIGNALS
from denseav.train.distributed.collectives import total


class Preemption:
    """Whether any process was told to stop."""

    def __init__(self) -> None:
        self.noted = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """Note a signal; the handler."""
        del number, frame
        self.noted = True

    def wanted(self, device: torch.device) -> bool:
        """Tell whether a signal has come to any process; all call it, at the same step."""
        return bool(total(torch.tensor(float(self.noted), device=device)) > 0)


@contextmanager
def preemptible() -> Iterator[Preemption]:
    """Note signals, on the main thread, until the context ends."""
    preemption = Preemption()
    before = {number: signal.signal(number, preemption.note) for number in STOP_SIGNALS}
    try:
        yield preemption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
