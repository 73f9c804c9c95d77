"""What the command lines share: checked numbers, records, and how they end."""

import argparse
import signal
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from denseav.export.command_line import count, positive, record, run, size, whole_number
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
