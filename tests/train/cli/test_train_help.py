"""`denseav-train --help` says what every setting is, and which configurations there are."""

import dataclasses
import typing
from pathlib import Path

import docstring_parser
import pytest

from denseav.train.cli.train import main
from denseav.train.trainer.settings import Settings

CONFIGS = Path(__file__).parents[3] / "configs" / "train"


def records(kind: type) -> set[type]:
    """Return a record's type and those of all that it holds."""
    found = {kind}
    for hint in typing.get_type_hints(kind).values():
        for part in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(part):
                found |= records(typing.cast(type, part))
    return found


RECORDS = sorted(records(Settings), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_every_setting_is_described(kind: type) -> None:
    described = docstring_parser.parse(kind.__doc__ or "").params
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    assert [one.arg_name for one in described] == names
    assert all(one.description for one in described)


def said(capsys: pytest.CaptureFixture[str], option: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([option])
    assert ended.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_help_has_descriptions_defaults_and_configurations(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = said(capsys, "--help")
    assert "The largest norm of the whole gradient. (type: float, default: 10.0)" in text
    assert "exit codes: 0 done, 2 usage" in text
    for path in CONFIGS.glob("*.yaml"):
        assert f" {path.name} " in text
    assert "debug.yaml Learns in a minute or two on one CPU core" in text


def test_a_group_that_may_be_left_out_has_help_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "Clips of one batch of one process." in said(capsys, "--data.help")
