"""The evaluation on the world: sources whose figures are known, and the shipped bundle."""

import ctypes.util
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

from denseav.export.runtime.bundle import demo_folder, open_bundle
from denseav.models import save
from denseav.train.cli.eval import main
from denseav.train.errors import DataError
from denseav.train.eval.exported_model import Calibration, open_model
from denseav.train.eval.world import evaluator
from denseav.train.eval.world.evaluator import make_evaluator
from denseav.train.eval.world.report import Report
from denseav.train.eval.world.run import evaluate_world
from denseav.train.eval.world.split import Split
from denseav.train.world.classes import CLASSES
from tests.support.tiny_model import tiny
from tests.support.train.world_sources import SAMPLES, SIZE, Guesser, Oracle

pytestmark = pytest.mark.skipif(
    ctypes.util.find_library("espeak-ng") is None, reason="espeak-ng is not installed"
)

T = TypeVar("T")
CLIPS = 6
SPLIT = Split(seed=5, size=SIZE, samples=SAMPLES)
HALF = Calibration(thresholds=(0.5, 0.5), energy_floor_dbfs=-60.0)


def track(sequence: Sequence[T], description: str) -> Iterable[T]:
    return sequence


def figures(report: Report) -> dict[tuple[str, str, str], float]:
    for row in report.rows:
        assert row.low is not None, row
        assert row.high is not None, row
        assert 0 <= row.low <= row.high <= 100, row
    return {(row.data, row.metric, row.head): row.value for row in report.rows}


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle(SPLIT, CLIPS)


@pytest.fixture(scope="module")
def perfect(oracle: Oracle) -> Report:
    return evaluate_world(make_evaluator(oracle, SPLIT), CLIPS, HALF, track)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("shipped") / "out.json"
    assert main(["--world", "--seed", "3", "--clips", "3", "--json", str(out)]) == 0
    record: dict[str, Any] = json.loads(out.read_text())
    return record


def test_who_sees_the_truth_has_every_measure_full(perfect: Report) -> None:
    found = figures(perfect)
    for head in ("sound", "speech"):
        for metric in ("mAP", "mIoU", "pointing", "AP, one picture", "thing shown"):
            assert found[f"{head} prompted", metric, "own head"] == pytest.approx(100), metric
        assert found[f"{head} prompted", "mAP", "total"] == pytest.approx(100)
        assert found[f"retrieval of {CLIPS}, {head}", "the first shows it", "own head"] == 100
    together = "sound and speech at once"
    assert found[together, "both pointed at", "own head"] == 100
    for what in ("what sounds", "what is named"):
        for metric in ("mAP", "mIoU"):
            assert found[together, f"{metric}, {what}", "own head"] == pytest.approx(100), metric
        assert found[together, f"mAP, {what}", "total"] < 90  # both things are shown in it
    assert found["disentanglement", "PredDis", "total"] == pytest.approx(100)
    assert found["disentanglement", "ActDis", "total"] == pytest.approx(100)
    assert found["head choice", "explained by kind", "total"] > 90
    assert found["head choice", "explained by class", "total"] < 80  # much by chance, of so few
    assert found["speech prompted", "pointing at the word", "own head"] == 100


def test_who_sees_the_truth_shows_nothing_that_is_not_there(perfect: Report) -> None:
    dark = {key: value for key, value in figures(perfect).items() if key[0].startswith("area")}
    assert {metric for _, metric, _ in dark} == {
        "silence", "noise", "offscreen sound", "offscreen speech",
    }  # fmt: skip
    assert {head for _, _, head in dark} == {"speech", "sound", "any head"}
    assert set(dark.values()) == {0.0}


def test_maps_that_do_not_know_which_thing_is_meant_are_worse(perfect: Report) -> None:
    found = figures(perfect)
    for data in ("sound prompted", "speech prompted"):
        assert found[data, "mAP", "chance"] < found[data, "mAP", "any object"] < 90
        assert found[data, "mAP", "mismatched"] < 30
        assert found[data, "pointing", "mismatched"] < 60


