"""The average of weights over steps: what learns goes in, a smoother network of it comes out.

An exponential moving average (Polyak and Juditsky, 1992, in its usual form). Of weights that are
sharded each process averages its own part. It knows no checkpoint file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from denseav.train.distributed.fsdp import gathered, reshard, shard_like
from denseav.train.loss.learner import Learner
from denseav.train.trainer.settings import Averaging
from denseav.train.trainer.stages import group_of


class WeightAverage:
    """The average of a learner's weights, those that never learn left out.

    Parameters
    ----------
    learner : on its devices, sharded if it ever will be; the average begins as its weights.
    averaging : how slow it is.
    """

    def __init__(self, learner: Learner, averaging: Averaging) -> None:
        self._learner, self._decay = learner, averaging.decay
        self._updates = 0
        self._learning = {
            name: parameter
            for name, parameter in learner.named_parameters()
            if group_of(name, learner.model.config) != "frozen"
        }
        self._average = {name: p.detach().clone() for name, p in self._learning.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights of one more step; the first ones count more, as in a plain mean."""
        self._updates += 1
        decay = min(self._decay, self._updates / (self._updates + 9))
        torch._foreach_lerp_(self._tensors(), [p.detach() for p in self._weights()], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the learner have the average in place of its weights until the context ends."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state_dict(self) -> dict[str, Any]:
        """Return the average, whole, on the first process; all call it."""
        return {"updates": self._updates, "weights": gathered(self._average)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from an average that any number of processes saved.

        Raises
        ------
        KeyError
            When it is of another network.
        """
        self._updates = state["updates"]
        with torch.no_grad():
            for name, average in self._average.items():
                average.copy_(shard_like(state["weights"][name], average))

    @torch.no_grad()
    def _swap(self) -> None:
        reshard(self._learner)  # a whole copy that validation left would outlive the swap
        for average, parameter in zip(self._tensors(), self._weights(), strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(kept)

    def _tensors(self) -> list[Tensor]:
        return list(self._average.values())

    def _weights(self) -> list[Tensor]:
        return list(self._learning.values())
