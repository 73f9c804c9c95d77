"""Heads get names: by hand, from labelled clips, and what is refused."""

import dataclasses
import wave
from pathlib import Path

import cv2
import numpy as np
import pytest

from denseav.export import cli
from denseav.export.builder.head_names import check_naming, find_clips, with_names
from denseav.export.hub import model_card, named_heads
from denseav.export.runtime.bundle import BundleError, Manifest, open_bundle, window_samples
from denseav.models import save
from tests.support.export.tiny_exports import ARGUMENTS
from tests.support.fake_session import TOKENS, FakeSession, fake_manifest
from tests.support.tiny_model import tiny

PARITY = {"cosine": 1.0, "max_abs": 0.0, "argmax_agreement": 1.0, "rank_correlation": 1.0}


def unnamed() -> Manifest:
    manifest = fake_manifest()
    first, second = manifest.heads
    heads = (
        dataclasses.replace(first, name="first", ceiling=3.0),
        dataclasses.replace(second, name="second", ceiling=5.0),
    )
    return dataclasses.replace(
        manifest, heads=heads, parity={"first": PARITY, "second": PARITY | {"cosine": 0.9}}
    )


def write_clip(folder: Path, name: str, brightness: int, level: float) -> None:
    """Write a picture, whose mean is what the first head answers, and audio for the second."""
    folder.mkdir(exist_ok=True)
    cv2.imwrite(str(folder / f"{name}.png"), np.full((16, 24, 3), brightness, np.uint8))
    with wave.open(str(folder / f"{name}.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        wave_S = np.full(window_samples(TOKENS), level * 32767, "<i2")
        file.writeframes(wave_S.tobytes())


def clips(folder: Path) -> Path:
    """Speech, which the first head answers to, and other sounds, one of which it answers to too."""
    for number, brightness in enumerate((200, 180, 220)):
        write_clip(folder, f"speech-{number}", brightness, 0.1 + 0.02 * number)
    for number, brightness in enumerate((20, 40, 250)):
        write_clip(folder, f"sound-{number}", brightness, 0.6 + 0.05 * number)
    write_clip(folder, "silence-0", 120, 0.0)
    write_clip(folder, "both-0", 220, 0.9)
    return folder


def test_names_by_hand_keep_the_order_and_all_figures() -> None:
    named = with_names(unnamed(), {"second": "sound", "first": "speech"}, FakeSession())
    assert [(head.name, head.ceiling) for head in named.heads] == [("speech", 3.0), ("sound", 5.0)]
    assert named.parity == {"speech": PARITY, "sound": PARITY | {"cosine": 0.9}}
    assert named.naming == {"by": "hand", "were": {"speech": "first", "sound": "second"}}
    assert named_heads(named) == "heads named by hand: first is speech, second is sound"
    assert "Heads named by hand: first is speech" in model_card(named, "owner/name")


def test_a_head_that_is_not_named_keeps_its_name() -> None:
    named = with_names(unnamed(), {"second": "music"}, FakeSession())
    assert [head.name for head in named.heads] == ["first", "music"]
    assert named_heads(unnamed()) == ""


def test_labelled_clips_name_the_head_that_leads_in_them(tmp_path: Path) -> None:
    found = find_clips(clips(tmp_path / "clips"))
    assert len(found) == 6
    named = with_names(unnamed(), found, FakeSession())
    assert [head.name for head in named.heads] == ["speech", "sound"]
    assert named.naming["were"] == {"speech": "first", "sound": "second"}
    assert named.naming["by"] == "clips"
    assert named.naming["clips"] == {"speech": 3, "sound": 3}
    right = named.naming["strongest_in_its_head"]
    assert right["speech"] == 3
    said = f"first is speech (3 of 3 clips), second is sound ({right['sound']} of 3 clips)"
    assert named_heads(named) == f"heads named from labelled clips: {said}"


def test_kinds_that_share_a_head_name_none(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    for number in range(3):
        for kind in ("a", "b"):
            write_clip(folder, f"{kind}-{number}", 100, 0.3)
    with pytest.raises(BundleError, match="are both strongest in the head first"):
        with_names(unnamed(), find_clips(folder), FakeSession())


def test_what_does_not_fit_the_heads_is_refused(tmp_path: Path) -> None:
    heads = ("first", "second")
    with pytest.raises(BundleError, match="no head third; there are first, second"):
        check_naming({"third": "music"}, heads)
    with pytest.raises(BundleError, match="the same name"):
        check_naming({"first": "second"}, heads)
    found = find_clips(clips(tmp_path / "clips"))
    check_naming(found, heads)
    with pytest.raises(BundleError, match="of sound, speech, and the model has 3 heads"):
        check_naming(found, (*heads, "third"))
    (tmp_path / "clips" / "sound-0.png").unlink()
    (tmp_path / "clips" / "sound-0.wav").unlink()
    with pytest.raises(BundleError, match="too few: sound"):
        find_clips(tmp_path / "clips")
    with pytest.raises(BundleError, match=r"--name-heads .* is not a folder"):
        find_clips(tmp_path / "nothing")


def test_the_command_names_heads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tiny(), tmp_path / "checkpoint")
    common = [str(tmp_path / "checkpoint"), "--out", str(tmp_path / "bundle"), *ARGUMENTS]
    assert cli.main([*common, "--name-heads", "speech=words,sound=noises"]) == 0
    manifest = open_bundle(tmp_path / "bundle").manifest
    assert [head.name for head in manifest.heads] == ["words", "noises"]
    assert manifest.parity.keys() == {"words", "noises"}
    assert all(of_run.keys() == {"words", "noises"} for of_run in manifest.step_parity.values())
    assert "heads named by hand: speech is words, sound is noises" in capsys.readouterr().err
    assert cli.main([*common, "--dry-run", "--name-heads", "third=speech"]) == 4
    for wrong in ("first=", "first=a,first=b"):
        with pytest.raises(SystemExit):
            cli.main([*common, "--name-heads", wrong])
