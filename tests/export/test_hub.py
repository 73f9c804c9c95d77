"""Bundles on a hub that runs here: pushed whole, fetched, checked; every failure is one line."""

import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from rich.console import Console

import denseav
from denseav.export.cli import _push
from denseav.export.hub import fetch_bundle, model_card, push_bundle, require_name
from denseav.export.runtime.bundle import BundleError, demo_folder, open_bundle
from denseav.models import load
from denseav.stream.cli.live import main as live
from tests.support.hub import Hub
from tests.support.tiny_model import tiny

# The hub's library hands its HTTP client bytes in a way that this has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

NAME = "someone/demo"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    served = Hub()
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", served.url)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        served.url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    yield served
    served.close()


@pytest.fixture
def stocked(hub: Hub) -> Hub:
    """One that holds the demo's bundle."""
    files = ["manifest.json", *open_bundle(demo_folder()).manifest.files]
    hub.repositories[NAME] = {name: (demo_folder() / name).read_bytes() for name in files}
    return hub


def pushed(hub: Hub) -> str:
    manifest = open_bundle(demo_folder()).manifest
    card = model_card(manifest, NAME)
    weights = {"model.safetensors": demo_folder() / "model.safetensors"}
    address = push_bundle(demo_folder(), NAME, card, weights)
    assert address.startswith(f"{hub.url}/{NAME}/commit/")
    return card


def test_what_is_pushed_is_fetched_and_is_the_same_bundle(hub: Hub) -> None:
    card = pushed(hub)
    assert hub.private[NAME]
    assert hub.repositories[NAME]["README.md"].decode() == card
    assert hub.repositories[NAME]["model.safetensors"][:1] != b""
    for expected in ("denseav-live --camera 0 --model hf:someone/demo", "| speech |", "| sound |"):
        assert expected in card
    folder = fetch_bundle(f"hf:{NAME}")
    assert open_bundle(folder).sha256 == open_bundle(demo_folder()).sha256
    fetched = {path.name for path in folder.iterdir()}
    assert fetched == {"manifest.json", *open_bundle(demo_folder()).manifest.files}
    commits = [each for each in hub.requests if "/commit/" in each]
    assert len(commits) == 1


def test_what_is_exported_with_its_weights_is_exported_again_from_there(hub: Hub) -> None:
    model, manifest = tiny(), open_bundle(demo_folder()).manifest
    options: Any = SimpleNamespace(push=NAME, out=demo_folder())
    said = StringIO()
    _push(model, manifest, options, Console(file=said, width=200))
    assert f"--model hf:{NAME}" in said.getvalue()
    again = load(f"hf:{NAME}").state_dict()
    assert again.keys() == model.state_dict().keys()
    assert all(torch.equal(again[key], value) for key, value in model.state_dict().items())


def test_without_a_network_the_one_of_before_is_taken(
    stocked: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fetch_bundle(f"hf:{NAME}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert fetch_bundle(f"hf:{NAME}") == folder
    with pytest.raises(BundleError, match=r"hf:someone/other cannot be fetched \("):
        fetch_bundle("hf:someone/other")


def test_a_bundle_that_was_changed_there_is_refused(
    stocked: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = stocked.repositories[NAME]["image.onnx"]
    stocked.repositories[NAME]["image.onnx"] = graph[:-1] + bytes([graph[-1] ^ 1])
    assert live(["--demo", "--headless", "--seconds", "1", "--model", f"hf:{NAME}"]) == 4
    said = capsys.readouterr().err
    assert "taking hf:someone/demo from the hub" in said
    assert "image.onnx is not the file that the manifest names" in said


def test_a_manifest_that_is_none_is_one_line(stocked: Hub) -> None:
    stocked.repositories[NAME]["manifest.json"] = b"<html>"
    with pytest.raises(BundleError, match=r"manifest\.json"):
        fetch_bundle(f"hf:{NAME}")
    manifest = json.loads((demo_folder() / "manifest.json").read_text())
    manifest["files"]["../../escape"] = "0" * 64
    stocked.repositories[NAME]["manifest.json"] = json.dumps(manifest).encode()
    with pytest.raises(BundleError, match=r"manifest\.json"):
        fetch_bundle(f"hf:{NAME}")


def test_a_hub_that_is_down_or_answers_rubbish_is_one_line(hub: Hub) -> None:
    with pytest.raises(
        BundleError, match=r"hf:someone/demo cannot be fetched \([^\n]*\); check its"
    ):
        fetch_bundle(f"hf:{NAME}")
    hub.rubbish = True
    for attempt in (lambda: fetch_bundle(f"hf:{NAME}"), lambda: pushed(hub)):
        with pytest.raises(BundleError) as told:
            attempt()
        assert "\n" not in str(told.value)
    assert NAME not in hub.repositories
    hub.close()
    with pytest.raises(
        BundleError, match=r"cannot be pushed to someone/demo \([^\n]*\); check its"
    ):
        pushed(hub)


@pytest.mark.parametrize("name", ["hf:", "hf:demo", "hf:a/b/c", "hf:../demo", "hf:a b/c"])
def test_a_name_that_is_none_is_refused_before_anything_is_asked(name: str, hub: Hub) -> None:
    with pytest.raises(BundleError, match="is no hub id; it looks like hf:owner/name"):
        fetch_bundle(name)
    with pytest.raises(BundleError, match="is no repository's name"):
        require_name(name.removeprefix("hf:"))
    assert hub.requests == []


def test_other_programs_take_it_by_the_same_name(stocked: Hub) -> None:
    bundle = denseav.load_bundle(f"hf:{NAME}", device="cpu")
    assert [head.name for head in bundle.heads] == ["speech", "sound"]
