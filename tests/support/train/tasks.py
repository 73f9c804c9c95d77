"""A training run by several processes, as srun starts them, each with everything imported."""

import multiprocessing
import os
import resource
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from denseav.train.cli.train import main
from tests.support.ports import free_port


@dataclass(frozen=True)
class Ended:
    """What came of one process."""

    code: int | None
    said: str


def slurm(tasks: int) -> list[dict[str, str]]:
    """Return what `srun --ntasks-per-node` tells each of its tasks on one node."""
    job = {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "train",
        "SLURM_NTASKS": str(tasks),
        "SLURM_NTASKS_PER_NODE": str(tasks),
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "localhost",
        "MASTER_PORT": str(free_port()),
    }
    return [job | {"SLURM_PROCID": str(task), "SLURM_LOCALID": str(task)} for task in range(tasks)]


def run_tasks(*arguments: str, tasks: int = 2, file_bytes: int | None = None) -> list[Ended]:
    """Run the command in so many processes, which may write files of so many bytes at most."""
    begin = multiprocessing.get_context("forkserver").Process
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder, str(task)) for task in range(tasks)]
        running = [
            begin(target=_run, args=(task, arguments, path, file_bytes))
            for task, path in zip(slurm(tasks), said, strict=True)
        ]
        for process in running:
            process.start()
        for process in running:
            process.join(timeout=240)
        return [
            Ended(process.exitcode, path.read_text())
            for process, path in zip(running, said, strict=True)
        ]


def _run(
    task: dict[str, str], arguments: tuple[str, ...], said: Path, file_bytes: int | None
) -> None:
    os.environ |= task
    with said.open("w") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    if file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))
    sys.exit(main(arguments))
