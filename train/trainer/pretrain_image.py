"""Before the two meet: a small image encoder learns to see what will be heard.

The sounds of clips are put into clusters by what the pretrained audio encoder makes of them, and
from the picture of a clip the image encoder has to say which cluster its sound is in: cross-modal
deep clustering (Alwassel et al., "Self-Supervised Learning by Cross-Modal Audio-Video Clustering",
2020). No class is told. Where clips tell their kind, those that speak are left out; where they do
not, spoken names are clustered with the rest. Released encoders have had their own pretraining.
Enters: a configuration, a folder with a pretrained audio encoder, and the world. Leaves: a folder
as `transformers` writes it, which is a backbone.

Axes: B clips, C classes of clusters, D hidden, S samples.
"""

from collections.abc import Callable
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
from denseav.train.world.clips import Head, place_event, room
from denseav.train.world.library import library
from denseav.train.world.scenes import choose_names, compose, draw

COMPONENTS = 24
AT_ONCE = 16


class Pair(NamedTuple):
    """A clip of the world: the thing that is seen, and the cluster of its sound or spoken name."""

    name: str
    cluster: int


def pretrain_image(
    config: ModelConfig,
    settings: Pretraining,
    audio: Path,
    seed: int,
    out: Path,
    report: Callable[[int, float], None],
    *,
    labelled: bool,
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
    labelled
        Whether it is known which clips are speech; then only other sounds are used.

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
    pairs = cluster(settings, audio, np.random.default_rng([seed, 2]), labelled=labelled)
    says = nn.Linear(config.code_dim, settings.clusters)

    def loss_of(step: int) -> Tensor:
        image_B3HW, cluster_B = _batch(
            settings, pairs, step, np.random.default_rng([seed, 2, step])
        )
        with torch.autocast("cpu", torch.bfloat16):
            features_BKCHW = model.encode_image(image_B3HW)
        said_BC = says(features_BKCHW.float().flatten(3).amax(-1).flatten(1))
        return functional.cross_entropy(said_BC, cluster_B)

    learning = nn.ModuleList((model.image_encoder, model.image_aligner, says))
    learn(learning, loss_of, settings.image_rates(), report, unfinished(out))
    keep(model.image_encoder.vit, out)


def cluster(settings: Pretraining, audio: Path, random: Generator, *, labelled: bool) -> list[Pair]:
    """Return clips whose sounds are in clusters: of each class as many, none with its label.

    Half of them are spoken names, unless the kinds are `labelled`.
    """
    hubert = HubertModel.from_pretrained(audio)  # in evaluation mode
    names = [name for _ in range(settings.clustered) for name in CLASSES]
    features = []
    for first in range(0, len(names), AT_ONCE):
        some = names[first : first + AT_ONCE]
        waves = [_wave(random, name, settings.samples, labelled) for name in some]
        features.append(summarize(hubert, torch.from_numpy(np.stack(waves)).float()).numpy())
    _, labels = fit_clusters(
        np.concatenate(features), settings.clusters, COMPONENTS, int(random.integers(2**31))
    )
    return [Pair(name, int(label)) for name, label in zip(names, labels, strict=True)]


def _wave(random: Generator, name: str, samples: int, labelled: bool) -> NDArray[np.float32]:
    head: Head = "sound" if labelled or random.random() < 0.5 else "speech"
    _, wave_S = place_event(
        random=random, library=library(held_out=False), head=head, name=name, samples=samples
    )
    return wave_S + room(random, samples)


def _batch(
    settings: Pretraining, pairs: list[Pair], step: int, random: Generator
) -> tuple[Tensor, Tensor]:
    """Return pictures and clusters: first one thing and nothing else, at last two in clutter."""
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
    return normalize_image(image_B3HW), torch.tensor([pair.cluster for pair in chosen])
