"""The machine: its settings enter, a started Fabric leaves, and a module placed on its devices.

One device, data parallelism over many, many nodes: torchrun and SLURM are recognised by Fabric.

Errors
------
SettingsError        the machine lacks the devices that the settings ask for, or was given others
"""

import logging
import os
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import chain
from typing import Literal, NamedTuple, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.plugins import Precision as FullPrecision
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from lightning_fabric.strategies.strategy import Strategy
from torch import nn

from denseav.models import DenseAV
from denseav.train.distributed.fsdp import networks, shard, transformer_layers
from denseav.train.errors import SettingsError

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where it runs; nodes and ranks themselves come from torchrun or SLURM.

    Attributes
    ----------
    accelerator
        What kind of device; auto takes a GPU where there is one, and the CPU for one process alone.
    devices
        Processes on each node, one device each; 0 takes what torchrun or srun started, and one
        where nothing did.
    nodes
        How many machines; 0 likewise.
    strategy
        Of many processes: ddp keeps the whole network on each, fsdp a part of it.
    precision
        Of the encoders; the losses are always in float32.
    threads
        Of one process on a CPU; 0 leaves PyTorch's choice.
    activation_checkpointing
        Compute each layer of both encoders once more on the way back instead of keeping what it
        made: a fraction of the memory for a third more time.
    compile
        Have PyTorch compile each layer of both encoders, which takes minutes at first and, on a
        CPU, a C++ compiler.
    tf32
        On GPUs, let float32 products round their factors to TF32's 10 bits: faster, and the losses
        are no longer in full float32.
    fused_similarity
        On GPUs, compare clips with pictures by one Triton kernel instead of chunk by chunk; tested
        in Triton's interpreter, its speed not yet measured.
    """

    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = 0
    nodes: int = 0
    strategy: Literal["ddp", "fsdp"] = "ddp"
    precision: Precision = "bf16-mixed"
    threads: int = 0
    activation_checkpointing: bool = False
    compile: bool = False
    tf32: bool = False
    fused_similarity: bool = False

    def __post_init__(self) -> None:
        if min(self.devices, self.nodes, self.threads) < 0:
            raise SettingsError("machine: devices, nodes and threads cannot be below 0")


def start(machine: Machine) -> Fabric:
    """Start this process's part of the run; more processes are launched where they are wanted."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    machine = _counted(machine)
    kind = _kind(machine)
    if machine.threads and kind == "cpu":
        torch.set_num_threads(machine.threads)
    if kind == "cuda":
        allow_tf32(machine.tf32)
    if machine.fused_similarity and (kind != "cuda" or find_spec("triton") is None):
        raise SettingsError(
            "machine.fused_similarity needs an NVIDIA GPU, and Triton, which is on Linux alone; "
            "leave it out"
        )
    _check_launch(machine)
    fabric = Fabric(
        accelerator=kind,
        devices=machine.devices,
        num_nodes=machine.nodes,
        plugins=[_precision(machine, kind)],
        strategy=_strategy(machine),
    )
    fabric.launch()
    return fabric


def place(fabric: Fabric, module: Module, machine: Machine) -> Module:
    """Move a module to this process's device, sharded over all processes where that is wanted."""
    for network in networks(module):
        if fabric.device.type == "cpu":
            use_eager_attention(network)
        if machine.activation_checkpointing:
            checkpoint_activations(network)
        if machine.compile:
            compile_layers(network)
    module = module.to(fabric.device)
    if isinstance(fabric.strategy, ModelParallelStrategy):
        return shard(module, fabric.strategy.device_mesh)
    return module


def described(fabric: Fabric) -> str:
    """Return on what it runs, in words."""
    device = fabric.device
    name = "the CPU" if device.type == "cpu" else torch.cuda.get_device_name(device)
    processes = "1 process" if fabric.world_size == 1 else f"{fabric.world_size} processes"
    return f"{processes} on {name}, {fabric.strategy.precision.precision}"


def use_eager_attention(model: DenseAV) -> None:
    """Let both encoders attend in plain matrix products; PyTorch's fused ones take twice as long.

    That is so of training in bfloat16 on a CPU; values differ in rounding alone.
    """
    model.image_encoder.vit.set_attn_implementation("eager")
    model.audio_encoder.hubert.set_attn_implementation("eager")


