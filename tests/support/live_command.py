"""Runs `denseav-live` as people do: a process of its own, with nothing set up for it.

What ends before anything runs may be run here, in the test's process: it takes a tenth of the time.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, chdir, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import ClassVar
from unittest.mock import patch

from denseav.stream.cli.live import main

COMMAND = (
    sys.executable,
    "-c",
    "import sys; from denseav.stream.cli.live import main; sys.exit(main())",
)


def environment(folder: Path, **more: str) -> dict[str, str]:
    """This process's, without a display, and with a cache in which no model was exported."""
    kept = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    return {**kept, "XDG_CACHE_HOME": f"{folder}-cache", **more}


def live(
    folder: Path,
    *arguments: str | Path,
    env: Mapping[str, str] | None = None,
    limits: Callable[[], None] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run to the end, in `folder`, and return what came of it."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=folder,
        env=environment(folder, **(env or {})),
        preexec_fn=limits,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def live_here(
    folder: Path, *arguments: str | Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Call the command, in `folder`, and return the same; libraries' own lines are among it."""
    given = [str(argument) for argument in arguments]
    with ExitStack() as stack:
        out, err = (stack.enter_context(_redirected(name)) for name in ("stdout", "stderr"))
        stack.enter_context(chdir(folder))
        stack.enter_context(patch.dict(os.environ, environment(folder, **(env or {})), clear=True))
        code = main(given)
        return subprocess.CompletedProcess(given, code, *(_content(file) for file in (out, err)))


@contextmanager
def _redirected(name: str) -> Iterator[int]:
    """Let all that this process prints there go to a file."""
    number = {"stdout": 1, "stderr": 2}[name]
    with ExitStack() as stack:
        file = stack.enter_context(TemporaryFile())
        before = os.dup(number)
        os.dup2(file.fileno(), number)
        stack.callback(os.close, before)
        stack.callback(os.dup2, before, number)
        stream = stack.enter_context(os.fdopen(os.dup(number), "w", buffering=1))
        stack.enter_context(patch.object(sys, name, stream))
        yield file.fileno()


def _content(file: int) -> str:
    return os.pread(file, os.fstat(file).st_size, 0).decode()


class LiveProcess:
    """One that runs meanwhile; `until` waits for a line of what it says."""

    running: ClassVar[list[subprocess.Popen[str]]] = []

    def __init__(
        self,
        folder: Path,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        stdout: int = subprocess.DEVNULL,
    ) -> None:
        self.said: list[str] = []
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            cwd=folder,
            env=environment(folder, **(env or {})),
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.running.append(self.process)

    def until(self, words: str) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if words in line:
                return
        raise AssertionError(f"it never said {words!r}: {self.said}")

    def end(self, timeout_s: float = 30.0) -> int:
        """Wait for its end and return the exit code."""
        try:
            _, rest = self.process.communicate(timeout=timeout_s)
        finally:
            self.process.kill()
        self.said += rest.splitlines(keepends=True)
        return self.process.returncode

    @classmethod
    def kill_all(cls) -> None:
        """Leave none to the next test: its window would be in the way, its end a warning there."""
        while cls.running:
            process = cls.running.pop()
            process.kill()
            process.communicate()
