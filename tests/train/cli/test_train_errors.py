"""What cannot be trained is refused in one line that names the remedy, and nothing is written."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from denseav.train.cli.train import main, parse
from denseav.train.data.shards import save_clips
from denseav.train.errors import SettingsError
from tests.support.train.made_clips import made_clip
from tests.support.train.runs import ARGUMENTS, DEBUG

CONFIGURATIONS = sorted(DEBUG.parent.glob("*.yaml"))
FROM_SHARDS = "--made null --data.image_size 32 --data.workers 0 --data.batch_size 2 --data.shards"
BAD = {
    "--losss.splice 1": "losss.splice",
    "--loss.splice much": "splice",
    "--made.batch_size 64": "lower --made.batch_size",
    "--optimization.steps 0": "at least 1",
    "--network.code_dim 65": "code_dim 65",
    "--pooling cls": "cls_similarity",
    "--network.aggregation.clips mima": "--pooling",
    "--machine.accelerator cuda --machine.devices 99": "99 GPUs",
    "--machine.accelerator auto --machine.devices 99": "accelerator cpu",
    "--config nowhere.yaml": "nowhere.yaml",
    "--made null": "--data.shards",
    "--data.batchsize 3": "--data.help",
    "--machine.strategy zero": "strategy",
    "--made null --data.shards x --data.mixing.level true": "set others",
    "--made null --data.shards x --data.batch_size 0": "batch_size is at least 1",
}


@pytest.mark.parametrize("arguments", BAD)
def test_bad_settings_are_one_line_with_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: str
) -> None:
    code = main(["--config", str(DEBUG), "--out", str(tmp_path / "run"), *arguments.split()])
    said = capsys.readouterr().err.strip()
    assert code == 2
    assert BAD[arguments] in said
    assert said.count("\n") == 0, said


COMMAND = {
    "unknown key": ("--optimisation.steps 3", 2, "denseav-train --help"),
    "no shards": (f"{FROM_SHARDS} {{empty}}", 3, "make them with: denseav-data prepare"),
    "missing shard": (f"{FROM_SHARDS} {{holed}}", 3, "lacks 1 of its"),
    "no validation shards": (
        f"{FROM_SHARDS} {{whole}} --validation.shards {{empty}}",
        3,
        "prepare",
    ),
    "batch too large": (f"{FROM_SHARDS} {{whole}} --data.batch_size 9", 3, "batch_size to 5"),
    "few GPUs": ("--machine.accelerator cuda --machine.devices 99", 2, "accelerator cpu"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Shards that are whole, that lack one, and none."""
    top = tmp_path_factory.mktemp("shards")
    folders = {name: top / name for name in ("whole", "holed", "empty")}
    for name in ("whole", "holed"):
        save_clips(folders[name], (made_clip(number) for number in range(5)))
    next(folders["holed"].glob("*.bin")).unlink()
    folders["empty"].mkdir()
    return folders


@pytest.mark.parametrize("wrong", COMMAND)
def test_the_command_refuses_in_one_line(
    tmp_path: Path, folders: dict[str, Path], wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, code, remedy = COMMAND[wrong]
    given = [*ARGUMENTS, "--out", str(tmp_path / "run"), *arguments.format(**folders).split()]
    found = main(given)
    said = capsys.readouterr().err
    assert found == code, said
    assert said.startswith("denseav-train: error: ")
    assert remedy in said
    assert said.count("\n") == 1, said
    assert not (tmp_path / "run").exists()


def test_the_command_refuses_a_checkpoint_of_another_architecture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*ARGUMENTS, "--out", str(tmp_path), "--optimization.steps", "2"]
    assert main(command) == 0
    before = (tmp_path / "last.ckpt").read_bytes()
    capsys.readouterr()
    assert main([*command, "--network.code_dim", "32"]) == 4
    said = capsys.readouterr().err
    assert "code_dim is 64, not 32" in said
    assert "another --out" in said
    assert said.count("\n") == 1, said
    assert (tmp_path / "last.ckpt").read_bytes() == before


def without_each(given: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a configuration without each of its values in turn."""
    for key, value in given.items():
        if isinstance(value, dict) and value:
            for name, inner in without_each(value):
                yield f"{key}.{name}", given | {key: inner}
        elif value != {}:
            yield key, {name: other for name, other in given.items() if name != key}


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_configurations_state_only_what_differs(path: Path, tmp_path: Path) -> None:
    given = yaml.safe_load(path.read_text())
    whole, _ = parse(["--config", str(path), "--out", "run"])
    for name, less in without_each(copy.deepcopy(given)):
        (tmp_path / "less.yaml").write_text(yaml.safe_dump(less))
        try:
            settings, _ = parse(["--config", str(tmp_path / "less.yaml"), "--out", "run"])
        except SettingsError:
            continue  # what must be there
        assert settings != whole, f"{name} is the default"
