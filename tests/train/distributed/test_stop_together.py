"""Two processes stop together: what ends the first ends the other, which would wait in vain."""

from datetime import timedelta
from pathlib import Path
from time import sleep
from typing import Any

import pytest
import torch
from torch import distributed, multiprocessing

from denseav.models import CheckpointError
from denseav.train.distributed.collectives import first_to_report, wait_until_all_asked
from denseav.train.distributed.rank0_files import on_rank_zero
from denseav.train.errors import DiskError
from denseav.train.trainer.checkpointer import LAST, Checkpointer
from tests.support.ports import free_port
from tests.support.train.runs import SMALL

TWO = 2


class Unsendable(Exception):  # noqa: N818
    """An error that cannot be sent to another process, as some libraries have."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} {other}")


def ending(work: Any) -> str:
    try:
        work()
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"
    return "no end"


def first_fails(error: Exception) -> str:
    def fail() -> None:
        raise error

    return ending(lambda: on_rank_zero(fail))


def without_the_checkpoint(folder: Path) -> str:
    checkpointer = Checkpointer(folder, SMALL, None)  # type: ignore[arg-type]
    return ending(lambda: checkpointer.resume(None))  # type: ignore[arg-type]


def work(process: int, top: str, port: int) -> None:
    """Be one of two processes, each with a disk of its own."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{top}/meeting", rank=process, world_size=TWO
    )
    endings = [
        first_fails(DiskError("full")),
        first_fails(CheckpointError("other")),
        first_fails(Unsendable("a", "b")),
        without_the_checkpoint(Path(top) / f"disk{process}"),
    ]
    said = [str(first_to_report(text)) for text in ("what all say", f"what {process} says")]
    distributed.destroy_process_group()

    # Less patient than what the first one does takes, as every group is with pretraining.
    distributed.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=process,
        world_size=TWO,
        timeout=timedelta(seconds=4),
    )
    waited = ending(lambda: on_rank_zero(lambda: sleep(6)))
    if process == 1:
        sleep(0.5)
    said_late = str(first_to_report("what the other says later"))
    wait_until_all_asked("what the other says later")
    distributed.destroy_process_group()
    Path(f"{top}/{process}").write_text("\n".join([*endings, *said, waited, said_late]))


@pytest.fixture(scope="module")
def endings(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    top = tmp_path_factory.mktemp("together")
    (top / "disk0").mkdir()
    (top / "disk0" / LAST).touch()
    multiprocessing.start_processes(
        work, (str(top), free_port()), nprocs=TWO, start_method="forkserver"
    )
    return [(top / str(process)).read_text().splitlines() for process in range(TWO)]


def test_what_ends_the_first_process_ends_both(endings: list[list[str]]) -> None:
    first, other = endings
    assert first[:2] == other[:2] == ["DiskError: full", "CheckpointError: other"]
    assert first[2] == "Unsendable: a b"
    assert "the first process stopped: Unsendable" in other[2]


def test_a_checkpoint_that_not_every_node_has_is_refused_on_all(endings: list[list[str]]) -> None:
    for process in endings:
        assert process[3].startswith("CheckpointError: ")
        assert "is not on every node; give an --out that all nodes share" in process[3]


def test_what_all_say_is_said_once_and_what_one_says_too(endings: list[list[str]]) -> None:
    first, other = endings
    assert {first[4], other[4]} == {"True", "False"}
    assert first[5] == other[5] == "True"


def test_what_is_said_once_is_said_once_by_a_process_that_comes_late(
    endings: list[list[str]],
) -> None:
    assert [process[7] for process in endings] == ["True", "False"]


def test_processes_wait_for_what_the_first_does_alone(endings: list[list[str]]) -> None:
    assert [process[6] for process in endings] == ["no end"] * TWO
