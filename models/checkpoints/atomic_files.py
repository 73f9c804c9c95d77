"""Files that appear whole or not at all: a path enters, a place to write what then takes it leaves.

It knows nothing of what is written, and raises what writing raises.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield where to write a file or folder that takes the place of `path` in the end.

    Raises
    ------
    OSError
        When it cannot take the place; `path` is as it was.
    """
    partial = path.with_name(f".{path.name}.partial")
    _remove(partial)  # a kill may have left one, linked to a checkpoint that is whole
    try:
        yield partial
        partial.replace(path)
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
