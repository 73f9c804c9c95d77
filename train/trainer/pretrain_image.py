"""Before the two meet: a small image encoder learns to see what will be heard.

The sounds of clips are put into clusters by what the pretrained audio encoder makes of them, and
from the picture of a clip the image encoder has to say which cluster its sound is in: cross-modal
deep clustering (Alwassel et al., "Self-Supervised Learning by Cross-Modal Audio-Video Clustering",
2020). No class is told. Where clips tell their kind, those that speak are left out. Where they do
not, clips are first put into as many kinds as there are heads, and each kind into clusters of its
own. Spoken names are in clusters of voices more than of names, of which a picture says nothing: so
kinds of whose clusters pictures say little are left out after an eighth of the steps. Released
encoders have had their own pretraining. Enters: a configuration, a folder with a pretrained audio
encoder, and the world. Leaves: a folder as `transformers` writes it, which is a backbone.

Axes: B clips, C clusters of a kind, D hidden, K kinds, N clips, S samples.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import HubertModel

from denseav.models import DenseAV, ModelConfig
from denseav.models.image_encoder import normalize_image
from denseav.train.clusters.audio_summary import summarize
from denseav.train.clusters.kmeans import fit_clusters
from denseav.train.distributed.fabric import use_eager_attention
from denseav.train.trainer.pretrain_audio import keep, learn, unfinished
from denseav.train.trainer.settings import Pretraining
from denseav.train.world.classes import CLASSES
from denseav.train.world.clips import TWO_HEADS, Head, place_event, room
from denseav.train.world.library import library
from denseav.train.world.scenes import choose_names, compose, draw

COMPONENTS = 24
KIND_COMPONENTS = 2
"""With so many principal components, clusters are kinds; with many, whatever they happen to be."""
AT_ONCE = 16
TRIAL_SHARE = 1 / 8
"""In so many of all steps there are all kinds."""
LEAST_TOLD = 0.5
"""Kinds stay of whose clusters pictures tell so much, of what they tell of any kind's."""


class Pair(NamedTuple):
    """A clip of the world: the thing that is seen, and the kind and cluster of what is heard."""

    name: str
    kind: int
    cluster: int


class Told(nn.Module):
    """How much pictures tell of each kind's clusters, in nats; stopped, it goes on where it was."""

    error_K: Tensor
    clips_K: Tensor

    def __init__(self, pairs: Sequence[Pair], kinds: int) -> None:
        super().__init__()
        labels_K = [np.array([p.cluster for p in pairs if p.kind == kind]) for kind in range(kinds)]
        shares_K = [np.bincount(labels) / len(labels) for labels in labels_K]
        self._entropy_K = torch.tensor([-np.sum(p[p > 0] * np.log(p[p > 0])) for p in shares_K])
        self.register_buffer("error_K", torch.zeros(kinds))
        self.register_buffer("clips_K", torch.zeros(kinds))

    def add(self, kind_B: Tensor, error_B: Tensor) -> None:
        """Count the cross-entropy of some clips' clusters."""
        self.error_K.index_add_(0, kind_B, error_B.detach())
        self.clips_K.index_add_(0, kind_B, torch.ones_like(error_B))

    def nats(self) -> list[float]:
        """Return how much is told of each kind's clusters, at least 0."""
        told_K = self._entropy_K - self.error_K / self.clips_K.clamp_min(1)
        return [float(nats) for nats in told_K.clamp_min(0)]

    def kept(self) -> list[int]:
        """Return the kinds that stay."""
        nats = self.nats()
        return [kind for kind, told in enumerate(nats) if told >= LEAST_TOLD * max(nats)]


