"""What one training step is given: pictures and sound of B clips, stacked.

Axes: B clips, 3 red green blue, H W pixels, S samples at 16 kHz.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

SPEECH, SOUND, TUNE, UNKNOWN = 0, 1, 2, -1


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """B clips, each a picture and the sound that goes with it.

    Attributes
    ----------
    image_B3HW : float32, normalised by ImageNet's mean and deviation.
    wave_BS : float32 in [-1, 1] at 16 kHz, as recorded: the zero-mean unit-variance form that
        HuBERT takes is made by who encodes it. Zero where there is no sound.
    audio_mask_BS : float32, 1 where there is sound, 0 in padding and masked spans.
    positive_mask_BS : float32, 1 where the sound belongs to the picture, 0 where another clip
        was spliced in, between the two in a cross-fade.
    image_mask_B1HW : float32, 1 where the picture is the clip's own, 0 where it was mixed in.
    kind_B : int64, `SPEECH`, `SOUND`, `TUNE` or `UNKNOWN`: what the clip's data set promises.
    partner : for mix-and-separate, B clips of the other kind in the same order; else None.
    mixed_wave_BS : for mix-and-separate, this batch's sound and the partner's in one wave,
        without splices; else None.
    """

    image_B3HW: Tensor
    wave_BS: Tensor
    audio_mask_BS: Tensor
    positive_mask_BS: Tensor
    image_mask_B1HW: Tensor
    kind_B: Tensor
    partner: "Batch | None" = None
    mixed_wave_BS: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of clips B."""
        return len(self.kind_B)

    @property
    def mixed_mask_BS(self) -> Tensor:  # noqa: N802 - the axes are part of the name
        """Return where the mixed wave sounds: where either of its two parts does."""
        assert self.partner is not None, "only a mixed batch has a mixed mask"
        return torch.maximum(self.audio_mask_BS, self.partner.audio_mask_BS)

    def to(self, device: torch.device | str) -> Self:
        """Return the batch on a device; copies from pinned memory do not wait."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """Return the batch in page-locked memory; the loader calls it where there is a GPU."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        parts: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            part = getattr(self, field.name)
            parts[field.name] = change(part) if isinstance(part, Tensor) else part
        if self.partner is not None:
            parts["partner"] = self.partner._map(change)
        return dataclasses.replace(self, **parts)
