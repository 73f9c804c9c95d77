"""Before any picture: a small audio encoder learns from audio alone.

Of each clip some stretches are hidden, and from what is left the encoder has to say how loud each
band of the whole clip is, every 20 ms: masked prediction as HuBERT's (Hsu et al., 2021), with a
log-mel spectrogram in place of its clusters. Released encoders have had theirs; one that begins
at random stands still for hundreds of steps without it. Enters: a configuration, and the world.
Leaves: a folder as `transformers` writes it, which is a backbone. What is stopped in between goes
on with the very next batch.

Axes: B clips, D hidden, F mel bands, L stem frames, S samples at 16 kHz.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
import torchaudio
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from denseav.models import CheckpointError, DenseAV, ModelConfig
from denseav.models.audio_encoder import SAMPLE_RATE_HZ, normalize_wave
from denseav.models.checkpoints.pickled_file import load_pickled
from denseav.models.config import STEM_HOP_SAMPLES, STEM_SPAN_SAMPLES
from denseav.train.distributed.fabric import use_eager_attention
from denseav.train.distributed.rank0_files import replacing
from denseav.train.errors import PreemptedError
from denseav.train.trainer.checkpointer import random_states, restore_random
from denseav.train.trainer.optimizer import optimizer_of
from denseav.train.trainer.settings import Pretraining
from denseav.train.world.classes import CLASSES
from denseav.train.world.clips import TWO_HEADS, Head, place_event, room
from denseav.train.world.library import library

BANDS = 64
CLIP_NORM = 10.0
FLOOR = 1e-4
ALONE: dict[Head, float] = {"sound": 7, "speech": 10, "tune": 7}
TOGETHER = 3.0
"""How often a kind is heard by itself in a clip, and how often any two are."""


def pretrain_audio(
    config: ModelConfig,
    settings: Pretraining,
    seed: int,
    out: Path,
    report: Callable[[int, float], None],
    *,
    muon: bool,
    heard: Sequence[Head] = TWO_HEADS,
) -> None:
    """Prepare an audio encoder on the CPU, and write it once it is done.

    Parameters
    ----------
    config
        The network whose audio encoder it is.
    settings, seed
        How, and what decides the rest.
    out
        The folder it appears in, whole.
    report
        Hears of every step and its loss, the mean error in deviations of the spectrogram; where it
        raises `PreemptedError`, the same call goes on later.
    muon
        Whether the encoder's matrices move by Muon.
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
    np.random.seed(seed)  # transformers draws what is hidden from NumPy
    model = DenseAV(config).train()
    use_eager_attention(model)
    hubert = model.audio_encoder.hubert
    hubert.config.apply_spec_augment, hubert.config.mask_time_prob = True, settings.hidden_share
    bands = nn.Linear(config.audio.hidden, BANDS)
    target = Spectrogram()

    def loss_of(step: int) -> Tensor:
        wave_BS = normalize_wave(waves(settings, heard, np.random.default_rng([seed, step])))
        with torch.autocast("cpu", torch.bfloat16):
            hidden_BLD = hubert(wave_BS).last_hidden_state
        said_BFL = bands(hidden_BLD.float()).transpose(1, 2)
        return functional.l1_loss(said_BFL, target(wave_BS))

    learning = nn.ModuleDict({"audio": hubert, "bands": bands})
    learn(learning, loss_of, settings.rates(), report, unfinished(out), muon=muon)
    keep(hubert, out)


def unfinished(out: Path) -> Path:
    """Return where an encoder that was stopped is kept until it goes on."""
    return out.with_name(f"{out.name}.ckpt")


def learn(
    module: nn.ModuleDict,
    loss_of: Callable[[int], Tensor],
    rates: Sequence[float],
    report: Callable[[int, float], None],
    stopped: Path,
    *,
    muon: bool,
) -> None:
    """Let all weights of a module learn, one step of each rate; `loss_of` is asked for each.

    Its parts have the names of the optimizer's groups.

    When `report` raises `PreemptedError`, all that is needed to go on is written to `stopped`.
    """
    named = ((name.partition(".")[0], weight) for name, weight in module.named_parameters())
    optimizer = optimizer_of(named, muon=muon, eps=1e-8, fused=False)
    step = _resume(stopped, module, optimizer) if stopped.exists() else 0
    while step < len(rates):
        for group in optimizer.param_groups:
            group["lr"] = rates[step]
        loss = loss_of(step)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(module.parameters(), CLIP_NORM)
        optimizer.step()
        step += 1
        try:
            report(step, loss.item())
        except PreemptedError:
            parts = {"module": module.state_dict(), "optimizer": optimizer.state_dict()}
            with replacing(stopped) as partial:
                torch.save({"step": step, "random": random_states(), **parts}, partial)
            raise


def _resume(stopped: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Go on from what was stopped; return how many steps are done."""
    try:
        state = load_pickled(stopped)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        restore_random(state["random"])
        return int(state["step"])
    except (OSError, RuntimeError, ValueError, TypeError, LookupError) as error:
        raise CheckpointError(
            f"{stopped} is damaged or of another configuration ({str(error).splitlines()[0]}); "
            "remove it, and the encoder begins again"
        ) from None


def keep(encoder: PreTrainedModel, out: Path) -> None:
    """Write an encoder; its folder appears whole, and nothing else of it stays.

    Raises
    ------
    DiskError
        When it cannot be written.
    """
    with replacing(out) as partial:
        encoder.save_pretrained(partial)
    unfinished(out).unlink(missing_ok=True)


class Spectrogram:
    """Waves [B, S] in, log-mel spectrograms [B, F, L] out: of each clip, mean 0 and deviation 1."""

    def __init__(self) -> None:
        self._mel = torchaudio.transforms.MelSpectrogram(
            SAMPLE_RATE_HZ,
            n_fft=STEM_SPAN_SAMPLES,
            hop_length=STEM_HOP_SAMPLES,
            n_mels=BANDS,
            center=False,
        )

    def __call__(self, wave_BS: Tensor) -> Tensor:
        """Return one frame for each frame of HuBERT's stem."""
        log_BFL = (self._mel(wave_BS) + FLOOR).log()
        deviation_B11, mean_B11 = torch.std_mean(log_BFL, dim=(1, 2), keepdim=True)
        normal_BFL: Tensor = (log_BFL - mean_B11) / (deviation_B11 + 1e-3)
        return normal_BFL


def waves(settings: Pretraining, heard: Sequence[Head], random: np.random.Generator) -> Tensor:
    """Return clips [B, S] of the world: something of one kind, or of two at once, in room noise."""
    parts = library(held_out=False)
    couples = list(combinations(heard, 2))
    choices: list[tuple[Head, ...]] = [*((kind,) for kind in heard), *couples]
    weights = [*(ALONE[kind] for kind in heard), *(TOGETHER / len(couples) for _ in couples)]
    shares = np.array(weights) / sum(weights)
    clips = []
    for _ in range(settings.batch_size):
        wave_S = room(random, settings.samples)
        for head in choices[int(random.choice(len(choices), p=shares))]:
            name = str(random.choice(CLASSES))
            wave_S = (
                wave_S
                + place_event(
                    random=random, library=parts, head=head, name=name, samples=settings.samples
                )[1]
            )
        clips.append(wave_S)
    return torch.from_numpy(np.stack(clips)).float()
