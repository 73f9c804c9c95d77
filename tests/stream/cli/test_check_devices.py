"""`denseav-live --check-device`: right in every row, and nothing crashes it."""

from pathlib import Path

import pytest

from denseav.export.runtime.bundle import BundleError, demo_folder, open_bundle
from denseav.stream.cli import check_devices as checking
from denseav.stream.cli.check_devices import check_devices
from tests.support.live_command import live


def test_all_devices_are_tried_and_each_row_is_right(tmp_path: Path) -> None:
    done = live(tmp_path, "--demo", "--check-device", "all")
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line.split("│")[1].strip(): line for line in done.stdout.splitlines() if "│" in line}
    assert " yes " in rows["cpu"]
    assert "--device cpu" in rows["cpu"]
    assert "--device openvino:CPU" in rows["openvino:CPU"]
    assert "1.000000" in rows["openvino:CPU"]
    assert " no " in rows["trt"]
    assert " no " in rows["webgpu"]
    assert "onnxruntime-gpu " in done.stdout


def test_one_device_that_is_not_here_is_an_error_after_its_row(tmp_path: Path) -> None:
    done = live(tmp_path, "--demo", "--check-device", "trt")
    assert done.returncode == 4
    assert "no NVIDIA GPU or driver" in done.stderr
    assert "│ trt" in done.stdout


def test_a_reason_is_shown_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = "{'device': 'webgpu', 'reason': \"pip install '.[webgpu]' \\033[2J\"}"
    monkeypatch.setattr(checking, "_TRY", f"import json; print(json.dumps({row}))")
    with pytest.raises(BundleError):
        check_devices(open_bundle(demo_folder()), "webgpu", 1)
    shown = capsys.readouterr().out
    assert "pip install '.[webgpu]'" in shown
    assert "\033[2J" not in shown


@pytest.mark.parametrize(
    ("code", "reason"),
    [("import os; os.abort()", r"ended with code -6"), ("import time; time.sleep(9)", "no answer")],
)
def test_a_driver_that_crashes_or_hangs_is_a_row(
    code: str, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checking, "_TRY", code)
    monkeypatch.setattr(checking, "LIMIT_S", 1.0)
    with pytest.raises(BundleError, match=reason):
        check_devices(open_bundle(demo_folder()), "webgpu", 1)
    assert " no " in capsys.readouterr().out
