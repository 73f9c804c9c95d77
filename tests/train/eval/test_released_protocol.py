"""From files to figures: `denseav-eval` is held to a second, plain calculation of each protocol."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from denseav.models import DenseAV, save
from denseav.train.cli.eval import main
from tests.support import tiny_model
from tests.support.train import eval_trees, released_protocol

PERCENT = 1e-2
"""A ten-thousandth of the figure's range."""
PIXEL = 100 / 32**2
"""One pixel of a picture this small, in percent: its heat may round to a threshold's other side."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> DenseAV:
    return tiny_model.tiny()


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each public set, small; of the speech prompts one word and its margin outlast the audio."""
    root = tmp_path_factory.mktemp("trees")
    prompts = eval_trees.speech_prompted(root / "speech")
    with (prompts / "prompted_segmentation.csv").open(newline="") as file:
        columns, *rows = csv.reader(file)
    spans = ("[0.5, 1.2]", "[1.1, 1.95]", "[0.9, 1.99]", "[0.2, 0.7]", "[0, 1]")
    for row, span in zip(rows, spans, strict=True):
        row[columns.index("timing")] = span
    eval_trees.table(prompts / "prompted_segmentation.csv", columns, rows)
    eval_trees.sound_prompted(root / "sound")
    (root / "places").mkdir()
    eval_trees.places(root / "places" / "distro", 12)
    eval_trees.audioset(root / "audioset", 12)
    eval_trees.vggss(root / "vggss")
    eval_trees.is3(root / "is3", speech=True)
    eval_trees.avatar(root / "avatar")
    return root


@pytest.fixture(scope="module")
def report(
    model: DenseAV, trees: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str, str], float]:
    """Return what the command finds of all sets at once, by set, metric and head."""
    folder = tmp_path_factory.mktemp("model")
    save(model, folder)
    names = ("speech-prompted", "sound-prompted", "places", "audioset", "vggss", "is3", "avatar")
    where = ("speech", "sound", "places/distro", "audioset", "vggss", "is3", "avatar")
    pairs = zip(names, where, strict=True)
    arguments = [part for name, at in pairs for part in (f"--{name}", str(trees / at))]
    out = folder / "out.json"
    assert main([str(folder), *arguments, "--channel", "left", "--json", str(out)]) == 0
    rows: list[dict[str, Any]] = json.loads(out.read_text())["results"]
    return {(row["data"], row["metric"], row["head"]): row["value"] for row in rows}


@pytest.mark.parametrize("kind", ["speech", "sound"])
def test_prompted_segmentation(
    model: DenseAV, trees: Path, report: dict[tuple[str, str, str], float], kind: str
) -> None:
    for head, figures in released_protocol.prompted(model, trees / kind, kind).items():
        precision, iou = (report[f"ADE20K {kind}", metric, head] for metric in ("mAP", "mIoU"))
        assert precision == pytest.approx(figures[0], abs=PERCENT), head
        assert iou == pytest.approx(figures[1], abs=PIXEL), head


def test_retrieval_and_disentanglement(
    model: DenseAV, trees: Path, report: dict[tuple[str, str, str], float]
) -> None:
    places, audioset = trees / "places", trees / "audioset"
    entries = json.loads((places / "distro" / "metadata" / "val.json").read_text())["data"]
    spoken = [
        (places / "places_subset" / entry["image"], places / "distro" / entry["wav"])
        for entry in entries
    ]
    frames = np.random.default_rng(0).integers(10, size=12)
    names = [f"clip{index}_{30.0 + index}_{40 + index}" for index in range(12)]
    heard = [
        (audioset / "frames" / f"{name}_{frame}.jpg", audioset / "audio" / f"{name}.mp3")
        for name, frame in zip(names, frames, strict=True)
    ]
    speech_AVK = released_protocol.similarities(model, spoken)
    sound_AVK = released_protocol.similarities(model, heard)
    for data, sims_AVK in (("Places", speech_AVK), ("AudioSet", sound_AVK)):
        for k in (1, 5, 10):
            found = [report[data, f"R@{k} {way}", "total"] for way in ("I->A", "A->I")]
            assert found == pytest.approx(released_protocol.recalls(sims_AVK, k)), data
    own = np.arange(12)
    figures = released_protocol.disentanglement(speech_AVK[own, own], sound_AVK[own, own])
    found = [report["speech and sound", metric, "total"] for metric in ("PredDis", "ActDis")]
    assert found == pytest.approx(figures, abs=PERCENT)


def test_vggss(model: DenseAV, trees: Path, report: dict[tuple[str, str, str], float]) -> None:
    for head, figures in released_protocol.vggss(model, trees / "vggss").items():
        found = [report["VGG-SS", metric, head] for metric in ("cIoU median", "AUC median")]
        assert found == pytest.approx(figures, abs=PERCENT), head


@pytest.mark.parametrize("kind", ["speech", "sound"])
def test_extended_is3(
    model: DenseAV, trees: Path, report: dict[tuple[str, str, str], float], kind: str
) -> None:
    for head, figures in released_protocol.extended_is3(model, trees / "is3", kind).items():
        data = f"Extended IS3 {kind}"
        precision, iou = (report[data, metric, head] for metric in ("mAP", "mIoU"))
        assert precision == pytest.approx(figures[0], abs=PERCENT), head
        assert iou == pytest.approx(figures[1], abs=PIXEL), head


@pytest.mark.parametrize("scenario", ["Single-Sound", "Mixed-Sound", "Multi-Entity"])
def test_avatar(
    model: DenseAV, trees: Path, report: dict[tuple[str, str, str], float], scenario: str
) -> None:
    for head, figures in released_protocol.avatar(model, trees / "avatar", scenario).items():
        found = {metric: report[f"AVATAR {scenario}", metric, head] for metric in figures}
        assert found.pop("threshold U") == pytest.approx(figures.pop("threshold U"), rel=1e-4)
        assert found == pytest.approx(figures, abs=PIXEL), head