def test_chance_is_the_share_of_the_picture_that_the_thing_fills(perfect: Report) -> None:
    cases = [SPLIT.case("sound", number) for number in range(CLIPS)]
    share = np.mean([case.truth(case.clip.events[0].name).mean() for case in cases])
    assert figures(perfect)["sound prompted", "pointing", "chance"] == pytest.approx(100 * share)


def test_who_guesses_is_near_chance() -> None:
    found = figures(evaluate_world(make_evaluator(Guesser(), SPLIT), 12, HALF, track))
    for data in ("sound prompted", "speech prompted"):
        chance = found[data, "pointing", "chance"]
        assert abs(found[data, "pointing", "own head"] - chance) < 15
        assert found[data, "AP, one picture", "own head"] < 2 * chance
    assert found["sound and speech at once", "both pointed at", "own head"] < 15
    assert found["retrieval of 12, sound", "R@1", "own head"] < 20
    assert 30 < found["disentanglement", "PredDis", "total"] < 75
    assert found["area above threshold", "noise", "any head"] > 10
    assert found["area above threshold", "silence", "any head"] == 0  # below the energy floor


def test_heads_of_other_names_are_known_by_what_they_answer_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluator, "RESERVED_CLIPS", 3)
    unnamed = Oracle(SPLIT, 0, heads=("a", "b"), aside=3)
    assert make_evaluator(unnamed, SPLIT).own == {"speech": 0, "sound": 1}


def test_three_heads_hear_tunes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluator, "RESERVED_CLIPS", 2)
    made = make_evaluator(Oracle(SPLIT, 2, heads=("a", "b", "c"), aside=2), SPLIT)
    assert made.own == {"sound": 1, "speech": 0, "tune": 2}
    calibration = replace(HALF, thresholds=(0.5, 0.5, 0.5))
    report = evaluate_world(made, 2, calibration, track)
    found = figures(report)
    assert report.answers == made.own
    for kind in made.own:
        assert found["own head chosen", kind, "own head"] == 100
        assert found[f"{kind} prompted", "mAP", "own head"] == pytest.approx(100)
        assert found[f"{kind} prompted", "pointing", "own head"] == 100
    assert found["head choice", "explained by kind", "total"] > 90
    assert found["area above threshold", "offscreen tune", "any head"] == 0
    assert "disentanglement" not in {data for data, _, _ in found}  # it is of two heads


def test_a_split_follows_from_its_seed_and_clips_from_their_numbers() -> None:
    one, same = SPLIT.case("both", 4), Split(seed=5, size=SIZE, samples=SAMPLES).case("both", 4)
    assert one.picture_HW3.tobytes() == same.picture_HW3.tobytes()
    assert one.clip.wave_S.tobytes() == same.clip.wave_S.tobytes()
    assert one.clip.events == same.clip.events
    for other in (Split(seed=6, size=SIZE, samples=SAMPLES).case("both", 4), SPLIT.case("both", 5)):
        assert other.picture_HW3.tobytes() != one.picture_HW3.tobytes()
        assert other.clip.wave_S.tobytes() != one.clip.wave_S.tobytes()


def test_every_class_is_called_once() -> None:
    for head in ("sound", "speech"):
        events = [event for event, _ in SPLIT.one_of_each_class(head)]
        assert tuple(event.name for event in events) == CLASSES
        assert {event.head for event in events} == {head}


def test_pictures_have_the_size_asked_for_or_the_world_says_why_not() -> None:
    case = SPLIT.case("speech", 0)
    assert case.picture_HW3.shape == (*SIZE, 3)
    assert case.masks_NHW.shape == (len(case.clip.scene.things), *SIZE)
    for size in ((32, 40), (224, 296)):
        with pytest.raises(DataError, match=f"{size[0]}x{size[1]}"):
            Split(seed=0, size=size, samples=SAMPLES)


def test_quiet_tokens_are_not_shown() -> None:
    wave_S = np.zeros(SAMPLES, np.float32)
    wave_S[3 * 2880 + 100 : 4 * 2880] = 0.1
    assert HALF.loud(wave_S, 11).nonzero().flatten().tolist() == [3]


