"""How weights move: a learner to its optimizer with a group for each part, and a step to its rate.

It knows no batch and no loss; gradients are there when a step is made.

Errors
------
StoppedError         ten steps in a row had no finite gradient
"""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch import nn
from torch.optim import Adam, Muon, Optimizer

from denseav.train.distributed.fsdp import full_tensor
from denseav.train.errors import StoppedError
from denseav.train.loss.learner import Learner
from denseav.train.trainer.checkpointer import LAST, Progress
from denseav.train.trainer.settings import Optimization, Settings
from denseav.train.trainer.stages import grouped

PATIENCE = 10
"""So many steps in a row without a finite gradient end the run."""


class MuonAndAdam(Optimizer):
    """Muon for the groups whose `muon` is true, Adam for all others; one state, one list of groups.

    Muon (Jordan et al., 2024) makes the averaged gradient of a matrix orthogonal. Its steps are
    scaled to the size of Adam's (Liu et al., "Muon is Scalable for LLM Training", 2025, section
    2.2), so that one rate fits both.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], *, eps: float, fused: bool) -> None:
        by_muon, by_adam = ([g for g in groups if g["muon"] is muon] for muon in (True, False))
        muon = Muon(by_muon, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
        adam = Adam(by_adam, eps=eps, fused=fused)
        self._parts: dict[bool, Optimizer] = {True: muon, False: adam}
        super().__init__([*muon.param_groups, *adam.param_groups], adam.defaults)

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every weight that has a gradient; return the loss of `closure`, which makes it."""
        loss = None if closure is None else closure()
        for muon, part in self._parts.items():
            part.param_groups = [group for group in self.param_groups if group["muon"] is muon]
            part.state = self.state
            part.step()
        return loss


def optimizer_of(
    weights: Iterable[tuple[str, nn.Parameter]], *, muon: bool, eps: float, fused: bool
) -> Optimizer:
    """Return an optimizer of weights and the names of their groups; it has a group of each name.

    With `muon`, which goes with encoders that begin at random, matrices of the groups *audio* and
    *image* move by Muon, and are groups of their own of the same name.
    """
    found: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, weight in weights:
        matrix = muon and weight.ndim == 2 and name in ("audio", "image")
        found.setdefault((name, matrix), []).append(weight)
    groups = [{"params": own, "name": name, "muon": by} for (name, by), own in found.items()]
    if muon:
        return MuonAndAdam(groups, eps=eps, fused=fused)
    return Adam(groups, eps=eps, fused=fused)


def new_optimizer(settings: Settings, learner: Learner) -> Optimizer:
    """Return the optimizer, with a parameter group for each group of weights that ever learns.

    The weights are on their device already. A gradient scaler unscales before gradients are
    clipped, which a fused step does not allow for.
    """
    told = settings.optimization
    fused = told.fused and settings.machine.precision != "16-mixed"
    learning = ((group, weight) for group, weight in grouped(learner) if group != "frozen")
    return optimizer_of(learning, muon=told.muon, eps=told.epsilon, fused=fused)


def set_rates(optimizer: Optimizer, optimization: Optimization, step: int) -> float:
    """Give each parameter group its rate of a step, and return the whole one."""
    rate = learning_rate(optimization, step)
    for group in optimizer.param_groups:
        group["lr"] = rate * optimization.rates.share(group["name"])
    return rate


def learning_rate(optimization: Optimization, step: int) -> float:
    """Return the rate of a step: linear warm-up (of each stage), constant, linear cool-down."""
    again = optimization.restart and step >= optimization.aligner_steps
    begin = optimization.aligner_steps if again else 0
    warm = (step - begin + 1) / max(optimization.warmup_steps, 1)
    cold = (optimization.steps - step) / max(optimization.cooldown_steps, 1)
    return optimization.learning_rate * min(warm, cold, 1)


def optimizer_step(
    settings: Settings,
    fabric: Fabric,
    encode: Any,
    stepper: Optimizer,
    progress: Progress,
    out: Path,
) -> float:
    """Make a step with a finite gradient, skip and count any other; return the gradient's norm.

    The norm is that of the whole gradient before it is clipped.

    Raises
    ------
    StoppedError
        After ten in a row.
    """
    clipped = fabric.clip_gradients(
        encode, stepper, max_norm=settings.optimization.clip_norm, error_if_nonfinite=False
    )
    assert clipped is not None
    norm = float(full_tensor(clipped))
    finite = math.isfinite(norm)
    if finite or settings.machine.precision == "16-mixed":  # whose scaler has to see it
        stepper.step()
    progress.step += 1
    progress.skipped += not finite
    progress.skipped_in_row = 0 if finite else progress.skipped_in_row + 1
    if progress.skipped_in_row == PATIENCE:
        raise StoppedError(
            f"{PATIENCE} steps in a row had no finite gradient, the last of them step "
            f"{progress.step}; the last good checkpoint is {out / LAST}: go on from it with a "
            "lower optimization.learning_rate or machine.precision 32-true"
        )
    return norm
