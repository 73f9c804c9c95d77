"""Heads apart by a start from clusters, without labels: batches enter, a head for each clip leaves.

The plain objective does not part heads where every kind of audio points at the same things: a head
that knows a thing from its sound is the easier one for its name as well, and heads divide things
instead of kinds. So, in the first steps, a clip is compared in one head alone, that of its cluster;
the clusters are k-means of a bank of clips by what the audio encoder makes of them before it meets
any picture, and, where it is wanted, by how much pictures tell of clips that sound alike. Nobody
says what a cluster means. After these steps the objective is the paper's; where it is wanted, with
mixtures of clips of different clusters. None of this is the papers'.

B clips, D coordinates, E of a picture, K heads and clusters, S samples at 16 kHz.
"""

import copy
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor
from transformers import HubertModel

from denseav.models import CheckpointError, DenseAV
from denseav.models.image_encoder import ImageEncoder
from denseav.train.clusters.audio_summary import summarize
from denseav.train.clusters.kmeans import Clusters, fit_clusters
from denseav.train.clusters.seen_clusters import COMPONENTS, SeenClusters, fit_seen_clusters
from denseav.train.data.batch import Batch
from denseav.train.distributed.rank0_files import on_rank_zero, replacing, writing
from denseav.train.errors import SettingsError
from denseav.train.loss.cluster_mixtures import Assigned

FILE = "clusters.safetensors"
By = Literal["encoder", "random_encoder", "loudness", "coin"]


@dataclass(frozen=True, kw_only=True)
class ClusterStart:
    """Heads that are not told what they are for, and begin apart.

    Attributes
    ----------
    gate_steps
        In so many steps, at first, a clip is compared in the head of its cluster alone; 0 for
        none, which is the paper's objective.
    bank_clips
        So many clips, the first that a single process would learn from, are put into clusters.
    components
        So many principal components of their features count. Whitened, all weigh alike: with many,
        clusters divide what they happen to (benchmarks/RESULTS.md); with `pictures` at most 12.
    pictures
        Whether it counts as well, twice as much as all these components, how alike the pictures
        are of clips that sound alike, to the image encoder as training begins; where that is
        pretrained.
    mixtures
        Whether, once the gate is open, clips of different clusters are also heard at once, and the
        head of each has to find its picture.
    by
        What of a clip is put into clusters: what the audio encoder makes of it as training begins,
        or, to see what that brings, what one with random weights does, how loud it is, or a number
        by chance.
    """

    gate_steps: int = 1_000
    bank_clips: int = 1_024
    components: int = 2
    pictures: bool = False
    mixtures: bool = False
    by: By = "encoder"

    def __post_init__(self) -> None:
        if self.gate_steps < 0 or self.components < 1:
            raise SettingsError(
                "cluster_start: gate_steps cannot be below 0, nor components below 1"
            )
        if self.bank_clips < 64:
            raise SettingsError("cluster_start: bank_clips must be at least 64")
        if self.mixtures and self.gate_steps == 0:
            raise SettingsError(
                "cluster_start: mixtures begin where the gate opens; set gate_steps to 1 or more, "
                "or mixtures to false"
            )
        if self.pictures and self.by != "encoder":
            raise SettingsError(
                f"cluster_start: pictures goes with by encoder alone, not {self.by}; "
                "set pictures to false"
            )
        if self.pictures and self.components > COMPONENTS:
            raise SettingsError(
                f"cluster_start: with pictures, components is at most {COMPONENTS}, not "
                f"{self.components}"
            )


class ClusterGate:
    """Which head each clip of a step is compared in; holds the encoder as it was at first."""

    def __init__(
        self, settings: ClusterStart, clusters: Clusters | SeenClusters, vectors: "Vectors"
    ) -> None:
        self._settings, self._clusters = settings, clusters
        self._vectors: Vectors | None = vectors

    def assigned(self, step: int, wave_BS: Tensor) -> Assigned | None:
        """Return the head of each clip, or None once none is needed any more."""
        alone = step < self._settings.gate_steps
        if not alone and not self._settings.mixtures:
            self._vectors = None  # the encoder's memory is free
        if self._vectors is None:
            return None
        numbers_B = self._clusters.numbers(self._vectors(wave_BS).cpu().numpy())
        return Assigned(torch.from_numpy(numbers_B).to(wave_BS.device), alone)


Vectors = Callable[[Tensor], Tensor]
"""Waves [B, S] to what of them is put into clusters, float32 [B, D]."""


