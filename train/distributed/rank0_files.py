"""How files are written: by the first process, whole or not at all, and failures are one line.

Errors
------
DiskError            a file cannot be written
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from denseav.models import CheckpointError
from denseav.models.checkpoints.atomic_files import replacing as whole
from denseav.train.distributed.collectives import gather_objects, rank, wait_for_rank_zero
from denseav.train.errors import DataError, DiskError


def on_rank_zero(work: Callable[[], None]) -> None:
    """Let the first process work; where it cannot, all stop, for none would wait in vain.

    Raises
    ------
    Exception
        What the first process raised, on every process.
    """
    failure: Exception | None = None
    if rank() == 0:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - whatever it is, the others wait
            failure = error
    reported = failure
    if not isinstance(failure, DataError | CheckpointError | None):  # may not travel
        reported = RuntimeError(f"the first process stopped: {failure!r}")
    wait_for_rank_zero()
    reported = gather_objects(reported)[0]
    if reported is not None:
        raise failure or reported


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write a file or a folder into one line.

    Raises
    ------
    DiskError
        When the disk is full or cannot be written.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DiskError(
            f"{path} cannot be written ({reason}); the checkpoint before it is whole: free some "
            "space and start the same command again"
        ) from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield where to write what then takes the place of `path`, whole or not at all.

    Raises
    ------
    DiskError
        When the disk is full or cannot be written.
    """
    with writing(path), whole(path) as partial:
        yield partial
