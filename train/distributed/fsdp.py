"""Weights dealt out over processes, and put together for what is written.

Each process keeps its part of every weight, of its gradient and of Adam's averages; the whole of
a transformer layer is gathered while it computes (Zhao et al., "PyTorch FSDP", 2023). Names and
order of the weights stay as they are, so what is written by one process reads by many.
"""

from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from denseav.train.distributed.collectives import rank
from denseav.train.loss.denseav_loss import Learner


def shard(learner: Learner, mesh: DeviceMesh) -> Learner:
    """Deal out a learner's weights in place, layer by layer; one that is dealt out stays so.

    Parameters
    ----------
    learner
        With the same weights on all processes.
    mesh
        The processes, with an axis `data_parallel`.
    """
    if not isinstance(learner, FSDPModule):
        model = learner.model
        layers = [*model.image_encoder.vit.layers, *model.audio_encoder.hubert.encoder.layers]
        for module in (*layers, learner):
            fully_shard(module, mesh=mesh["data_parallel"])
    return learner


def whole(state: Any) -> Any:
    """Return a state whose tensors are put together, on the first process; all call it."""
    if isinstance(state, dict):
        return {key: whole(value) for key, value in state.items()}
    if isinstance(state, list):
        return [whole(value) for value in state]
    if not isinstance(state, DTensor):
        return state
    tensor = full(state)
    return tensor.cpu() if rank() == 0 else None


def full(tensor: Tensor) -> Tensor:
    """Return a tensor, put together on every process; all call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def dealt_like(tensor: Tensor, model: Tensor) -> Tensor:
    """Return this process's part of a tensor where its model is dealt out, else the tensor."""
    if not isinstance(model, DTensor) or tensor.shape != model.shape:
        return tensor
    whole_x = tensor.to(model.device)
    with torch.no_grad():
        return distribute_tensor(whole_x, model.device_mesh, model.placements, src_data_rank=None)
