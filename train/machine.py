"""The machine: settings enter, a started Fabric leaves.

One device, data parallelism over many, many nodes: torchrun and SLURM are recognised by Fabric.

Errors
------
SettingsError        the machine lacks the devices that the settings ask for
"""

import os

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.strategy import Strategy

from denseav.train.errors import SettingsError
from denseav.train.settings import Machine, Settings


def start(settings: Settings) -> Fabric:
    """Start this process's part of the run; more processes are launched where they are wanted."""
    machine = settings.machine
    kind = _kind(machine)
    if machine.threads and kind == "cpu":
        torch.set_num_threads(machine.threads)
    fabric = Fabric(
        accelerator=kind,
        devices=machine.devices,
        num_nodes=machine.nodes,
        precision=machine.precision,
        strategy=_strategy(settings),
    )
    fabric.launch()
    return fabric


def _kind(machine: Machine) -> str:
    gpus = torch.cuda.device_count()
    if machine.accelerator == "cpu" or (machine.accelerator == "auto" and not gpus):
        if machine.precision == "16-mixed":
            raise SettingsError("16-mixed needs a GPU; set --machine.precision bf16-mixed")
        return "cpu"
    if gpus < machine.devices:
        raise SettingsError(
            f"machine.devices asks for {machine.devices} GPUs and there are {gpus}; lower it, or "
            "set --machine.accelerator cpu"
        )
    return "cuda"


def _strategy(settings: Settings) -> Strategy | str:
    machine = settings.machine
    if machine.devices * machine.nodes == 1 and "TORCHELASTIC_RUN_ID" not in os.environ:
        return "auto"
    # Layers that HuBERT drops at random have no gradient in that step.
    return DDPStrategy(find_unused_parameters=settings.network.audio.layer_drop > 0)
