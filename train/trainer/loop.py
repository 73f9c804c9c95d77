"""The loop: settings enter, a trained network leaves. It reads top to bottom.

A batch's way: loader, learner, objective, gradient, optimizer; and once in a while a line, a
validation, a checkpoint. Started again in the same folder, it goes on with the very next batch.

Errors
------
SettingsError        the machine lacks what the settings ask for
StoppedError         ten steps in a row had no finite gradient
PreemptedError       SIGTERM or SIGUSR1 came: the step is done and saved
"""

from collections.abc import Iterator
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor

from denseav.models import DenseAV, load
from denseav.train.clusters.cluster_start import ClusterGate, open_gate
from denseav.train.data.batch import Batch
from denseav.train.distributed.collectives import rank, total, world_size
from denseav.train.distributed.fabric import described, place, start
from denseav.train.distributed.rank0_files import on_rank_zero, writing
from denseav.train.errors import PreemptedError
from denseav.train.loss.chunked_similarity import use_fused
from denseav.train.loss.cluster_mixtures import Assigned
from denseav.train.loss.denseav_loss import Weights, denseav_terms
from denseav.train.loss.distillation import distillation_terms
from denseav.train.loss.learner import Learner
from denseav.train.loss.mix_and_separate import separation_terms
from denseav.train.trainer.backbones import new_network
from denseav.train.trainer.checkpointer import LAST, Checkpointer, Progress, RunState
from denseav.train.trainer.loaders import (
    TimedBatches,
    clips_of_step,
    held_out,
    open_bank,
    open_loader,
)
from denseav.train.trainer.optimizer import new_optimizer, optimizer_step, set_rates
from denseav.train.trainer.preemption import Preemption, preemptible
from denseav.train.trainer.pretrain_audio import pretrain_audio
from denseav.train.trainer.pretrain_image import pretrain_image
from denseav.train.trainer.prompted import prompted_scores, prompted_sets
from denseav.train.trainer.settings import Backbones, Intervals, Optimization, Settings
from denseav.train.trainer.stages import Stage, set_learning, stages
from denseav.train.trainer.tracking.run_log import RunLog
from denseav.train.trainer.validation import Encoded, disentanglement, encode_clips, recalls
from denseav.train.trainer.weight_average import WeightAverage


def train(settings: Settings, out: Path, console: Console) -> Progress:
    """Train a network, or go on where the run in `out` was.

    Parameters
    ----------
    settings
        The run.
    out
        Its folder: checkpoints, `model/`, figures.
    console
        Where lines are shown.

    Returns
    -------
    Progress
        How far it came.
    """
    with preemptible() as preemption:
        return _train(settings, out, console, preemption)


