"""What training changes in a clip: its picture, and its sound.

Every function takes its randomness as an argument, so that a clip's changes depend on the seed,
the epoch and the clip alone, and come out the same after a restart.

Axes: B clips, 3 red green blue, H W pixels, S samples at 16 kHz.
"""

import math
from functools import partial

import torch
from numpy.random import Generator
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from denseav.models.audio_encoder import SAMPLE_RATE_HZ, normalize_wave
from denseav.models.image_encoder import IMAGE_MEAN, IMAGE_STD
from denseav.train.data.decode import fit

SPLICE_S = (1.0, 4.0)
MIN_WINDOW_S = 0.5
SHORTEST_FADE_SAMPLES = 8_000

_QUIET = 1e-6


class Pictures:
    """Pictures as the paper has them: cropped, flipped and recoloured, or only fitted.

    Parameters
    ----------
    size : side of the square that comes out, in pixels.
    augment : crop 8 to 100 % of the area at an aspect of 3:4 to 4:3, flip half, jitter the
        colours by 0.2, make a tenth grey; otherwise scale the short side and crop the centre.
    """

    def __init__(self, size: int, augment: bool) -> None:
        changes: list[v2.Transform] = (
            [
                v2.RandomResizedCrop(size),
                v2.RandomHorizontalFlip(0.5),
                v2.ColorJitter(0.2, 0.2, 0.2, 0.2),
                v2.RandomGrayscale(0.1),
            ]
            if augment
            else [v2.Lambda(partial(fit, size=(size, size)))]
        )
        self._change = v2.Compose(changes)
        self._finish = v2.Compose(
            [
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(IMAGE_MEAN, IMAGE_STD),
            ]
        )

    def __call__(self, picture: Image.Image, random: Generator) -> Tensor:
        """Return float32 [3, size, size], normalised by ImageNet's mean and deviation."""
        with torch.random.fork_rng(devices=[]):
            # The CPU's generator alone: `torch.manual_seed` would seed the GPUs', and dropout.
            torch.default_generator.manual_seed(int(random.integers(2**62)))
            image_3HW: Tensor = self._finish(self._change(picture))
        return image_3HW


def quad(images_B3HW: Tensor, random: Generator) -> tuple[Tensor, Tensor]:
    """Put four pictures of one size, halved, into the quarters of one, in random order.

    Parameters
    ----------
    images_B3HW : four normalised pictures, of even height and width; the first is the clip's own.

    Returns
    -------
    tuple of Tensor
        The picture [3, H, W], and float32 [1, H, W]: 1 where the first picture is.
    """
    half_B3hw = torch.nn.functional.interpolate(
        images_B3HW, scale_factor=0.5, mode="bilinear", align_corners=False
    )
    order = random.permutation(4)
    own_B1hw = torch.zeros_like(half_B3hw[:, :1])
    own_B1hw[0] = 1
    return _tile(half_B3hw[order]), _tile(own_B1hw[order])


def _tile(quarters_BChw: Tensor) -> Tensor:
    top, bottom = quarters_BChw[:2], quarters_BChw[2:]
    return torch.cat([torch.cat([*top], dim=-1), torch.cat([*bottom], dim=-1)], dim=-2)


def splice(wave_S: Tensor, other_S: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """Fade over to another sound for a while, by cosines.

    Parameters
    ----------
    wave_S : float32, what is heard before and after.
    other_S : float32, what is heard between; no longer than what follows `start` in `wave_S`.
    start : sample of `wave_S` at which the other sound begins.

    Returns
    -------
    tuple of Tensor
        The wave [S], and the share [S] of `wave_S` in it: 1, down to 0, up to 1.
    """
    span = len(other_S)
    fade = min(span // 2, max(span // 4, SHORTEST_FADE_SAMPLES))
    down = 0.5 * (1 + torch.cos(torch.linspace(0, math.pi, fade)))
    share_S = torch.ones_like(wave_S)
    share_S[start : start + fade] = down
    share_S[start + fade : start + span - fade] = 0
    share_S[start + span - fade : start + span] = down.flip(0)
    spliced_S = wave_S * share_S
    spliced_S[start : start + span] += other_S * (1 - share_S[start : start + span])
    return spliced_S, share_S


def draw_splice(sound_samples: int, other_samples: int, random: Generator) -> tuple[int, int, int]:
    """Draw a splice: 1 to 4 s anywhere in the other sound, put anywhere in what is heard.

    The released training put it anywhere in the whole recording, where it was often cut off.

    Returns
    -------
    tuple of int
        Start in the other sound, length, and start in the sound, all in samples; length 0 when
        the sound is shorter than the splice.
    """
    wanted = round(random.uniform(*SPLICE_S) * SAMPLE_RATE_HZ)
    span = min(wanted, other_samples)
    if span > sound_samples:
        return 0, 0, 0
    begin = int(random.integers(other_samples - span + 1))
    return begin, span, int(random.integers(sound_samples - span + 1))


def draw_window(sound_samples: int, random: Generator) -> tuple[int, int]:
    """Draw what stays audible: at least half a second, anywhere in the sound.

    Returns
    -------
    tuple of int
        First sample and the one after the last.
    """
    shortest = min(round(MIN_WINDOW_S * SAMPLE_RATE_HZ), sound_samples)
    span = int(random.integers(shortest, sound_samples + 1))
    start = int(random.integers(sound_samples - span + 1))
    return start, start + span


def mix(
    wave_S: Tensor,
    mask_S: Tensor,
    partner_S: Tensor,
    partner_mask_S: Tensor,
    *,
    gain_db: float,
    level: bool,
    normalized: bool,
) -> Tensor:
    """Add two sounds.

    Parameters
    ----------
    wave_S, partner_S : float32 waves of one length.
    mask_S, partner_mask_S : 1 where each sounds.
    gain_db : how much louder the first is made, in decibels.
    level : first give the partner the loudness (RMS where it sounds) of the first.
    normalized : instead, first give each zero mean and unit variance, as HuBERT is given them.

    Returns
    -------
    Tensor
        float32 [S]: the first plus the partner. The gain is taken off the partner.
    """
    if normalized:
        wave_S, partner_S = normalize_wave(wave_S), normalize_wave(partner_S)
    elif level:
        loud, partner_loud = _rms(wave_S, mask_S), _rms(partner_S, partner_mask_S)
        if min(loud, partner_loud) > _QUIET:
            partner_S = partner_S * (loud / partner_loud)
    return wave_S + partner_S * 10 ** (-gain_db / 20)


def _rms(wave_S: Tensor, mask_S: Tensor) -> float:
    return float(((wave_S * mask_S).square().sum() / mask_S.sum().clamp_min(1)).sqrt())
