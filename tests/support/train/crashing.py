"""Files that end the process that reads or receives them; small, for such processes import it."""

import os
import signal
from pathlib import PosixPath
from typing import Any


class CrashingFile(PosixPath):
    """Stands in for a file over which a decoder crashes; none is known that does."""

    def exists(self) -> bool:
        """End this process, as a decoder that writes where it must not."""
        os.kill(os.getpid(), signal.SIGSEGV)
        return True


class DeadlyPath(PosixPath):
    """Stands in for want of memory: a worker ends as soon as it is given work."""

    def __reduce__(self) -> tuple[Any, ...]:
        """End the process that unpickles this."""
        return os._exit, (1,)
