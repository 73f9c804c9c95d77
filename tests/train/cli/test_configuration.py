"""Configurations that are more than data: refused in a line, and nothing of theirs has run."""

import os
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from denseav.train.cli.train import main, parse

BOMB = "made: {}\na: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "a module in a group": "made: {}\npretraining: {class_path: hostile.Thing}\n",
    "a module for the network": "made: {}\nnetwork: {class_path: hostile.Thing}\n",
    "a module as a value": "made: hostile.Thing\n",
    "a module of Python": "made: {class_path: os.system, init_args: {command: touch ran}}\n",
    "a module of ours": "made: {class_path: denseav.stream.cli.live.main}\n",
    "a tag": "made: !!python/object/apply:os.system [touch ran]\n",
    "an alias bomb": BOMB,
    "an alias": "made: &a {}\nvalidation: *a\n",
    "a merge": "made: &a {}\nvalidation: {<<: *a}\n",
    "nested without end": "made: " + "[" * 10_000,
    "nested in lines": "".join(f"{' ' * n}a:\n" for n in range(600)),
    "ten megabytes": "made: {}\nx: " + "a" * 10**7,
    "no YAML": "made: {",
    "no text": "\x00",
    "a list": "- 1\n- 2\n",
    "a word": "word",
    "nothing": "",
    "two documents": "made: {}\n---\nmade: {}\n",
    "keys that are lists": "? [a, b]\n: c\n",
    "keys that are numbers": "1: 2\n",
    "the same key twice, once wrong": "made: {}\nmade: 7\n",
    "a number beyond all": "made: {}\nseed: 1e400\n",
    "a value that is null": "made: {}\nnetwork: {name: x, audio: {dropout: null}}\n",
    "a value in a group that is null": "made: {batch_size: null}\n",
    "a group that is a number": "made: {}\nloss: 1.5\n",
    "a group that is a list": "made: {}\noptimization: []\n",
    "a group within a group that is a word": "made: {}\nnetwork: {name: x, image: x}\n",
    "a group that is null": "made: {}\nloss: null\n",
    "a network of a petabyte": "made: {}\nnetwork: {name: x, audio: {hidden: 65536}}\n",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_it_is_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "hostile.py").write_text("open('ran', 'w')\nclass Thing: pass\n")
    (tmp_path / "run.yaml").write_text(text)
    tracemalloc.start()
    code = main(["--config", "run.yaml", "--out", "run"])
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    said = capsys.readouterr().err.strip()
    assert code == 2, said
    assert said.count("\n") == 0, said
    assert len(said) < 1000
    assert most < 2**27
    assert not (tmp_path / "ran").exists()
    assert "hostile" not in sys.modules


def pipe(path: Path) -> None:
    os.mkfifo(path)


def latin(path: Path) -> None:
    path.write_bytes(b"made: {}\ninitial: caf\xe9\n")


def nothing(path: Path) -> None:
    pass


@pytest.mark.parametrize("make", [pipe, latin, Path.mkdir, nothing])
def test_what_is_no_text_is_not_waited_for(
    tmp_path: Path, make: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "run.yaml")
    assert main(["--config", str(tmp_path / "run.yaml"), "--out", "run"]) == 2
    assert capsys.readouterr().err.strip().count("\n") == 0


def test_groups_are_still_set_by_file_and_by_key(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("made: {batch_size: 3}\nloss: {splice: 2.0}\n")
    arguments = ["--config", str(tmp_path / "run.yaml"), "--out", "run", "--made.seed", "0"]
    settings, _ = parse(arguments[:-2])
    assert settings.made is not None
    assert (settings.made.batch_size, settings.loss.splice) == (3, 2.0)
