"""Cases of the fused kernels; run as a program, it writes their results on a device.

Triton's interpreter takes the place of a GPU where TRITON_INTERPRET=1 as Triton is imported, so
that this needs a process of its own.
"""

import sys

import torch
from torch import Tensor

from denseav.train.loss.chunked_similarity import dense_similarity, use_fused

SIZES = {
    "one head": (1, 3, 2, 5, None),
    "two heads, many tiles": (2, 35, 3, 33, None),
    "four heads": (4, 7, 6, 20, None),
    "one of two heads": (2, 4, 3, 8, 1),
    "equals": (2, 3, 2, 4, None),
}


def results(name: str, device: str = "cpu") -> list[Tensor]:
    """Return similarities, and the gradients of image and audio, of a case."""
    heads, tokens, side, channels, head = SIZES[name]
    torch.manual_seed(heads)
    make = torch.ones if name == "equals" else torch.randn
    image = make(3, heads, channels, side, side + 1, requires_grad=True)
    audio = make(2, heads, channels, tokens, requires_grad=True)
    mask = torch.rand(2, tokens) > 0.4
    mask[0, 0], mask[1] = True, name == "equals"
    sims_AV = dense_similarity(image.to(device), audio.to(device), mask.to(device), head=head).cpu()
    weight_AV = torch.arange(1.0, sims_AV.numel() + 1).view_as(sims_AV)
    (sims_AV * weight_AV).sum().backward()
    assert image.grad is not None
    assert audio.grad is not None
    return [sims_AV.detach(), image.grad, audio.grad]


if __name__ == "__main__":
    use_fused(True)
    torch.save({name: results(name, sys.argv[2]) for name in SIZES}, sys.argv[1])
