"""What a training step costs at full size: time and peak memory, on this machine's CPU.

DenseAV's network with random weights, clips of 10 s and pictures of 224 pixels, DenseAV's loss, the
second stage, in which all weights learn. Each way runs in a process of its own, so that its peak
is its own: all that the process held at most. On a machine with other work processor time is what
counts. The last line is JSON.

    python -m benchmarks.cost.training [--batch 2 4] [--checkpointing off on] [--fused off on]
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.support.common import Check, at_most, finish, say

SAMPLES, SIDE = 164_200, 224
TARGET_GB = 8.0
"""Of batch 2 with activation checkpointing."""


def main() -> int:
    """Measure each way in its own process, and print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--checkpointing", nargs="+", default=["off", "on"], choices=("off", "on"))
    parser.add_argument("--fused", nargs="+", default=["on"], choices=("off", "on"))
    parser.add_argument("--precision", default="bf16-mixed", choices=("bf16-mixed", "32-true"))
    parser.add_argument("--steps", type=int, default=2, help="the last one is timed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options)))
        return 0
    table = Table("batch", "checkpointing", "fused Adam", "s a step", "processor, s", "peak GB")
    rows, checks = [], list[Check]()
    for way in product(options.batch, options.checkpointing, options.fused):
        row = in_own_process(options, *way)
        rows.append(row)
        say(json.dumps(row))
        figures = (f"{row[name]:.1f}" for name in ("step_s", "processor_s"))
        table.add_row(*map(str, way), *figures, f"{row['peak_gb']:.2f}")
        if way[:2] == (2, "on"):
            checks.append(at_most("peak GB of batch 2", row["peak_gb"], TARGET_GB))
    return finish([table], {"rows": rows}, checks)


def in_own_process(
    options: argparse.Namespace, batch: int, checkpointing: str, fused: str
) -> dict[str, Any]:
    """Run one measurement in a new process."""
    command = [sys.executable, "-m", "benchmarks.cost.training", "--one", "--batch", str(batch)]
    command += ["--checkpointing", checkpointing, "--fused", fused]
    command += ["--precision", options.precision, "--steps", str(options.steps)]
    command += ["--threads", str(options.threads)]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    row: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return row


def settings_of(options: argparse.Namespace) -> Any:
    """Return the run that is measured."""
    from denseav.train.data.toy import ToySettings
    from denseav.train.distributed.fabric import Machine
    from denseav.train.trainer.settings import Backbones, Optimization, Settings

    batch = options.batch[0]
    return Settings(
        backbones=Backbones(image="", audio=""),
        made=ToySettings(things=2 * batch, batch_size=batch, image_size=SIDE, samples=SAMPLES),
        optimization=Optimization(fused=options.fused[0] == "on"),
        machine=Machine(
            accelerator="cpu",
            precision=options.precision,
            threads=options.threads,
            activation_checkpointing=options.checkpointing[0] == "on",
        ),
    )


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Make some steps, the last of them by the clock."""
    import torch
    from lightning_fabric import seed_everything

    from denseav.train.distributed.fabric import place, start
    from denseav.train.loss.learner import Learner
    from denseav.train.trainer.backbones import new_network
    from denseav.train.trainer.checkpointer import Progress
    from denseav.train.trainer.loaders import open_loader
    from denseav.train.trainer.loop import gradients
    from denseav.train.trainer.optimizer import new_optimizer, optimizer_step
    from denseav.train.trainer.stages import set_learning, stages

    settings = settings_of(options)
    seed_everything(0, verbose=False)
    fabric = start(settings.machine)
    network = new_network(settings.network, settings.backbones, seed=0)
    learner = place(fabric, Learner(network, settings.pooling), settings.machine)
    optimizer = new_optimizer(settings, learner)
    _, stage = stages(settings.optimization)
    set_learning(learner, stage)
    encode, stepper = fabric.setup(learner, optimizer)
    encode.train()
    batches = open_loader(settings).endless()
    step_s = processor_s = 0.0
    for step in range(options.steps):
        began, began_processor = time.perf_counter(), time.process_time()
        optimizer.zero_grad(set_to_none=True)
        gradients(
            settings=settings,
            fabric=fabric,
            encode=encode,
            batches=batches,
            stage=stage,
            step=step,
            teacher=None,
            gate=None,
        )
        optimizer_step(
            settings=settings,
            fabric=fabric,
            encode=encode,
            stepper=stepper,
            progress=Progress(),
            out=Path(),
        )
        step_s, processor_s = time.perf_counter() - began, time.process_time() - began_processor
    return {
        "batch": options.batch[0],
        "checkpointing": options.checkpointing[0],
        "fused": options.fused[0],
        "precision": options.precision,
        "threads": torch.get_num_threads(),
        "step_s": step_s,
        "processor_s": processor_s,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 2**30,
    }


if __name__ == "__main__":
    sys.exit(main())
