"""The command from end to end: a tiny network with random weights on tiny data."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from denseav.models import save
from denseav.train.cli.eval import main
from tests.support import tiny_model
from tests.support.train import eval_trees


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """So small a network is slower on several threads, and far slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save(tiny_model.tiny(), folder)
    return folder


@pytest.fixture
def evaluate(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., dict[str, Any]]:
    """Run the command, which must succeed; give back its JSON and what it showed."""

    def run(*arguments: object) -> dict[str, Any]:
        out = tmp_path / "out.json"
        code = main([str(model), "--json", str(out), *map(str, arguments)])
        shown = capfd.readouterr()
        assert code == 0, shown.err
        return {**json.loads(out.read_text()), "shown": shown.out}

    return run


def values(report: dict[str, Any], **which: str) -> dict[str, float]:
    """Return `metric head` to value of the rows that fit."""
    rows = [row for row in report["results"] if which.items() <= row.items()]
    for row in rows:
        if row["low"] is not None:
            assert 0 <= row["low"] <= row["high"] <= 100, row
    return {f"{row['metric']} {row['head']}": row["value"] for row in rows}


def test_segmentation_of_both_kinds_clean_and_mixed(
    evaluate: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    data = (
        "--speech-prompted",
        eval_trees.speech_prompted(tmp_path / "sp"),
        "--sound-prompted",
        eval_trees.sound_prompted(tmp_path / "so"),
    )
    report = evaluate(*data, "--mixed", tmp_path / "lists", "--snr", "0", "10")
    assert {row["audio"] for row in report["results"]} == {"clean", "mixed +0 dB", "mixed +10 dB"}
    clean = values(report, data="ADE20K speech", audio="clean")
    assert set(clean) == {f"{m} {h}" for m in ("mAP", "mIoU") for h in ("total", "speech", "sound")}
    assert all(0 < value < 100 for value in clean.values())
    assert values(report, data="ADE20K speech", audio="mixed +0 dB") != clean
    assert "ADE20K sound, clean, 2 classes" in report["shown"]
    assert f"{clean['mAP total']:.1f} " in report["shown"]
    assert "…" not in report["shown"]  # nothing is cut, 80 columns wide as it is here
    lists = sorted(path.name for path in (tmp_path / "lists").iterdir())
    assert lists == ["ade20k-sound.csv", "ade20k-speech.csv"]
    again = evaluate(*data, "--mixed", tmp_path / "lists", "--snr", "0", "10")
    assert again["results"] == report["results"]


def test_retrieval_of_both_kinds_gives_the_disentanglement_too(
    evaluate: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    report = evaluate(
        "--places",
        eval_trees.places(tmp_path / "distro"),
        "--audioset",
        eval_trees.audioset(tmp_path / "as"),
        "--mixed",
        tmp_path / "lists",
    )
    places = values(report, data="Places", audio="clean")
    assert len(places) == 3 * 2 * 3  # ranks, directions, heads
    assert places["R@5 I->A sound"] == 100  # four candidates; the wrong head is asked as well
    assert set(values(report, data="speech and sound")) == {"PredDis total", "ActDis total"}
    assert values(report, data="AudioSet", audio="mixed +0 dB")


def test_a_model_with_one_head_has_no_wrong_head_and_no_disentanglement(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    save(tiny_model.tiny(heads=("speech",)), tmp_path / "one")
    out = tmp_path / "out.json"
    code = main(
        [
            str(tmp_path / "one"),
            "--places",
            str(eval_trees.places(tmp_path / "distro")),
            "--audioset",
            str(eval_trees.audioset(tmp_path / "as")),
            "--json",
            str(out),
        ]
    )
    report = json.loads(out.read_text())
    assert code == 0
    assert {row["head"] for row in report["results"]} == {"total", "speech"}
    assert {row["data"] for row in report["results"]} == {"Places", "AudioSet"}
    places = values(report, data="Places")
    assert places["R@1 I->A total"] == places["R@1 I->A speech"]


def test_fewer_retrieval_items_are_a_fixed_draw(
    evaluate: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    root = eval_trees.places(tmp_path / "distro")
    report = evaluate("--places", root, "--retrieval-items", "2")
    assert report["sets"][0]["items"] == 2
    assert {row["count"] for row in report["results"]} == {2}


def test_boxes_scenes_and_negative_audio(
    evaluate: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("denseav.train.eval.negative_audio.SEEDS", (1234, 2345))
    report = evaluate(
        "--vggss",
        eval_trees.vggss(tmp_path / "v"),
        "--is3",
        eval_trees.is3(tmp_path / "i", speech=False),
        "--negative-audio",
    )
    vggss = values(report, data="VGG-SS")
    assert {"cIoU median total", "AUC adaptive sound", "F total", "threshold U sound"} <= set(vggss)
    assert {f"pIA {kind} total" for kind in ("silence", "noise", "off screen")} <= set(vggss)
    scenes = values(report, data="IS3")
    assert scenes["IIoU median total"] <= scenes["cIoU median total"]
    # The universal threshold leaves a quarter of the negative maps with any pixel at all.
    assert min(vggss[f"pIA {kind} total"] for kind in ("silence", "noise", "off screen")) < 25


def test_extended_is3_is_always_heard_with_the_other_object(
    evaluate: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    report = evaluate("--is3", eval_trees.is3(tmp_path / "i", speech=True))
    assert {row["audio"] for row in report["results"] if "Ext" in row["data"]} == {"mixed +0 dB"}
    assert values(report, data="Extended IS3 speech")["mAP speech"] > 0


def test_extended_is3_has_lists_of_pairs_and_gains_that_are_kept_to(
    evaluate: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    arguments = "--is3", eval_trees.is3(tmp_path / "i", speech=True), "--mixed", tmp_path / "lists"
    report = evaluate(*arguments)
    path = tmp_path / "lists" / "extended-is3-speech.csv"
    assert {file.name for file in path.parent.iterdir()} == {path.name, "extended-is3-sound.csv"}
    lines = path.read_text().splitlines()
    assert lines[0] == "item,distractor,gain_db,seed"
    assert lines[1].startswith("dog_drum_1_dog,dog_drum_1_drum,")
    assert lines[1].endswith(",-1")
    path.write_text(
        "\n".join([lines[0], *(f"{','.join(row.split(',')[:2])},30,-1" for row in lines[1:])])
    )
    louder = evaluate(*arguments)
    speech, sound = (values(report, data=f"Extended IS3 {kind}") for kind in ("speech", "sound"))
    assert values(louder, data="Extended IS3 speech") != speech
    assert values(louder, data="Extended IS3 sound") == sound


def test_shards_made_for_training(evaluate: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    folder = eval_trees.shards(tmp_path / "shards", kinds=("speech", "sound", "sound", "speech"))
    report = evaluate("--shards", folder)
    assert {(entry["name"], entry["items"]) for entry in report["sets"]} == {
        ("shards speech", 2),
        ("shards sound", 2),
    }
    assert "PredDis total" in values(report, data="speech and sound")


def test_shards_without_a_kind_are_refused(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = eval_trees.shards(tmp_path / "shards", kinds=("unknown", "unknown"))
    assert "whether its clips are speech or sound" in refused(capfd, 3, model, "--shards", folder)
    assert "holds no finished shards" in refused(capfd, 3, model, "--shards", tmp_path)


def test_a_damaged_shard_is_named(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = eval_trees.shards(tmp_path / "shards", kinds=("speech", "sound"))
    (shard,) = folder.glob("*.bin")
    shard.write_bytes(shard.read_bytes()[:-100])
    line = refused(capfd, 3, model, "--shards", folder)
    assert f"the shard {shard.name} is damaged; copy it again" in line


def test_an_interrupted_run_says_so(
    model: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("denseav.train.cli.eval.load", interrupted)
    assert main([str(model), "--vggss", str(eval_trees.vggss(tmp_path / "v"))]) == 130
    assert "interrupted; what is above is done" in capfd.readouterr().err


def test_an_interrupted_world_promises_no_results(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("denseav.train.cli.eval.world_eval.run", interrupted)
    assert main(["--world"]) == 130
    assert "interrupted; run the same command again" in capfd.readouterr().err


def test_help_says_how_the_universal_threshold_is_set(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = " ".join(capfd.readouterr().out.split())
    assert "threshold U is the third quartile of all their maps' maxima" in said
    assert "silence is one in 21" in said


def test_an_own_folder(evaluate: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    report = evaluate("--items", eval_trees.own(tmp_path / "mine"))
    assert {entry["name"] for entry in report["sets"]} == {
        "mine speech retrieval",
        "mine sound segmentation",
        "mine sound boxes",
    }
    assert "R@1 A->I total" in values(report, data="mine speech retrieval")
    assert report["trained"] is False
    assert "UNTRAINED" in report["shown"]


def refused(capfd: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    """Run the command, which must fail with one line; return it."""
    assert main([str(argument) for argument in arguments]) == code
    shown = capfd.readouterr()
    assert shown.out == ""
    (line,) = shown.err.strip().splitlines()
    assert line.startswith("denseav-eval: error: ")
    return line


def test_a_class_that_no_picture_shows_is_named_before_the_model_runs(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = eval_trees.sound_prompted(tmp_path / "so")
    eval_trees.ade_label(root / "annotations" / "1_seg.png", np.full((40, 48), 7))
    line = refused(capfd, 3, model, "--sound-prompted", root)
    assert "no picture shows what is asked for in the categories 300" in line
    assert "correct their masks or remove their rows" in line


def test_a_class_that_only_the_crop_cut_off_scores_zero(
    evaluate: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    root = eval_trees.sound_prompted(tmp_path / "so")
    label = np.full((40, 48), 7)
    label[:, :3] = 300  # the middle 40 of 48 columns are looked at
    eval_trees.ade_label(root / "annotations" / "1_seg.png", label)
    report = evaluate("--sound-prompted", root)
    assert 0 < values(report, data="ADE20K sound")["mAP total"] <= 50


def test_missing_files_stop_the_run_or_are_reported(
    evaluate: Callable[..., dict[str, Any]],
    model: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    root = eval_trees.vggss(tmp_path / "v")
    (root / "audio" / "abc_000002.wav").unlink()
    assert "abc_000002.wav" in refused(capfd, 3, model, "--vggss", root)
    report = evaluate("--vggss", root, "--allow-missing")
    assert report["sets"][0]["items"] == 2
    assert [Path(path).name for path in report["sets"][0]["missing"]] == ["abc_000002.wav"]


def test_silent_items_stop_a_mixture_or_are_counted(
    evaluate: Callable[..., dict[str, Any]],
    model: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    arguments = (
        *("--sound-prompted", eval_trees.sound_prompted(tmp_path / "so")),
        *("--places", eval_trees.places(tmp_path / "distro")),
        *("--mixed", tmp_path / "lists"),
    )
    eval_trees.sound(tmp_path / "distro" / "wavs" / "2" / "c.wav", 100, level=0.0)
    line = refused(capfd, 3, model, *arguments)
    assert "Places: 1 sounds are silent and cannot be mixed" in line
    assert "2/c.wav; remove their items, or leave them out with --allow-missing" in line
    report = evaluate(*arguments, "--allow-missing")
    assert [(data["items"], data["silent"]) for data in report["sets"]] == [
        (3, []),
        (3, [str(tmp_path / "distro" / "wavs" / "2" / "c.wav")]),
    ]
    assert "wavs/2/c.wav" not in (tmp_path / "lists" / "places.csv").read_text()
    assert values(report, data="Places", audio="mixed +0 dB")


def test_a_checkpoint_of_another_architecture_is_refused(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = eval_trees.vggss(tmp_path / "v")
    other = tmp_path / "bert"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "bert"}')
    (other / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    assert "describes another model" in refused(capfd, 4, other, "--vggss", root)
    assert "does not exist" in refused(capfd, 4, tmp_path / "nowhere", "--vggss", root)


def test_mixing_needs_the_other_kind(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = eval_trees.sound_prompted(tmp_path / "so")
    arguments = (model, "--sound-prompted", root, "--mixed", tmp_path / "lists")
    assert main([str(a) for a in arguments]) == 3
    shown = capfd.readouterr()
    assert "name a set of speech, such as --places" in shown.err


def test_a_list_of_other_data_is_refused(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lists = tmp_path / "lists"
    eval_trees.table(
        lists / "ade20k-sound.csv",
        ("item", "distractor", "gain_db", "seed"),
        [("a", "b", 0.0, 0)],
    )
    main(
        [
            str(model),
            "--sound-prompted",
            str(eval_trees.sound_prompted(tmp_path / "so")),
            "--places",
            str(eval_trees.places(tmp_path / "distro")),
            "--mixed",
            str(lists),
        ]
    )
    assert "ade20k-sound.csv was made for other data" in capfd.readouterr().err


def test_results_before_an_error_are_still_shown_and_kept(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    boxes, broken = eval_trees.vggss(tmp_path / "v"), eval_trees.own(tmp_path / "mine")
    (broken / "2.wav").write_bytes(b"RIFF")
    out = tmp_path / "out.json"
    code = main([str(model), "--json", str(out), "--vggss", str(boxes), "--items", str(broken)])
    shown = capfd.readouterr()
    assert code == 3
    assert "2.wav is not a media file" in shown.err
    assert "cIoU median" in shown.out
    assert json.loads(out.read_text())["results"]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["model"], "nothing to evaluate"),
        (["model", "--places", "x", "--retrieval-items", "0"], "is not a whole number above 0"),
        (["model", "--world"], "--world takes no SOURCE"),
        (["--world", "--snr", "0"], "--world takes no --snr; name the model with --model"),
        (["--world", "--retrieval-items", "1000"], "--world takes no --retrieval-items"),
        (["--world", "--allow-missing", "--is3", "x"], "--world takes no --is3, --allow-missing"),
        (["model", "--places", "x", "--seed", "0"], "go with --world"),
    ],
)
def test_usage_errors(arguments: list[str], what: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert what in capfd.readouterr().err


def test_json_and_device_that_cannot_be_had(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = eval_trees.vggss(tmp_path / "v")
    missing = tmp_path / "no" / "out.json"
    assert "does not exist" in refused(capfd, 3, model, "--vggss", root, "--json", missing)
    device = refused(capfd, 3, model, "--vggss", root, "--device", "quantum")
    assert "'quantum' cannot be used" in device
