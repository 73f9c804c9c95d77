"""`denseav`: each command by its name, what a bug report needs, one line for what is missing."""

import subprocess
import sys
from importlib import import_module
from importlib.metadata import distribution, version
from pathlib import Path

import pytest

from denseav.stream.cli import commands
from denseav.stream.cli.commands import _COMMANDS, main
from tests.support.live_command import environment


@pytest.mark.parametrize("name", _COMMANDS)
def test_each_command_says_what_a_bug_report_needs(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["denseav"])
    if name == "live":  # it ends the process by itself
        from denseav.stream.cli.live import main as live

        assert live(["--version"]) == 0
    else:
        with pytest.raises(SystemExit, match="0"):
            main([name, "--version"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"denseav {version('denseav')}"
    assert lines[1].startswith(f"Python {sys.version_info.major}.{sys.version_info.minor}.")
    assert lines[2].startswith("ONNX Runtime 1.")
    assert "CPUExecutionProvider" in lines[2]
    assert "numpy 2." in lines[3]
    assert "NVIDIA" in lines[4]


def test_every_command_that_is_installed_is_one_of_them() -> None:
    installed = {
        entry.name: entry.value
        for entry in distribution("denseav").entry_points
        if entry.group == "console_scripts"
    }
    assert installed.pop("denseav") == "denseav.stream.cli.commands:main"
    heavy = {"export": "export", "train": "train", "eval": "evaluate", "data": "data"}
    assert installed == {
        f"denseav-{name}": f"denseav.stream.cli.commands:{heavy[name]}"
        if name in heavy
        else f"{module}:main"
        for name, (module, _) in _COMMANDS.items()
    }


def test_a_command_gets_its_arguments_and_its_exit_code_is_kept(tmp_path: Path) -> None:
    program = "import sys; from denseav.stream.cli.commands import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, "live", "--source", "missing.mp4"],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    assert "denseav-live: error: missing.mp4: there is no such file" in done.stderr


def test_what_a_command_lacks_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "denseav.train.cli.train", raising=False)
    monkeypatch.setitem(sys.modules, "jsonargparse", None)
    assert main(["train", "--config", "debug.yaml"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("denseav: error: train needs jsonargparse; in a clone of denseav: pip")
    assert said.endswith(" install '.[train]'\n")


def test_a_program_says_what_it_lacks_before_it_is_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "denseav.train.cli.train", raising=False)
    monkeypatch.setitem(sys.modules, "jsonargparse", None)
    assert commands.train() == 2
    assert "train needs jsonargparse" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "stage", "arguments"),
    [
        ("feed", "denseav.stream.feed.keys.clients", ["keys", "list"]),
        ("feed", "denseav.stream.cli.feed._parser", []),
        ("export", "denseav.export.cli._export", ["random", "--out", "bundle"]),
        ("train", "denseav.train.cli.train.check_files", ["--out", "run"]),
        ("eval", "denseav.train.eval.world.run.run", ["--world", "--model", "m"]),
        ("data", "denseav.train.cli.data._parser", []),
        ("", "denseav.stream.cli.commands._parser", []),
    ],
)
def test_what_nobody_foresaw_is_one_line_in_every_command(
    name: str,
    stage: str,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("no \x1b[31mway[/b]")

    monkeypatch.setattr(stage, fail)
    run = import_module(_COMMANDS[name][0]).main if name else main
    assert run(arguments) == 1
    said = capsys.readouterr().err
    who = f"denseav-{name}" if name else "denseav"
    assert said.startswith(
        f"{who}: error: it failed unexpectedly (ZeroDivisionError: no \\x1b[31mway[/b]) "
        "at test_commands.py:"
    )
    assert said.endswith("what it says to --version\n")
    assert said.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["nonsense"]])
def test_a_name_that_is_none_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "denseav: error: " in capsys.readouterr().err
