"""Weights dealt out over processes learn as whole ones do, and their checkpoints are the same."""

import os
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, distributed, multiprocessing
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from denseav.models import ModelConfig, load
from denseav.train.data.toy import ToySettings
from denseav.train.distributed.collectives import rank, world_size
from denseav.train.distributed.fabric import Machine, checkpoint_activations
from denseav.train.distributed.fsdp import full_tensor, gathered, shard
from denseav.train.loss.denseav_loss import Weights, denseav_terms
from denseav.train.trainer.checkpointer import BEST, LAST, MODEL
from denseav.train.trainer.loop import train
from denseav.train.trainer.settings import (
    Averaging,
    Backbones,
    Intervals,
    Optimization,
    Settings,
)
from denseav.train.trainer.stages import set_learning, stages
from tests.support.ports import free_port
from tests.support.train.parts import NETWORK, batch, learner, rows, with_lora

TWO = 2
CLIPS = 4
DEEP = replace(NETWORK, audio=replace(NETWORK.audio, layers=3))
NETWORKS = {"whole": DEEP, "lora": replace(with_lora(), audio=DEEP.audio)}
LEARNING = Optimization(aligner_steps=2, steps=4)
RATE = 1e-3
SMALL = Settings(
    network=replace(DEEP, audio=replace(DEEP.audio, layer_drop=0.5, dropout=0.1, time_mask=0.05)),
    backbones=Backbones(image="", audio=""),
    made=ToySettings(things=8, batch_size=2, image_size=16, samples=2960 + 2880),
    optimization=Optimization(
        aligner_steps=3,
        steps=8,
        learning_rate=RATE,
        warmup_steps=2,
        accumulate=2,
        average=Averaging(decay=0.6),
    ),
    machine=Machine(
        accelerator="cpu",
        devices=TWO,
        precision="32-true",
        strategy="fsdp",
        activation_checkpointing=True,
    ),
    rhythm=Intervals(log=1, save=4, validate=4),
)
LATER = ("fsdp", "ddp")
MEETINGS = 10  # of the two processes: each at a port of its own


