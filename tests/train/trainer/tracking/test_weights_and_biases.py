"""Weights & Biases, offline: what `wandb sync` reads has a run's figures and pictures."""

import json
import multiprocessing
import struct
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from wandb.proto.wandb_internal_pb2 import Record

from denseav.train.errors import SettingsError
from denseav.train.trainer.loop import train
from denseav.train.trainer.tracking import weights_and_biases
from denseav.train.trainer.tracking.weights_and_biases import IDENTITY, WandbSettings
from tests.support.train.runs import SMALL, losses, quiet

BLOCK, HEADER = 32_768, struct.Struct("<IHB")  # a checksum, a length, which part of a record
FULL, LAST = 1, 4
TRACKED = replace(
    SMALL, wandb=WandbSettings(mode="offline"), rhythm=replace(SMALL.rhythm, validate=2)
)


def records(folder: Path) -> list[Record]:
    """Return what one of their runs has recorded, in LevelDB's log format after seven bytes."""
    (path,) = folder.glob("*.wandb")
    data, at, part, found = path.read_bytes(), 7, b"", []
    while at < len(data):
        if BLOCK - at % BLOCK < HEADER.size:  # too little of a block is left empty
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = HEADER.unpack_from(data, at)
        at += HEADER.size
        part += data[at : at + length]
        at += length
        if kind in (FULL, LAST):
            found.append(Record.FromString(part))
            part = b""
    return found


def history(records: list[Record]) -> dict[str, dict[int, Any]]:
    """Return the values of each name by their step."""
    found: dict[str, dict[int, Any]] = defaultdict(dict)
    for record in records:
        values = {
            item.key or "/".join(item.nested_key): json.loads(item.value_json)
            for item in record.history.item
        }
        for name, value in values.items():
            found[name][values["step"]] = value
    return found


def run_twice(folder: str) -> None:
    """Train for two steps, and go on for two more."""
    for steps in (2, 4):
        optimization = replace(SMALL.optimization, steps=steps)
        train(replace(TRACKED, optimization=optimization), Path(folder), quiet())


def test_a_run_that_goes_on_is_one_of_theirs(tmp_path: Path) -> None:
    """In a process of its own: their library keeps threads and a program of its own."""
    process = multiprocessing.get_context("forkserver").Process(
        target=run_twice, args=(str(tmp_path),)
    )
    process.start()
    process.join(timeout=240)
    assert process.exitcode == 0
    runs = sorted(tmp_path.glob("wandb/offline-run-*"), key=lambda path: path.stat().st_mtime)
    identity = (tmp_path / IDENTITY).read_text()
    assert len(runs) == 2
    assert all(path.name.endswith(f"-{identity}") for path in runs)
    first, later = (history(records(path)) for path in runs)
    assert first["loss/total"] | later["loss/total"] == pytest.approx(losses(tmp_path))
    assert list(later["loss/total"]) == [3, 4]
    assert list(later["recall/recall"]) == [4]
    assert later["heatmaps/_type"][4] == "images/separated"
    assert len(list(runs[-1].glob("files/media/images/*.png"))) == 4
    (begun,) = (r.run for r in records(runs[0]) if r.WhichOneof("record_type") == "run")
    assert begun.project == "denseav"
    config = {item.key: json.loads(item.value_json) for item in begun.config.update}
    assert config["optimization"]["steps"] == 2


def test_without_their_library_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_and_biases, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"pip install 'denseav\[wandb\]'"):
        WandbSettings()