def pretrain_image(
    config: ModelConfig,
    settings: Pretraining,
    audio: Path,
    seed: int,
    out: Path,
    report: Callable[[int, float], None],
    tell: Callable[[str], None],
    *,
    muon: bool,
    labelled: bool,
    heard: Sequence[Head] = TWO_HEADS,
) -> None:
    """Prepare an image encoder on the CPU, and write it once it is done.

    Parameters
    ----------
    config
        The network whose image encoder it is.
    settings, seed
        How, and what decides the rest.
    audio
        The folder of the pretrained audio encoder.
    out
        The folder it appears in, whole.
    report
        Called after each step with its number and loss, the cross-entropy of the clusters;
        where it raises `PreemptedError`, the same call goes on later.
    tell
        Hears which kinds stay.
    muon
        Whether the encoder's matrices move by Muon.
    labelled
        Whether it is known which clips are speech; then only other sounds are used.
    heard
        The kinds of audio there are.

    Raises
    ------
    CheckpointError
        When what was stopped is of another configuration.
    DiskError
        When it cannot be written.
    """
    torch.manual_seed(seed)
    model = DenseAV(config).train()
    use_eager_attention(model)
    kinds = 1 if labelled else len(config.heads)
    pairs = cluster(settings, audio, np.random.default_rng([seed, 2]), kinds, heard)
    says, told = nn.Linear(config.code_dim, kinds * settings.clusters), Told(pairs, kinds)
    trial = int(settings.image_steps * TRIAL_SHARE)

    def loss_of(step: int) -> Tensor:
        kept = told.kept() if step >= trial else list(range(kinds))
        if step == trial and kinds > 1:
            tell(_verdict(told.nats(), kept))
        some = [pair for pair in pairs if pair.kind in kept]
        image_B3HW, chosen = _batch(settings, some, step, np.random.default_rng([seed, 2, step]))
        kind_B = torch.tensor([pair.kind for pair in chosen])
        with torch.autocast("cpu", torch.bfloat16):
            features_BHCHW = model.encode_image(image_B3HW)
        said_BX = says(features_BHCHW.float().flatten(3).amax(-1).flatten(1))
        said_BC = said_BX.unflatten(1, (kinds, -1))[torch.arange(len(chosen)), kind_B]
        cluster_B = torch.tensor([pair.cluster for pair in chosen])
        error_B = functional.cross_entropy(said_BC, cluster_B, reduction="none")
        if trial // 2 <= step < trial:
            told.add(kind_B, error_B)
        return error_B.mean()

    parts = {"image": model.image_encoder, "aligner": model.image_aligner}
    learning = nn.ModuleDict(parts | {"says": says, "told": told})
    learn(learning, loss_of, settings.image_rates(), report, unfinished(out), muon=muon)
    keep(model.image_encoder.vit, out)


def cluster(
    settings: Pretraining,
    audio: Path,
    random: Generator,
    kinds: int,
    heard: Sequence[Head] = TWO_HEADS,
) -> list[Pair]:
    """Return clips whose sounds are in clusters: of each class as many, none with its label.

    With more kinds than one, as many clips are of each that is heard; else all are sounds.
    """
    hubert = HubertModel.from_pretrained(audio)  # in evaluation mode
    names = np.array([name for _ in range(settings.clustered) for name in CLASSES])
    features = []
    for first in range(0, len(names), AT_ONCE):
        some = [str(name) for name in names[first : first + AT_ONCE]]
        waves = [
            _wave(random, name, settings.samples, heard if kinds > 1 else ("sound",))
            for name in some
        ]
        features.append(summarize(hubert, torch.from_numpy(np.stack(waves)).float()).numpy())
    vector_ND = np.concatenate(features)
    seed = int(random.integers(2**31))
    _, kind_N = fit_clusters(vector_ND, kinds, KIND_COMPONENTS, seed)
    pairs = []
    for kind in range(kinds):
        own = kind_N == kind
        count, components = (min(most, own.sum()) for most in (settings.clusters, COMPONENTS))
        _, label_n = fit_clusters(vector_ND[own], int(count), int(components), seed)
        pairs += [Pair(str(n), kind, int(c)) for n, c in zip(names[own], label_n, strict=True)]
    return pairs


def _verdict(nats: list[float], kept: list[int]) -> str:
    found = ", ".join(f"{told:.2f}" for told in nats)
    return (
        f"pictures tell {found} nats of the clusters of each kind of audio; "
        f"{len(kept)} of {len(nats)} kinds stay"
    )


def _wave(random: Generator, name: str, samples: int, heard: Sequence[Head]) -> NDArray[np.float32]:
    head = heard[int(random.random() * len(heard))] if len(heard) > 1 else heard[0]
    _, wave_S = place_event(
        random=random, library=library(held_out=False), head=head, name=name, samples=samples
    )
    return wave_S + room(random, samples)


def _batch(
    settings: Pretraining, pairs: list[Pair], step: int, random: Generator
) -> tuple[Tensor, list[Pair]]:
    """Return pictures and their clips: first one thing on nothing, at last two in clutter."""
    done = step / settings.image_steps
    side, most = (64, 1) if done < 0.5 else (96, 1 if done < 0.75 else 2)
    chosen = [pairs[int(i)] for i in random.integers(len(pairs), size=settings.image_batch_size)]
    parts = library(held_out=False)
    pictures = []
    for pair in chosen:
        names = choose_names(random, int(random.integers(1, most + 1)), pair.name)
        scene = compose(
            random=random, library=parts, height=side, width=side, names=names, plain=done < 0.5
        )
        pictures.append(draw(scene, parts)[0])
    image_B3HW = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    return normalize_image(image_B3HW), chosen
