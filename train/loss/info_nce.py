"""InfoNCE: the similarities of all clips with all images to one number, a process's share.

Hamilton et al., "Separating the Chirp from the Chat" (2024), section 3. It knows nothing of heads
or of what a similarity is made from.

A clips of all processes, V images of this one.
"""

import torch
from torch import Tensor
from torch.nn import functional

from denseav.train.distributed.collectives import gather


def info_nce(logits_AV: Tensor, own: slice) -> Tensor:
    """Return this process's share of the symmetric InfoNCE of all A clips with all A images.

    Parameters
    ----------
    logits_AV
        Calibrated similarities, pairs on the diagonal; images beyond the A-th pair with no
        clip and are only ever negatives.
    own
        The pairs of this process.
    """
    clips = len(logits_AV)
    pairs = torch.arange(own.start, own.stop, device=logits_AV.device)
    find_image = functional.cross_entropy(logits_AV[own], pairs, reduction="sum")
    find_audio = functional.cross_entropy(logits_AV[:, own].T, pairs, reduction="sum")
    return (find_image + find_audio) / (2 * clips)


def every_image(sims_AV: Tensor) -> Tensor:
    """Return the similarities [A, A] with the images of all processes."""
    return gather(sims_AV.T).T