def learn(config: ModelConfig) -> dict[str, Any]:
    """Return every gradient of every step over both stages, and the weights at the end."""
    made = learner(config)
    if world_size() > 1:
        checkpoint_activations(made.model)
        mesh = init_device_mesh("cpu", (world_size(), 1), mesh_dim_names=("data_parallel", "other"))
        shard(shard(made, mesh), mesh)
    optimizer = torch.optim.Adam(made.parameters(), lr=RATE, eps=1e-3)
    part = slice(rank() * CLIPS // world_size(), (rank() + 1) * CLIPS // world_size())
    found: list[dict[str, Tensor]] = []
    for stage in stages(LEARNING):
        set_learning(made, stage)
        while len(found) < stage.end:
            optimizer.zero_grad()
            clips = rows(batch(CLIPS, seed=len(found)), part)
            random = torch.Generator().manual_seed(len(found))
            terms = denseav_terms(made, clips, config.heads, Weights(), random)
            (Weights().total(terms) * world_size()).backward()
            optimizer.step()
            grads = {name: p.grad for name, p in made.named_parameters() if p.grad is not None}
            found.append({name: full_tensor(grad).clone() for name, grad in grads.items()})
    sharded = sum(isinstance(p, DTensor) for p in made.parameters())
    return {"gradients": found, "weights": gathered(dict(made.state_dict())), "sharded": sharded}


def run(settings: Settings, folder: Path, steps: int) -> None:
    optimization = replace(settings.optimization, steps=steps)
    train(replace(settings, optimization=optimization), folder, Console(file=StringIO()))
    distributed.destroy_process_group()


def work(process: int, folder: str, ports: list[int]) -> None:
    """Be one of two processes, as torchrun starts them."""
    torch.set_num_threads(1)
    here = {"RANK": process, "LOCAL_RANK": process, "WORLD_SIZE": TWO, "LOCAL_WORLD_SIZE": TWO}
    os.environ |= {name: str(value) for name, value in here.items()}
    os.environ |= {"TORCHELASTIC_RUN_ID": "here", "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    free = iter(ports)

    def meet() -> None:
        os.environ["MASTER_PORT"] = str(next(free))

    meet()
    distributed.init_process_group("gloo")
    for name, network in NETWORKS.items():
        torch.save(learn(network), f"{folder}/{name}-{process}.pt")
    distributed.destroy_process_group()

    out = Path(folder)
    for strategy in LATER:
        for precision in ("32-true", "16-mixed"):
            machine = replace(SMALL.machine, strategy=strategy, precision=precision)
            meet()
            run(replace(SMALL, machine=machine), out / f"{strategy}-{precision}", 8)
    for later in LATER:
        meet()
        run(SMALL, out / f"then-{later}", 4)
        meet()
        machine = replace(SMALL.machine, strategy=later)
        run(replace(SMALL, machine=machine), out / f"then-{later}", 8)
    meet()
    run(SMALL, out / "then-alone", 4)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    ports = [free_port() for _ in range(MEETINGS)]
    multiprocessing.start_processes(
        work, (str(folder), ports), nprocs=TWO, start_method="forkserver"
    )
    return folder


def checkpoint(folder: Path, name: str = LAST) -> Any:
    return torch.load(folder / name, weights_only=True)


def weights_of(state: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the weights of a checkpoint, and their average."""
    return state["learner"], state["average"]["weights"]


def assert_near(found: dict[str, Tensor], wanted: dict[str, Tensor], share: float) -> None:
    assert found.keys() == wanted.keys()
    largest = max(value.abs().max().item() for value in wanted.values())
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=share * largest, msg=name)


@pytest.mark.parametrize("network", NETWORKS)
def test_gradients_and_weights_are_those_of_one_process(together: Path, network: str) -> None:
    alone = learn(NETWORKS[network])
    found = [torch.load(together / f"{network}-{process}.pt") for process in range(TWO)]
    assert alone["sharded"] == 0
    for parts in found:
        assert parts["sharded"] == len(list(learner(NETWORKS[network]).parameters()))
        for step, gradients in enumerate(alone["gradients"]):
            assert_near(parts["gradients"][step], gradients, 1e-5)
    first, last = alone["gradients"][0].keys(), alone["gradients"][-1].keys()
    assert first < last
    assert any(".encoder.layers.2." in name for name in last - first)
    assert_near(found[0]["weights"], alone["weights"], 1e-6)


@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
def test_a_sharded_run_is_the_run_of_data_parallelism(together: Path, precision: str) -> None:
    sharded, plain = (checkpoint(together / f"{one}-{precision}") for one in LATER)
    assert sharded["progress"]["step"] == 8
    assert sharded["progress"]["skipped"] == plain["progress"]["skipped"]
    assert sharded["scaler"] == plain["scaler"]
    assert bool(sharded["scaler"]) == (precision == "16-mixed")
    for one, other in zip(weights_of(sharded), weights_of(plain), strict=True):
        assert_near(one, other, 1e-4)
    averages, wanted = (one["optimizer"]["state"] for one in (sharded, plain))
    assert averages.keys() == wanted.keys()
    for number, average in averages.items():
        assert average["exp_avg"].shape == wanted[number]["exp_avg"].shape
        assert type(average["exp_avg"]) is Tensor


@pytest.mark.parametrize("later", LATER)
def test_a_sharded_checkpoint_goes_on_sharded_or_whole(together: Path, later: str) -> None:
    interrupted = checkpoint(together / f"then-{later}")
    at_once = checkpoint(together / "fsdp-32-true")
    assert interrupted["progress"]["step"] == 8
    share = 0.0 if later == "fsdp" else 1e-4
    for one, other in zip(weights_of(interrupted), weights_of(at_once), strict=True):
        assert_near(one, other, share)


def test_a_sharded_checkpoint_goes_on_alone(together: Path) -> None:
    folder = together / "then-alone"
    before = checkpoint(folder)
    alone = replace(SMALL, machine=replace(SMALL.machine, devices=1))
    assert train(alone, folder, Console(file=StringIO())).step == 8
    after = checkpoint(folder)
    assert {name: value.shape for name, value in after["learner"].items()} == {
        name: value.shape for name, value in before["learner"].items()
    }
    assert after["processes"][0]["loader"]["given"] > before["processes"][0]["loader"]["given"]


def test_best_and_last_of_a_sharded_run_open(together: Path) -> None:
    folder = together / "fsdp-32-true"
    weights, average = weights_of(checkpoint(folder, BEST))
    best = weights | average
    model = load(folder / MODEL)
    assert model.config.trained
    for name, value in model.state_dict().items():
        assert torch.equal(value, best[f"model.{name}"]), name
