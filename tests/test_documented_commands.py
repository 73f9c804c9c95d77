"""Every command and block of code in the documents is run, or its parser reads it, or it says why.

A block is run unless the comment before it says otherwise: with `<!-- parsed: why -->` each
command's own parser reads its line, with `<!-- not run: why -->` only the lines of ours are read
so. In place of a camera stands the demo. Commands in a sentence, which may be half of one, name no
option, subcommand or module that there is not.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import denseav
from denseav.export.cli import _parse as parse_export
from denseav.export.cli import _parser as export_parser
from denseav.stream.cli.feed import _parser as feed_parser
from denseav.stream.cli.live_options import _parser as live_parser
from denseav.stream.cli.live_options import parse as parse_live
from denseav.stream.feed import client
from denseav.train.cli.data import _parser as data_parser
from denseav.train.cli.eval import _parser as eval_parser
from denseav.train.cli.train import _parser as train_parser
from denseav.train.cli.train import parse as parse_train
from tests.support.documents import DOCUMENTS, ROOT
from tests.support.live_command import LiveProcess, environment
from tests.support.ports import free_port

BLOCK = re.compile(r"((?:<!-- .*? -->\n)*)```(\w*)\n(.*?)^```$", re.M | re.S)
MARK = re.compile(r"<!-- (run|parsed|not run)(?:: (.+?))? -->")
IN_A_SENTENCE = re.compile(r"`((?:denseav-\w+|python3? -m) [^`\n]+)`")
BY_CI = "<!-- test -->"
PARSERS: dict[str, Callable[[Sequence[str]], object]] = {
    "denseav-live": parse_live,
    "denseav-feed": lambda given: feed_parser().parse_args(given),
    "denseav-export": parse_export,
    "denseav-train": parse_train,
    "denseav-eval": lambda given: eval_parser().parse_args(given),
    "denseav-data": lambda given: data_parser().parse_args(given),
}
WHOLE_PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "denseav-live": live_parser,
    "denseav-feed": feed_parser,
    "denseav-export": export_parser,
    "denseav-train": train_parser,
    "denseav-eval": eval_parser,
    "denseav-data": data_parser,
}


@dataclass(frozen=True)
class Block:
    """A block of code, what is said of it, and why; `where` names it."""

    where: str
    language: str
    code: str
    how: str
    why: str | None
    comments: str


def blocks() -> Iterator[Block]:
    for path in DOCUMENTS:
        text = path.read_text()
        for found in BLOCK.finditer(text):
            comments, language, code = found.groups()
            line = text.count("\n", 0, found.start(2)) + 1
            mark = MARK.search(comments)
            how, why = mark.groups() if mark else ("run", None)
            where = f"{path.relative_to(ROOT)}:{line}"
            yield Block(where, language, code, how, why, comments)


ALL = list(blocks())


def of(language: str, *hows: str) -> pytest.MarkDecorator:
    found = [each for each in ALL if each.language == language and each.how in hows]
    found = [each for each in found if BY_CI not in each.comments]
    return pytest.mark.parametrize("block", found, ids=lambda block: block.where)


def test_every_block_has_a_language_and_what_is_not_run_says_why() -> None:
    assert len(ALL) > 20
    assert {each.where for each in ALL if each.language not in ("sh", "python")} == set()
    assert {each.where for each in ALL if each.how != "run" and not each.why} == set()
    assert {
        each.where for each in ALL if each.language == "python" and each.how == "parsed"
    } == set()
    by_ci = [each for each in ALL if BY_CI in each.comments]
    assert [each.where.partition(":")[0] for each in by_ci] == ["README.md"]
    assert len([each for each in ALL if each.how == "run"]) >= 10


def commands(code: str) -> Iterator[list[str]]:
    """The commands of ours in a block, with their arguments."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        words = words[: words.index("&")] if "&" in words else words
        for at, word in enumerate(words):
            if word in PARSERS:
                yield words[at:]
                break