def _train(settings: Settings, out: Path, console: Console, preemption: Preemption) -> Progress:
    fabric = start(settings.machine)
    use_fused(settings.machine.fused_similarity)
    # What is wrong with the data is said now, not after minutes with the backbones, or at the
    # first validation.
    loader = open_loader(settings)
    held_out(settings)
    prompted_sets(settings.prompted)
    backbones = pretrained_backbones(settings, out, console, preemption)
    network = new_network(settings.network, backbones, settings.seed, settings.initial)
    gate = cluster_gate(settings, network, fabric, out, console)
    learner = place(
        fabric, Learner(network, settings.pooling, settings.streaming), settings.machine
    )
    teacher = open_teacher(settings, fabric)
    optimizer = new_optimizer(settings, learner)
    averaging = settings.optimization.average
    average = WeightAverage(learner, averaging) if averaging else None
    # Dropout differs among processes; HuBERT's masking of time draws from NumPy.
    torch.manual_seed(settings.seed + 1 + rank())
    np.random.seed(settings.seed + 1 + rank())

    checkpointer = Checkpointer(out, settings, fabric.strategy.precision)
    run = RunState(learner, optimizer, loader, average)
    progress = checkpointer.resume(run)
    batches = TimedBatches(loader.endless())
    with RunLog(out, settings, progress.step, console) as log:
        log.message(described(fabric))
        for stage in stages(settings.optimization, sound_alone=settings.taught):
            if progress.step >= stage.end or exhausted(settings.rhythm, progress):
                continue
            log.message(f"step {progress.step}: {stage.name} learn until step {stage.end}")
            set_learning(learner, stage)
            if settings.optimization.restart and progress.step == stage.begin:
                optimizer.state.clear()
            encode, stepper = fabric.setup(learner, optimizer)
            encode.train()
            while progress.step < stage.end and not exhausted(settings.rhythm, progress):
                rate = set_rates(optimizer, settings.optimization, progress.step)
                optimizer.zero_grad(set_to_none=True)
                terms = gradients(
                    settings=settings,
                    fabric=fabric,
                    encode=encode,
                    batches=batches,
                    stage=stage,
                    step=progress.step,
                    teacher=teacher,
                    gate=gate,
                )
                norm = optimizer_step(
                    settings=settings,
                    fabric=fabric,
                    encode=encode,
                    stepper=stepper,
                    progress=progress,
                    out=out,
                )
                if average and not progress.skipped_in_row:
                    average.update()
                log.count_step(clips_of_step(settings), batches.waited_s())

                if progress.step % settings.rhythm.log == 0:
                    losses = shared(settings, terms)
                    log.record_step(
                        step=progress.step,
                        terms=losses,
                        rate=rate,
                        norm=norm,
                        skipped=progress.skipped,
                    )
                last = progress.step == settings.optimization.steps
                due = last or progress.step % settings.rhythm.validate == 0
                recall = validate(settings, run, log, progress.step) if due else None
                # Amid steps without effect the checkpoint before them stays, to go back to.
                kept = last or not progress.skipped_in_row
                preempted = not last and preemption.wanted(fabric.device)
                if kept and (due or preempted or is_due(settings.rhythm, progress.step)):
                    best = due and (progress.improves(recall) or settings.rhythm.model == "last")
                    with log.paused():
                        checkpointer.save(run, progress, best=best)
                if preempted:
                    raise PreemptedError(
                        f"told to stop after step {progress.step}; the same command goes on from "
                        f"{out / LAST}"
                    )
        if exhausted(settings.rhythm, progress):
            log.message(f"step {progress.step}: {progress.stale} validations without a better one")
    return progress


def exhausted(rhythm: Intervals, progress: Progress) -> bool:
    """Tell whether a run ends early: so many validations in a row have found no better recall."""
    return 0 < rhythm.patience <= progress.stale


def is_due(rhythm: Intervals, step: int) -> bool:
    """Tell whether a step ends with a checkpoint, whatever else it does."""
    return step % rhythm.save == 0 or (rhythm.keep > 0 and step % rhythm.keep == 0)