def checkpoint_activations(model: DenseAV) -> None:
    """Let both encoders' layers, HuBERT's convolutions too, keep only their input in training mode.

    Chen et al., "Training Deep Nets with Sublinear Memory Cost" (2016). What a layer draws by
    chance is drawn alike both times, so that gradients stay the same.
    """
    for encoder in (model.image_encoder.vit, model.audio_encoder.hubert):
        encoder.activation_checkpointing_enable({"use_reentrant": False})


def compile_layers(model: DenseAV, backend: str = "inductor") -> None:
    """Have both encoders' transformer layers compiled, in place, as they are first called.

    Layers of a kind share what is compiled. What HuBERT's layers are called with, and which of them
    layer-drop leaves out, stays PyTorch's plain matter.
    """
    for layer in chain(*transformer_layers(model)):
        layer.compile(backend=backend)


def allow_tf32(allowed: bool) -> None:
    """Let a GPU's float32 products and convolutions use TF32, or not."""
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


def _kind(machine: Machine) -> str:
    gpus = torch.cuda.device_count()
    alone = machine.devices * machine.nodes == 1
    # Many processes of a large network would take a CPU's memory, where a driver is broken.
    if machine.accelerator == "cpu" or (machine.accelerator == "auto" and alone and not gpus):
        return "cpu"
    if gpus < machine.devices:
        raise SettingsError(
            f"machine.devices asks for {machine.devices} GPUs and there are {gpus}; lower it, or "
            "set --machine.accelerator cpu"
        )
    return "cuda"


def _counted(machine: Machine) -> Machine:
    """Return the settings with the processes there are; what they leave open the launcher says."""
    launched = _launcher()
    if launched is None:
        return replace(machine, devices=machine.devices or 1, nodes=machine.nodes or 1)
    started, nodes = launched.started(), launched.nodes()
    devices = machine.devices or (started // nodes if started % nodes == 0 else 1)
    return replace(machine, devices=devices, nodes=machine.nodes or nodes)


def _check_launch(machine: Machine) -> None:
    """Refuse processes that cannot meet, or in another number than the settings have."""
    launched = _launcher()
    if launched is not None and launched.meets_the_dead():
        raise SettingsError(
            "torchrun started the processes again, and they would look for those that are gone; "
            "set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 before torchrun, and give it "
            "--rdzv-backend c10d"
        )
    if launched is not None and not _fits(launched.cluster, machine):
        raise SettingsError(
            f"{launched.name} started {launched.started()} processes, the settings have "
            f"{machine.nodes} nodes of {machine.devices}; set --machine.nodes and "
            f"--machine.devices as {launched.name} has them (srun: --nodes and --ntasks-per-node)"
        )


class _Launcher(NamedTuple):
    """What started the processes, and the variables in which it says how many on how many nodes."""

    name: str
    cluster: type[ClusterEnvironment]
    started_variable: str

    def started(self) -> int:
        return int(os.environ[self.started_variable])

    def meets_the_dead(self) -> bool:
        """Tell whether processes would meet by a store that has the addresses of former ones."""
        again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0
        kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        return self.name == "torchrun" and again and kept

    def nodes(self) -> int:
        if self.name == "srun":
            return int(os.environ.get("SLURM_NNODES", 1))
        return max(1, self.started() // int(os.environ.get("LOCAL_WORLD_SIZE", self.started())))


def _launcher() -> _Launcher | None:
    if TorchElasticEnvironment.detect():
        return _Launcher("torchrun", TorchElasticEnvironment, "WORLD_SIZE")
    if SLURMEnvironment.detect():
        return _Launcher("srun", SLURMEnvironment, "SLURM_NTASKS")
    return None


def _fits(cluster: type[ClusterEnvironment], machine: Machine) -> bool:
    try:
        environment = cluster()
        environment.validate_settings(machine.devices, machine.nodes)
    except (RuntimeError, ValueError):
        return False
    return environment.world_size() == machine.devices * machine.nodes


def _strategy(machine: Machine) -> Strategy | str:
    processes = machine.devices * machine.nodes
    if processes == 1:
        return "auto"
    if machine.strategy == "ddp":
        return DDPStrategy()
    return ModelParallelStrategy(
        shard,
        data_parallel_size=processes,
        tensor_parallel_size=1,
        save_distributed_checkpoint=False,
    )


def _precision(machine: Machine, kind: str) -> FullPrecision:
    if machine.precision == "32-true":
        return FullPrecision()
    return MixedPrecision(machine.precision, device=kind)