def test_the_report_says_what_was_measured_and_on_what(shipped: dict[str, Any]) -> None:
    bundle = open_bundle(demo_folder())
    image = bundle.manifest.image
    assert shipped["world"] == {
        "seed": 3,
        "clips_of_each_kind": 3,
        "frame_size": [image.height, image.width],
        "window_samples": bundle.manifest.audio.window_samples,
    }
    assert shipped["form"] == "bundle"
    assert shipped["sha256"] == bundle.sha256
    assert shipped["model"] == bundle.manifest.model
    assert shipped["trained"] == bundle.manifest.trained
    assert shipped["own_heads"] == {"sound": "sound", "speech": "speech"}
    for row in shipped["results"]:
        assert {"data", "metric", "head", "value", "low", "high", "count", "unit"} <= row.keys()
        assert 0 <= row["low"] <= row["high"] <= 100
    assert {row["data"] for row in shipped["results"]} == {
        "sound prompted", "speech prompted", "disentanglement", "head choice",
        "sound and speech at once", "area above threshold", "retrieval of 3, sound",
        "retrieval of 3, speech",
    }  # fmt: skip
    for head in ("sound", "speech"):
        classes = shipped["classes"][head]
        assert sum(values["clips"] for values in classes.values()) == 3
        assert set(classes) <= set(CLASSES)
        assert all({"clips", "pointing", "ap"} == values.keys() for values in classes.values())


def test_the_same_seed_gives_the_same_report(
    shipped: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    arguments = ["--world", "--model", "demo", "--seed", "3", "--clips", "3", "--json", str(out)]
    assert main(arguments) == 0
    assert json.loads(out.read_text()) == shipped
    shown = capfd.readouterr().out
    assert "the world of seed 3" in shown
    assert ("UNTRAINED" in shown) is not shipped["trained"]


def test_a_checkpoint_has_no_thresholds_and_the_report_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    save(tiny(image=replace(tiny().config.image, size=96)), tmp_path / "model")
    out = tmp_path / "out.json"
    torch.set_num_threads(1)
    code = main(["--world", "--model", str(tmp_path / "model"), "--clips", "2", "--json", str(out)])
    record = json.loads(out.read_text())
    assert code == 0
    assert record["form"] == "checkpoint"
    assert record["world"]["frame_size"] == [96, 128]
    assert not [row for row in record["results"] if row["data"] == "area above threshold"]
    assert "no calibrated thresholds" in " ".join(capfd.readouterr().out.split())


def test_a_bundle_and_its_source_protocol_agree_on_shapes() -> None:
    opened = open_model("demo", "cpu")
    model = opened.model
    image = open_bundle(demo_folder()).manifest.image
    seen = model.encode_image(np.zeros((*model.frame_size, 3), np.uint8))
    heard = model.encode_audio(np.ones(model.window_samples, np.float32))
    volumes = model.volumes([heard, heard], [seen])
    assert volumes.shape == (2, 1, 2, 11, image.grid_height, image.grid_width)
    assert torch.equal(volumes[0], volumes[1])
    assert volumes.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["model", "--world"], 2, "--model"),
        (["--world", "--negative-audio"], 2, "--world takes no"),
        (["--seed", "3", "model", "--items", "d"], 2, "go with --world"),
        (["--items", "d"], 2, "SOURCE"),
        (["--world", "--seed", "-1"], 2, "--seed"),
        (["--world", "--clips", "0"], 2, "--clips"),
        (["--world", "--model", "nowhere"], 4, "nowhere does not exist"),
        (["--world", "--device", "tpu"], 3, "auto, cpu, cuda"),
        (["--world", "--json", "nowhere/out.json"], 3, "nowhere does not exist"),
    ],
)
def test_errors_are_one_line_with_a_code(
    arguments: list[str], code: int, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    try:
        found = main(arguments)
    except SystemExit as ended:
        found = int(str(ended.code))
    assert found == code
    assert says in " ".join(capfd.readouterr().err.split())


def test_a_damaged_bundle_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(demo_folder(), tmp_path / "bundle")
    (tmp_path / "bundle" / "audio.onnx").write_bytes(b"")
    assert main(["--world", "--model", str(tmp_path / "bundle")]) == 4
    assert "audio.onnx" in capfd.readouterr().err