def pretrained_backbones(
    settings: Settings, out: Path, console: Console, preemption: Preemption
) -> Backbones:
    """Return where the encoders begin; they are pretrained where that is wanted."""
    wanted, audio, image = settings.pretraining, out / "pretrained_audio", out / "pretrained_image"
    world = settings.world
    if wanted is None or world is None:
        return settings.backbones

    def report(step: int, loss: float) -> None:
        if preemption.noted:
            raise PreemptedError(
                f"told to stop while an encoder is pretrained, at step {step}; the same command "
                "goes on from there"
            )
        if step % settings.rhythm.log == 0:
            console.print(f"pretraining step {step}  loss {loss:.4f}", highlight=False)

    def work() -> None:
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
        # The other processes wait: what they have of the CPU is free.
        torch.set_num_threads(torch.get_num_threads() * world_size())
        if not audio.exists():
            console.print(f"the audio encoder is pretrained first: {wanted.steps} steps")
            pretrain_audio(
                config=settings.network,
                settings=wanted,
                seed=settings.seed,
                out=audio,
                report=report,
                muon=settings.optimization.muon,
                heard=world.kinds,
            )
        if not image.exists():
            console.print(f"the image encoder is pretrained next: {wanted.image_steps} steps")
            pretrain_image(
                config=settings.network,
                settings=wanted,
                audio=audio,
                seed=settings.seed,
                out=image,
                report=report,
                tell=lambda text: console.print(text, highlight=False),
                muon=settings.optimization.muon,
                labelled=world.told,
                heard=world.kinds,
            )
        torch.set_num_threads(torch.get_num_threads() // world_size())

    on_rank_zero(work)
    return Backbones(image=str(image), audio=str(audio))


def open_teacher(settings: Settings, fabric: Fabric) -> DenseAV | None:
    """Return the network whose features are learned from, on its device, where there is one."""
    if not settings.taught:
        return None
    return load(settings.initial).to(fabric.device).requires_grad_(False)


def cluster_gate(
    settings: Settings, network: DenseAV, fabric: Fabric, out: Path, console: Console
) -> ClusterGate | None:
    """Return what keeps each clip in one head at first, where that is wanted."""
    if settings.cluster_start is None or settings.cluster_start.gate_steps == 0:
        return None
    with fabric.autocast():
        return open_gate(
            settings=settings.cluster_start,
            network=network,
            heads=len(settings.network.heads),
            bank=lambda: open_bank(settings).endless(),
            out=out,
            seed=settings.seed,
            device=fabric.device,
            report=lambda text: console.print(text, highlight=False),
        )


def gradients(
    settings: Settings,
    fabric: Fabric,
    encode: Any,
    batches: Iterator[Batch],
    stage: Stage,
    step: int,
    teacher: DenseAV | None,
    gate: ClusterGate | None,
) -> dict[str, Tensor]:
    """Add up the gradients of one step; return this process's share of the last batch's terms."""
    parts = settings.optimization.accumulate
    weights = settings.loss.ramped(ramp(settings.optimization, step))
    mixtures = "audio" in stage.learning and step >= settings.optimization.contrast_steps
    terms: dict[str, Tensor] = {}
    for part in range(parts):
        batch = next(batches).to(fabric.device)
        generator = torch.Generator().manual_seed((settings.seed << 32) + step * parts + part)
        with fabric.autocast():
            assigned = gate.assigned(step, batch.wave_BS) if gate else None
        with fabric.no_backward_sync(encode, enabled=part + 1 < parts):
            terms = objective(
                settings=settings,
                encode=encode,
                batch=batch,
                generator=generator,
                weights=weights,
                mixtures=mixtures,
                teacher=teacher,
                assigned=assigned,
            )
            loss = weights.total(terms)
            # Shares add up to the loss, and data parallelism takes the mean of their gradients.
            fabric.backward(loss * (world_size() / parts))
    return terms


def objective(
    settings: Settings,
    encode: Any,
    batch: Batch,
    generator: torch.Generator,
    weights: Weights,
    *,
    mixtures: bool,
    teacher: DenseAV | None = None,
    assigned: Assigned | None = None,
) -> dict[str, Tensor]:
    """Return this process's share of all terms of one batch."""
    if teacher is not None:
        assert settings.streaming is not None
        return distillation_terms(encode, batch, teacher, settings.streaming.teacher_tokens)
    common = (encode, batch, settings.network.heads, weights, generator)
    if settings.separation is None:
        return denseav_terms(*common, assigned)
    return separation_terms(*common, settings.separation, mixtures=mixtures)


def ramp(optimization: Optimization, step: int) -> float:
    """Return how much of their weight the terms beside the contrast have in a step."""
    since = step - optimization.contrast_steps + 1
    return min(max(since / max(optimization.ramp_steps, 1), 0), 1)


def shared(settings: Settings, terms: dict[str, Tensor]) -> dict[str, float]:
    """Return the terms of all processes' batch, with their weighted total."""
    values = {name: total(term) for name, term in terms.items()}
    values["total"] = settings.loss.total(values)
    return {name: value.item() for name, value in values.items()}


def validate(settings: Settings, run: RunState, log: RunLog, step: int) -> float | None:
    """Measure retrieval and prompted maps, draw heatmaps, and return the mean recall."""
    averaging = settings.optimization.average
    evaluated = run.average if averaging and averaging.evaluate else None
    with log.paused(), evaluated.applied() if evaluated else nullcontext():
        return _validate(settings, run.learner, log, step)


def _validate(settings: Settings, learner: Learner, log: RunLog, step: int) -> float | None:
    found: dict[str, float] = {}
    means: list[float] = []
    encoded: list[Encoded] = []
    device = learner.model.calibrator.scale.device
    limit = -(-settings.rhythm.validation_clips // world_size())
    learner.eval()
    for name, batches in held_out(settings).items():
        left = iter(batches)
        first = next(left, None)
        if first is None:
            continue
        path = f"{name}/" if name else ""
        encoded.append(encode_clips(learner, chain([first], left), device, limit))
        of_set = recalls(encoded[-1].features)
        means.append(of_set["recall"])
        found |= {f"recall/{path}{figure}": value for figure, value in of_set.items()}
        log.record_heatmaps(step, f"{path}heatmaps", learner, first.to(device))
    found |= disentanglement(encoded) | prompted_scores(learner, prompted_sets(settings.prompted))
    learner.train()
    recall = sum(means) / len(means) if means else None
    if recall is not None:
        found["recall/recall"] = recall
    if found:
        log.record_validation(step, found)
    return recall
