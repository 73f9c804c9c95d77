"""What the command lines share: checked numbers, records, and how they end."""

import argparse
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from denseav.export.command_line import (
    count,
    ends_in_a_line,
    positive,
    record,
    run,
    size,
    whole_number,
)
from denseav.export.terminal_text import safe_console


class FailedError(Exception):
    """As each command's errors are."""

    exit_code = 4


@dataclass(frozen=True)
class Options:
    """Some of what was given."""

    out: str
    jobs: int


def failing(error: BaseException) -> Callable[[object], None]:
    def act(_: object) -> None:
        raise error

    return act


@pytest.mark.parametrize(
    ("check", "text", "value"),
    [(whole_number, "0", 0), (count, "3", 3), (positive, "0.5", 0.5), (positive, "2e1", 20.0)],
)
def test_a_number_is_taken(check: Callable[[str], float], text: str, value: float) -> None:
    assert check(text) == value


@pytest.mark.parametrize(
    ("check", "text"),
    [
        *((whole_number, text) for text in ("-1", "1.5", "", "two", "²", "٣")),
        *((count, text) for text in ("0", "-1", "1.5", "")),
        *((positive, text) for text in ("0", "-1", "nan", "inf", "", "1,5")),
    ],
)
def test_what_is_no_such_number_is_refused(check: Callable[[str], float], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a"):
        check(text)


def test_a_size_is_two_numbers() -> None:
    assert size("224X296", "HxW") == (224, 296)
    for text in ("224", "0x10", "10x", "axb", "1x2x3"):
        with pytest.raises(argparse.ArgumentTypeError):
            size(text, "HxW")


def test_a_record_takes_its_own_fields() -> None:
    assert record(Options, Namespace(out="a", jobs=2, verbose=True)) == Options(out="a", jobs=2)


def test_a_command_ends_with_its_code_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def ended(act: Callable[[object], None]) -> int:
        return run("it", act, safe_console(stderr=True), lambda: (FailedError,), "nothing is lost")

    assert ended(lambda _: None) == 0
    assert ended(failing(FailedError("no \x1b[31mway[/b]"))) == 4
    assert ended(failing(KeyboardInterrupt())) == 130
    with pytest.raises(ZeroDivisionError):
        ended(failing(ZeroDivisionError()))
    shown = capsys.readouterr().err
    assert shown == "it: error: no \\x1b[31mway[/b]\nit: interrupted; nothing is lost\n"


def test_too_little_memory_a_reader_gone_and_ctrl_c_are_a_line_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def ended(error: BaseException) -> int:
        return ends_in_a_line("it")(failing(error))()

    assert ended(MemoryError()) == 1
    assert ended(BrokenPipeError(32, "Broken pipe")) == 1
    assert ended(KeyboardInterrupt()) == 130
    with pytest.raises(SystemExit):
        ended(SystemExit(2))
    assert capsys.readouterr().err == (
        "it: error: there is too little memory (MemoryError); free some, or raise its limit\n"
        "it: error: nobody reads what it prints any more\n"
        "it: interrupted\n"
    )


def test_what_cannot_be_printed_is_a_line_and_no_second_failure(tmp_path: Path) -> None:
    program = (
        "import sys; from denseav.export.command_line import ends_in_a_line\n"
        "@ends_in_a_line('it')\n"
        "def main(arguments=None): print('much'); return 0\n"
        "sys.exit(main())"
    )
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr.startswith("it: error: it failed unexpectedly (OSError: [Errno 28]")
    assert done.stderr.count("\n") == 1


def test_a_ctrl_c_that_a_library_turns_into_its_own_error_is_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def act(_: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ZeroDivisionError from None

    before = signal.getsignal(signal.SIGINT)
    assert run("it", act, safe_console(stderr=True), lambda: (FailedError,), "all is kept") == 130
    assert capsys.readouterr().err == "it: interrupted; all is kept\n"
    assert signal.getsignal(signal.SIGINT) is before
