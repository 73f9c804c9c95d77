"""How weights move: a learner to Adam with a group for each part, and a step to its rate.

It knows no batch and no loss; gradients are there when a step is made.

Errors
------
StoppedError         ten steps in a row had no finite gradient
"""

import math
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch.optim import Optimizer

from denseav.train.distributed.fsdp import full_tensor
from denseav.train.errors import StoppedError
from denseav.train.loss.learner import Learner
from denseav.train.trainer.checkpointer import LAST, Progress
from denseav.train.trainer.settings import Optimization, Settings
from denseav.train.trainer.stages import Group, grouped

PATIENCE = 10
"""So many steps in a row without a finite gradient end the run."""


def new_optimizer(settings: Settings, learner: Learner) -> Optimizer:
    """Return Adam, with a parameter group for each group of weights that ever learns.

    The weights are on their device already. A gradient scaler unscales before gradients are
    clipped, which a fused step does not allow for.
    """
    parameters: dict[Group, list[torch.nn.Parameter]] = {}
    for group, parameter in grouped(learner):
        if group != "frozen":
            parameters.setdefault(group, []).append(parameter)
    fused = settings.optimization.fused and settings.machine.precision != "16-mixed"
    return torch.optim.Adam(
        [{"params": weights, "name": group} for group, weights in parameters.items()],
        eps=settings.optimization.epsilon,
        fused=fused,
    )


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