@of("sh", "parsed", "not run")
def test_the_parser_of_each_command_reads_it(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where the configurations are
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    found = list(commands(os.path.expandvars(block.code)))
    assert found or block.how == "not run"
    for name, *arguments in found:
        if arguments[:1] != ["--version"]:
            PARSERS[name](arguments)


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """The options and the subcommands of a parser, and those of these."""
    found = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= set(action.choices)
            found |= set[str]().union(*map(options_of, action.choices.values()))
    return found


@pytest.mark.parametrize("name", WHOLE_PARSERS)
def test_a_shell_completes_each_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        WHOLE_PARSERS[name]().parse_args(["--print-completion", "bash"])
    assert ended.value.code == 0
    ask = f"""
        COMP_WORDS=({name} --ver) COMP_CWORD=1
        $(complete -p {name} | sed 's/.*-F \\([^ ]*\\) .*/\\1/') {name} --ver {name}
        echo "${{COMPREPLY[@]}}"
    """
    script = capsys.readouterr().out + ask
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["--version"], done.stderr


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    return {name: options_of(parser()) for name, parser in WHOLE_PARSERS.items()}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_command_in_a_sentence_names_what_there_is(
    document: Path, known: dict[str, set[str]]
) -> None:
    for text in IN_A_SENTENCE.findall(BLOCK.sub("", document.read_text())):
        words = re.findall(r"[\w.-]+", text)
        options = [word for word in words if word.startswith("--")]
        if words[0] in known:
            there = known[words[0]]
            options += words[1:2] if words[0] in ("denseav-data", "denseav-feed") else []
        elif words[2].startswith("benchmarks."):
            there = set(re.findall(r'"(--[\w-]+)"', module(words[2]).read_text()))
        else:
            continue
        assert set(options) - there == set(), text


def module(name: str) -> Path:
    return ROOT / f"{name.replace('.', '/')}.py"


def test_the_notebook_runs_from_its_first_cell_to_its_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    notebook = json.loads((ROOT / "docs/first_look.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["outputs"] for cell in cells] == [[]] * len(cells)
    names: dict[str, Any] = {"__name__": "notebook"}
    for cell in cells:
        exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    names["figure"].savefig(tmp_path / "look.png")
    assert names["heat"].shape[:2] == (2, 5)


def test_the_unit_for_systemd_starts_a_command_that_there_is() -> None:
    unit = (ROOT / "docs/deploy/denseav.service").read_text()
    (line,) = re.findall(r"^ExecStart=\S*/(denseav-live .*)$", unit, re.M)
    options = parse_live(shlex.split(line)[1:])
    assert options.display.headless
    assert options.feed.publish == "tcp://127.0.0.1:5557"


def test_the_containers_start_a_command_that_there_is() -> None:
    for name in ("cpu", "cuda"):
        text = (ROOT / f"docs/deploy/Dockerfile.{name}").read_text()
        entry, rest = (re.search(rf"^{key} (\[.*\])$", text, re.M) for key in ("ENTRYPOINT", "CMD"))
        assert entry is not None
        assert rest is not None
        command = [*json.loads(entry[1]), *json.loads(rest[1])]
        assert command[0] == "denseav-live"
        assert parse_live(command[1:]).sources.demo


def test_the_citation_is_of_this_version() -> None:
    assert f"\nversion: {version('denseav')}\n" in (ROOT / "CITATION.cff").read_text()


@of("sh", "run")
def test_a_command_does_as_it_stands(block: Block, exact: Path, tmp_path: Path) -> None:
    (tmp_path / "talk.mp4").write_bytes(exact.read_bytes())
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.code],
        cwd=tmp_path,
        env=environment(tmp_path, XDG_CONFIG_HOME=str(tmp_path / "config")),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def published(tmp_path: Path) -> str:
    """The endpoint of a feed of the demo."""
    endpoint = f"tcp://127.0.0.1:{free_port(1)}"
    process = LiveProcess(tmp_path, "--demo", "--headless", "--publish", endpoint)
    process.until("READY")
    return endpoint


@of("python", "run")
def test_code_does_as_it_stands(
    block: Block,
    exact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    live = denseav.live

    def without_a_camera(**given: Any) -> denseav.LiveStream:
        if given.pop("camera", None) == 0:
            given |= {"demo": True, "seconds": 0.7}
        return live(**given)

    code = block.code
    if "feed_client" in code:
        endpoint = request.getfixturevalue("published")
        code = code.replace("tcp://127.0.0.1:5557", endpoint).replace("=200", "=20_000")
        monkeypatch.setitem(sys.modules, "feed_client", client)
    (tmp_path / "talk.mp4").write_bytes(exact.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(denseav, "live", without_a_camera, raising=False)
    exec(compile(code, block.where, "exec"), {"__name__": "documented"})
