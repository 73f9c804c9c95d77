"""Commands on the path that are forked from this process's fork server, with all imported.

A launcher, such as torchrun or a shell, starts them as any program. Each is a client of a few
milliseconds: the server forks, the child takes over the client's files and variables and runs the
command, and the client ends as the child does. A signal to the client goes to the child.

With the variable FAULT, `step:signal:file`, the last process of a training run is sent that signal
in that step, unless the file is there; it is there then.
"""

import json
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from denseav.train.distributed.collectives import rank, world_size
from denseav.train.trainer.tracking.run_log import RunLog

COMMANDS = {
    "denseav-train": "denseav.train.cli.train",
    "torchrun": "torch.distributed.run",
}

CLIENT = """#!{python} -IS
import array, json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
files = array.array("i", [0, 1, 2])
asked = json.dumps([{name!r}, sys.argv[1:], dict(os.environ), os.getcwd()]).encode()
server.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
server.sendall(len(asked).to_bytes(4, "big") + asked)
child = int(server.recv(64))
def forward(number, _):
    try:
        os.kill(child, number)
    except ProcessLookupError:
        pass
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, forward)
ended = os.waitstatus_to_exitcode(int(server.recv(64)))
if ended < 0:
    signal.signal(-ended, signal.SIG_DFL) if ended != -signal.SIGKILL else None
    os.kill(os.getpid(), -ended)
sys.exit(ended)
"""


@contextmanager
def forked_commands(folder: Path) -> Iterator[dict[str, str]]:
    """Yield variables with which the commands are found, until the context ends."""
    address = str(folder / "server")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        for name in COMMANDS:
            path = folder / name
            path.write_text(CLIENT.format(python=sys.executable, address=address, name=name))
            path.chmod(0o755)
        begin = multiprocessing.get_context("forkserver").Process
        server = begin(target=_serve, args=(listening,))
        server.start()
    try:
        yield os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    finally:
        server.terminate()
        server.join()


def _serve(listening: socket.socket) -> None:
    """Fork for each client; a second process waits for each child and says how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for module in COMMANDS.values():
        import_module(module)
    while True:
        client, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            _answer(client)
        client.close()


def _answer(client: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, _, _ = socket.recv_fds(client, 1, 3)
    length = int.from_bytes(_exactly(client, 4), "big")
    name, arguments, environment, folder = json.loads(_exactly(client, length))
    child = os.fork()
    if child:
        client.sendall(str(child).encode())
        client.sendall(str(os.waitpid(child, 0)[1]).encode())
        os._exit(0)
    client.close()
    for file, number in zip(files, range(3), strict=True):
        os.dup2(file, number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [name, *arguments]
    os._exit(_run(COMMANDS[name], arguments))


def _fail_once(step: str, number: str, path: str) -> None:
    record = RunLog.record_step

    def record_and_fail(self: RunLog, **figures: Any) -> None:
        record(self, **figures)
        if figures["step"] == int(step) and rank() == world_size() - 1 and not Path(path).exists():
            Path(path).touch()
            os.kill(os.getpid(), int(number))

    RunLog.record_step = record_and_fail  # type: ignore[method-assign]


def _run(module: str, arguments: list[str]) -> int:
    if "FAULT" in os.environ:
        _fail_once(*os.environ["FAULT"].split(":"))
    try:
        return import_module(module).main(arguments) or 0
    except SystemExit as ended:
        return int(ended.code or 0)
    except BaseException:  # noqa: BLE001 - as the interpreter does
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _exactly(client: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        data += client.recv(length - len(data))
    return data
