"""FSDP: a module enters, its weights sharded over all processes leave; gathered to be written.

Each process keeps its part of every weight, of its gradient and of Adam's averages; the whole of
a transformer layer is gathered while it computes (Zhao et al., "PyTorch FSDP", 2023). Names and
order of the weights stay as they are, so what is written by one process reads by many.
"""

from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from denseav.models import DenseAV
from denseav.train.distributed.collectives import rank

Module = TypeVar("Module", bound=nn.Module)


def networks(module: nn.Module) -> list[DenseAV]:
    """Return the networks that a module trains."""
    return [part for part in module.modules() if isinstance(part, DenseAV)]


def transformer_layers(network: DenseAV) -> tuple[nn.ModuleList, nn.ModuleList]:
    """Return the layers of the image encoder and those of the audio encoder."""
    return network.image_encoder.vit.layers, network.audio_encoder.hubert.encoder.layers


def shard(module: Module, mesh: DeviceMesh) -> Module:
    """Shard a module's weights in place, layer by layer; one that is sharded stays so.

    Parameters
    ----------
    module
        With the same weights on all processes.
    mesh
        The processes, with an axis `data_parallel`.
    """
    if not isinstance(module, FSDPModule):
        for network in networks(module):
            for layer in chain(*transformer_layers(network)):
                fully_shard(layer, mesh=mesh["data_parallel"])
        fully_shard(module, mesh=mesh["data_parallel"])
    return module


def reshard(module: nn.Module) -> None:
    """Let go of what was gathered of a sharded module's weights; nothing for any other."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def gathered(state: Any) -> Any:
    """Return a state whose tensors are put together, on the first process; all call it."""
    if isinstance(state, dict):
        return {key: gathered(value) for key, value in state.items()}
    if isinstance(state, list):
        return [gathered(value) for value in state]
    if not isinstance(state, DTensor):
        return state
    tensor = full_tensor(state)
    return tensor.cpu() if rank() == 0 else None


def full_tensor(tensor: Tensor) -> Tensor:
    """Return a tensor, put together on every process; all call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, model: Tensor) -> Tensor:
    """Return this process's part of a tensor where its model is sharded, else the tensor."""
    if not isinstance(model, DTensor) or tensor.shape != model.shape:
        return tensor
    full_x = tensor.to(model.device)
    with torch.no_grad():
        return distribute_tensor(full_x, model.device_mesh, model.placements, src_data_rank=None)
