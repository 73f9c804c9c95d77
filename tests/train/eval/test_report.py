import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from denseav.train.errors import DataError
from denseav.train.eval.report import Row, tables, write_json


def row(metric: str = "mAP", head: str = "total", value: float = 43.21, **changes: object) -> Row:
    fields: dict[str, object] = {
        "data": "ADE20K speech",
        "audio": "clean",
        "metric": metric,
        "head": head,
        "value": value,
        "low": value - 1,
        "high": value + 1,
        "count": 478,
        "unit": "classes",
    }
    return Row(**{**fields, **changes})  # type: ignore[arg-type]


def shown(rows: list[Row]) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    for table in tables(rows):
        console.print(table)
    return console.export_text()


def test_a_line_is_a_metric_and_a_column_a_head() -> None:
    text = shown([row(), row(head="speech", value=47.7), row(metric="mIoU")])
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "ADE20K speech, clean, 478 classes" in lines
    assert "metric total speech" in lines
    assert "mAP 43.2 42.2-44.2 47.7 46.7-48.7" in lines
    assert "mIoU 43.2 42.2-44.2" in lines


def test_other_sound_has_a_table_of_its_own_and_every_unit_is_said() -> None:
    rows = [row(), row(audio="mixed +0 dB"), row(metric="IIoU", unit="scenes", count=3)]
    assert [str(table.title) for table in tables(rows)] == [
        "ADE20K speech, clean, 478 classes, 3 scenes",
        "ADE20K speech, mixed +0 dB, 478 classes",
    ]


def test_a_threshold_has_no_interval() -> None:
    text = shown([row("threshold U", value=0.123456, low=None, high=None)])
    assert "0.1235" in text
    assert "None" not in text


def test_json_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    write_json(path, {"model": "tiny", "mixed": tmp_path}, [row()])
    first = json.loads(path.read_text())
    assert first["mixed"] == str(tmp_path)
    assert first["results"][0]["value"] == 43.21
    write_json(path, {"model": "tiny"}, [row(), row()])
    assert len(json.loads(path.read_text())["results"]) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["out.json"]


def test_json_that_cannot_be_written_names_the_way_out(tmp_path: Path) -> None:
    folder = tmp_path / "out.json"
    folder.mkdir()
    with pytest.raises(DataError, match=r"out\.json cannot be written .* --json"):
        write_json(folder, {}, [])
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
