"""What all processes share: features gathered with true gradients, numbers added up.

Each process computes its share of one loss, so the true gradient of a tensor that was gathered
is the sum of all processes' gradients of it. Alone, everything here is the identity.

Batches are of one size on all processes. b items of one process, A of all.
"""

import os
from datetime import timedelta
from itertools import count
from time import monotonic, sleep
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.distributed_c10d import _get_default_store

PATIENCE = timedelta(days=1)
"""So long other processes wait for what the first one does alone, such as pretraining."""
GRACE_S = 10.0
ASKING_S = 5.0  # for processes that failed alike; one that did not is not coming
"""So long other processes let the first one end before them, where an error ends them all."""

_barriers = count()


def rank() -> int:
    """Return which process this is, 0 when it is alone."""
    return distributed.get_rank() if _initialized() else 0


def world_size() -> int:
    """Return how many processes there are."""
    return distributed.get_world_size() if _initialized() else 1


def gather(tensor_bx: Tensor) -> Tensor:
    """Return the tensors [A, ...] of all processes in their order; backward adds gradients up."""
    if not _initialized():
        return tensor_bx
    gathered_Ax: Tensor = _Gather.apply(tensor_bx.contiguous())
    return gathered_Ax


def total(value: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes, without gradient."""
    value = value.detach().clone()
    if _initialized():
        distributed.all_reduce(value)
    return value


def gather_objects(item: Any) -> list[Any]:
    """Return what every process gives, in their order."""
    if not _initialized():
        return [item]
    items: list[Any] = [None] * world_size()
    distributed.all_gather_object(items, item)
    return items


def wait_for_rank_zero() -> None:
    """Wait until the first process comes here too.

    By its store: a collective gives up after some minutes, and where it were told to be patient it
    would not see that the first one is gone.
    """
    if not _initialized():
        return
    store, key = _get_default_store(), f"denseav/{next(_barriers)}"
    if rank() == 0:
        store.set(key, "here")
    else:
        store.wait([key], PATIENCE)


def first_to_report(text: str) -> bool:
    """Tell whether no other process has said it; nobody is waited for."""
    if not _initialized():
        return True
    store = _get_default_store()
    store.set_timeout(timedelta(seconds=10))
    try:
        return store.add(text, 1) == 1
    except RuntimeError:  # whoever kept count is gone: better said twice than never
        return True


def wait_until_all_asked(text: str) -> None:
    """Keep the count that `first_to_report` asks for until all have asked, at most so long.

    The first process has it: gone at once, it would have the others say again what it said.
    """
    if not _initialized() or rank() > 0:
        return
    store = _get_default_store()
    end_s = monotonic() + ASKING_S
    while store.add(text, 0) < world_size() and monotonic() < end_s:
        sleep(0.02)


def leave() -> None:
    """End what processes share, once all have come here; without it, leaving can abort."""
    if _initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def leave_after_rank_zero() -> None:
    """End this process's share where an error ends it, and let the first process end before it.

    Fabric kills a first process that still runs when it sees another one fail: its exit code, and
    perhaps its last words, would be lost.
    """
    if not _initialized():
        return
    others, parent = rank() > 0, os.getppid()
    distributed.destroy_process_group()
    end_s = monotonic() + GRACE_S
    while others and os.getppid() == parent and monotonic() < end_s:
        sleep(0.1)


def _initialized() -> bool:
    return distributed.is_available() and distributed.is_initialized()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, tensor_bx: Tensor) -> Tensor:
        gathered_Ax = tensor_bx.new_empty(world_size() * len(tensor_bx), *tensor_bx.shape[1:])
        distributed.all_gather_single(gathered_Ax, tensor_bx)
        return gathered_Ax

    @staticmethod
    def backward(_: Any, grad_Ax: Tensor) -> Tensor:
        grad_bx = grad_Ax.new_empty(len(grad_Ax) // world_size(), *grad_Ax.shape[1:])
        distributed.reduce_scatter_single(grad_bx, grad_Ax.contiguous())
        return grad_bx
