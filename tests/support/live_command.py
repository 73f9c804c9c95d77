"""Runs `denseav-live` as people do: a process of its own, with nothing set up for it."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

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