def open_gate(
    settings: ClusterStart,
    network: DenseAV,
    heads: int,
    bank: Callable[[], Iterator[Batch]],
    out: Path,
    seed: int,
    device: torch.device,
    report: Callable[[str], None],
) -> ClusterGate:
    """Return a run's gate; its clusters are those of the run's folder, made where there are none.

    Parameters
    ----------
    network
        As training begins; a copy of its audio encoder is kept until the gate is open.
    heads
        How many clusters.
    bank
        Called, on the first process, where clips are needed.
    out, seed
        The run's.
    report
        Hears how many clips are in which cluster.

    Raises
    ------
    CheckpointError
        When the folder's clusters are damaged, of another number of heads, or not on every node.
    DiskError
        When they cannot be written.
    """
    path = out / FILE
    vectors = _vectors(settings.by, network.audio_encoder.hubert, seed, device)

    def work() -> None:
        if path.exists():
            return
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
        see = _see(network.image_encoder, device) if settings.pictures else None
        heard, seen = [], []
        for batch in _first(bank(), settings.bank_clips):
            heard.append(vectors(batch.wave_BS.to(device)).cpu().numpy())
            if see:
                seen.append(see(batch.image_B3HW.to(device)).cpu().numpy())
        vector_ND, kmeans_seed = np.concatenate(heard)[: settings.bank_clips], seed % 2**31
        common = heads, min(settings.components, *vector_ND.shape), kmeans_seed
        clusters: Clusters | SeenClusters
        if seen:
            seen_NE = np.concatenate(seen)[: settings.bank_clips]
            clusters, number_N = fit_seen_clusters(vector_ND, seen_NE, *common)
        else:
            clusters, number_N = fit_clusters(vector_ND, *common)
        with replacing(path) as partial:
            save_file(clusters._asdict(), partial)
        shares = ", ".join(f"{share:.0%}" for share in np.bincount(number_N) / len(number_N))
        report(
            f"clusters of {len(number_N)} clips by their audio"
            f"{' and what pictures tell of it' if seen else ''}: {shares}; until step "
            f"{settings.gate_steps} a clip is compared in the head of its cluster alone"
        )

    on_rank_zero(work)
    return ClusterGate(settings, _read(path, heads), vectors)


def _first(bank: Iterator[Batch], clips: int) -> Iterator[Batch]:
    """Yield batches until there are so many clips, the last batch whole."""
    given = 0
    while given < clips:
        batch = next(bank)
        given += len(batch)
        yield batch


def _see(encoder: ImageEncoder, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return what makes vectors [B, E] of pictures: maxima and means over their patches."""
    frozen = copy.deepcopy(encoder).train(mode=False).requires_grad_(requires_grad=False).to(device)

    def see(image_B3HW: Tensor) -> Tensor:
        patches_BDhw = frozen(image_B3HW)[0].float()
        return torch.cat((patches_BDhw.amax((2, 3)), patches_BDhw.mean((2, 3))), dim=1)

    return see


def _read(path: Path, heads: int) -> Clusters | SeenClusters:
    if not path.exists():
        raise CheckpointError(f"{path} is not on every node; give an --out that all nodes share")
    try:
        parts = load_file(path)
        kind = SeenClusters if "told_N" in parts else Clusters
        clusters: Clusters | SeenClusters = kind(**parts)
    except (OSError, SafetensorError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged ({str(error).splitlines()[0]}); remove it, and it is made again"
        ) from None
    if len(clusters.centre_KP) != heads:
        raise CheckpointError(
            f"{path} has {len(clusters.centre_KP)} clusters for {heads} heads; give another --out"
        )
    return clusters


def _vectors(by: By, encoder: HubertModel, seed: int, device: torch.device) -> Vectors:
    if by == "loudness":
        return _loudness
    if by == "coin":
        return _chance
    frozen = copy.deepcopy(encoder) if by == "encoder" else _random(encoder, seed)
    frozen.train(mode=False).requires_grad_(requires_grad=False)
    torch.nn.Module.to(frozen, device)
    return lambda wave_BS: summarize(frozen, wave_BS)


def _random(encoder: HubertModel, seed: int) -> HubertModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        return HubertModel(encoder.config)


def _loudness(wave_BS: Tensor) -> Tensor:
    return wave_BS.std(-1, keepdim=True).clamp_min(1e-6).log()


def _chance(wave_BS: Tensor) -> Tensor:
    """Return a number of each clip that nothing else of it follows from, and is always the same."""
    drawn = [zlib.crc32(wave_S.cpu().numpy().tobytes()) / 2**32 for wave_S in wave_BS]
    return torch.tensor(drawn)[:, None]
